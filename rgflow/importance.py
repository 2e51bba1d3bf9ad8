"""Importance weights of draws of a model under an energy: effective sample size, log Z, means of the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Model(Protocol):
    """A density that is drawn from: a `Flow`, a `symmetry.Symmetrised`."""

    def sample_and_log_prob(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]: ...


class Estimate(NamedTuple):
    """A number and its standard error, in the same unit."""

    value: float
    standard_error: float


class Draws(NamedTuple):
    """Draws of a model: x (n, C, L, L) and log w (n,), nats, float64."""

    x: Tensor
    log_weights: Tensor


@torch.no_grad()
def weighted_draws(
    model: Model,
    energy: Callable[[Tensor], Tensor],
    n: int,
    generator: torch.Generator | None = None,
    batch: int = 1000,
) -> Draws:
    r"""Draws of q with their importance weights under e^(-E), :math:`w = e^{-E(x)} / q(x)`, at most `batch` at a time.

    Raises:
        ValueError: fewer than 1 draw, or a batch below 1.
    """
    if n < 1 or batch < 1:
        raise ValueError(f"n and batch must be at least 1, not {n} and {batch}")
    parts = []
    for first in range(0, n, batch):
        x, log_q = model.sample_and_log_prob(min(batch, n - first), generator=generator)
        parts.append((x, -(energy(x) + log_q).double()))
    return Draws(*map(torch.cat, zip(*parts, strict=True)))


def effective_share(log_weights: Tensor) -> Tensor:
    r"""Effective sample size per draw, :math:`(\sum w)^2 / (n \sum w^2)`, between 1/n and 1; a number on the device.

    Shapes: log_weights (n,), nats.

    Source: Kong 1992; Liu 2001, sec. 2.5.3.
    """
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp() / len(log_weights)


def free_energy(log_weights: Tensor) -> Estimate:
    r"""The variational free energy :math:`F = E_q[\log q + E] \ge -\log Z` with its standard error, nats.

    Shapes: log_weights (n,).

    Raises:
        ValueError: fewer than 2 draws.
    """
    _check(log_weights)
    return Estimate(-float(log_weights.mean()), float(log_weights.std()) / math.sqrt(len(log_weights)))


def log_z(log_weights: Tensor) -> Estimate:
    r"""Log Z from draws of a model, nats.

    The mean weight :math:`\bar w` is an unbiased estimate of Z, whatever the model. Its logarithm is too low by about
    half its variance, which is added:

    .. math:: \log Z \approx \log \bar w + \tfrac12 \sigma^2, \qquad
        \sigma^2 = \frac{1}{n (n - 1)} \sum_i \Bigl(\frac{w_i}{\bar w} - 1\Bigr)^2.

    The error is honest where the effective sample size is some hundreds and the model misses nothing of the target.

    Shapes: log_weights (n,).

    Raises:
        ValueError: fewer than 2 draws.
    """
    _check(log_weights)
    n = len(log_weights)
    mean = log_weights.logsumexp(0) - math.log(n)
    variance = float((log_weights - mean).exp().var()) / n
    return Estimate(float(mean) + 0.5 * variance, math.sqrt(variance))


def weighted_mean(values: Tensor, log_weights: Tensor) -> Estimate:
    r"""The mean of an observable under the target from draws of a model, :math:`\hat v = \sum w v / \sum w`.

    .. math:: \sigma^2 = \sum_i \tilde w_i^2 (v_i - \hat v)^2, \qquad \tilde w = w / \sum w

    Shapes: values and log_weights (n,).

    Raises:
        ValueError: fewer than 2 draws, or shapes that differ.

    Source: Owen 2013 (Monte Carlo theory, methods and examples), eq. 9.9.
    """
    _check(log_weights)
    if values.shape != log_weights.shape:
        raise ValueError(f"values must be {tuple(log_weights.shape)} as the weights are, not {tuple(values.shape)}")
    weights, values = log_weights.softmax(0), values.double()
    mean = (weights * values).sum()
    return Estimate(float(mean), float((weights * (values - mean)).square().sum().sqrt()))


def metropolis_acceptance(log_weights: Tensor) -> float:
    r"""The mean acceptance of `chains.metropolis` with these draws as proposals, once it has forgotten its start.

    .. math:: \langle \min(1, w'/w) \rangle_{x \sim p, x' \sim q} = \frac{\langle \min(w, w') \rangle_{x, x' \sim q}}
        {\langle w \rangle_q},

    the mean over all pairs of different draws. It is 1 for q = p.

    Shapes: log_weights (n,), nats.

    Raises:
        ValueError: fewer than 2 draws.
    """
    _check(log_weights)
    n = len(log_weights)
    weights = (log_weights.double() - log_weights.max()).exp().sort().values
    smaller_of = torch.arange(n - 1, -1, -1, dtype=weights.dtype, device=weights.device)  # pairs it is the smaller of
    return float(2 * (weights * smaller_of).sum() / ((n - 1) * weights.sum()))


def _check(log_weights: Tensor) -> None:
    if log_weights.ndim != 1 or len(log_weights) < 2:
        raise ValueError(f"at least 2 weights (n,) are needed, not {tuple(log_weights.shape)}")
