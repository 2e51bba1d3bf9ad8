"""How long a Markov chain remembers, and what its means are worth."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rgflow.importance import Estimate


class Autocorrelation(NamedTuple):
    """The integrated autocorrelation time, in steps, its standard error, and the lags that were summed."""

    time: float
    standard_error: float
    window: int


def autocorrelation_time(values: Tensor, stretch: float = 5.0) -> Autocorrelation:
    r"""The integrated autocorrelation time of an observable, in steps: 1 for independent values.

    .. math:: \tau = 1 + 2 \sum_{t=1}^{W} \rho(t), \qquad
        \text{the variance of a mean over T steps being } \tau \sigma^2 / T

    with rho the autocorrelation averaged over the chains, about their common mean, and W the first window of at least
    `stretch` tau. The error is :math:`\tau \sqrt{2 (2 W + 1) / (T S)}`.

    Shapes: values (T,) or (T, S): S chains of T steps.

    Raises:
        ValueError: fewer than 10 steps, values that are all the same or not finite, or chains that are shorter than
            twice the window.

    Source: Madras & Sokal 1988; Wolff 2004 (whose tau is half of this one); Sokal 1997, sec. 3.
    """
    chains = _chains(values)
    steps, count = chains.shape
    chains = chains - chains.mean()
    waves = torch.fft.rfft(chains, n=2 * steps, dim=0)
    lags = torch.fft.irfft(waves.abs().square(), n=2 * steps, dim=0)[:steps].mean(1)
    lags = lags / torch.arange(steps, 0, -1)
    if not lags[0] > 0:
        raise ValueError("the values of the chains are all the same: they have no autocorrelation")
    times = 2 * (lags / lags[0]).cumsum(0) - 1
    enough = (torch.arange(steps) >= stretch * times).nonzero()
    window = int(enough[0]) if len(enough) else steps - 1
    if not len(enough) or 2 * window > steps:
        raise ValueError(f"chains of {steps} steps are too short for their autocorrelation")
    time = float(times[window])
    return Autocorrelation(time, time * math.sqrt(2 * (2 * window + 1) / (steps * count)), window)


def chain_mean(values: Tensor, stretch: float = 5.0) -> Estimate:
    r"""The mean of an observable over chains with its standard error, :math:`\sigma \sqrt{\tau / (T S)}`.

    Arguments and errors as in `autocorrelation_time`.
    """
    chains, time = _chains(values), autocorrelation_time(values, stretch).time
    error = float(chains.std()) * math.sqrt(max(time, 0.0) / chains.numel())
    return Estimate(float(chains.mean()), error)


def split_r_hat(values: Tensor) -> float:
    r"""Whether chains agree with each other and with themselves later on: about 1 if they do, say below 1.01.

    .. math:: \hat R^2 = \frac{n - 1}{n} + \frac{B}{W}

    with W the mean variance within half chains of n steps, and B the variance of their means.

    Shapes: values (T,) or (T, S), T at least 10.

    Raises:
        ValueError: as `autocorrelation_time`.

    Source: Gelman et al. 2013 (Bayesian Data Analysis), sec. 11.4.
    """
    chains = _chains(values)
    n = len(chains) // 2
    halves = torch.cat([chains[:n], chains[-n:]], 1)
    within = halves.var(0).mean()
    if not within > 0:
        raise ValueError("the values of the chains are all the same: they cannot be compared")
    return math.sqrt((n - 1) / n + float(halves.mean(0).var() / within))


def _chains(values: Tensor) -> Tensor:
    chains = values.detach().double().cpu()
    chains = chains[:, None] if chains.ndim == 1 else chains
    if chains.ndim != 2 or len(chains) < 10 or not chains.isfinite().all():
        raise ValueError(f"values must be finite, (T,) or (T, S) with at least 10 steps, not {tuple(values.shape)}")
    return chains
