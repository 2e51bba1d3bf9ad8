"""Intervals for numbers measured on samples or seeds, and statistics of angles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

Values = Sequence[float] | NDArray | Tensor


class Interval(NamedTuple):
    """An estimate and the two ends of its confidence interval, all in the unit of the values."""

    value: float
    low: float
    high: float


def mean_interval(values: Values, level: float = 0.95) -> Interval:
    r"""Mean of independent values with Student's interval, :math:`\bar v \pm t_{n-1} s / \sqrt n`.

    values: (n,), n at least 2, finite; level: probability that such an interval covers the true mean, in (0, 1).

    ValueError: fewer than two values, a value that is not finite, or a level outside (0, 1).
    """
    v = _checked(values, 2)
    _check_level(level)
    half = stats.t.ppf((1 + level) / 2, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v))
    return Interval(float(v.mean()), float(v.mean() - half), float(v.mean() + half))


def bootstrap_interval(
    values: Values,
    statistic: Callable[[NDArray], float],
    level: float = 0.95,
    n: int = 2000,
    generator: torch.Generator | None = None,
) -> Interval:
    """Any statistic of independent values with its percentile bootstrap interval (Efron 1979).

    The values are drawn again n times, with replacement, and the interval holds the middle `level` of the statistics.
    With few values it is too short rather than too long.

    values: (k,) or (k, ...), drawn along the first axis, k at least 2.
    statistic: takes an array like `values`, gives a number.

    ValueError: fewer than two values, a value that is not finite, n below 1, or a level outside (0, 1).
    """
    v = _checked(values, 2, flat=False)
    _check_level(level)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    chosen = torch.randint(len(v), (n, len(v)), generator=generator).numpy()
    draws = np.array([statistic(v[rows]) for rows in chosen], dtype=float)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(v)), float(low), float(high))


def jackknife_intervals(
    values: Values,
    statistic: Callable[[NDArray], Sequence[float] | NDArray],
    level: float = 0.95,
    groups: int = 10,
    generator: torch.Generator | None = None,
) -> list[Interval]:
    r"""Statistics of independent values, each with its delete-a-group jackknife interval.

    For what a bootstrap inflates because it repeats values (mutual information, fits with cross-validation). The values
    are dealt out at random to G groups of nearly equal size, and with :math:`\theta_g` the statistic without group g

    .. math:: \theta \pm t_{G-1} s, \qquad s^2 = \frac{G-1}{G} \sum_g (\theta_g - \bar\theta)^2

    values: (k,) or (k, ...), dealt out along the first axis.
    statistic: takes an array like `values`, gives numbers (m,).

    ValueError: groups below 2 or more than values, a value that is not finite, or a level outside (0, 1).

    Source: Quenouille's and Tukey's jackknife by groups, Efron & Tibshirani 1993, chapter 11.
    """
    v = _checked(values, 2, flat=False)
    _check_level(level)
    if not 2 <= groups <= len(v):
        raise ValueError(f"groups must be in 2..{len(v)}, the number of values, not {groups}")
    group = torch.randperm(len(v), generator=generator).numpy() % groups
    without = np.array([statistic(v[group != g]) for g in range(groups)], dtype=float)  # (groups, m)
    half = stats.t.ppf((1 + level) / 2, groups - 1) * np.sqrt((groups - 1) * without.var(0))
    centre = np.asarray(statistic(v), dtype=float)
    return [Interval(float(c), float(c - h), float(c + h)) for c, h in zip(centre, half, strict=True)]


def proportion_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    r"""Share of successes with Wilson's interval (1927): the p with :math:`|\hat p - p| \le z \sqrt{p (1 - p) / n}`.

    ValueError: n below 1, successes outside 0..n, or a level outside (0, 1).
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..n with n at least 1, not {successes} of {n}")
    found = stats.binomtest(successes, n).proportion_ci(level, "wilson")
    return Interval(successes / n, float(found.low), float(found.high))


def resultant_length(angles: Values, period: float = 2 * math.pi) -> float:
    r"""How concentrated angles are: 1 if all agree, about :math:`0.9 / \sqrt n` if they are uniform.

    .. math:: R = \left|\frac1n \sum_k e^{2 \pi i a_k / \text{period}}\right|

    angles: (n,), in the unit of `period` (90 for degrees modulo 90).

    ValueError: no angles, one that is not finite, or a period that is not positive.
    """
    return abs(_mean_phasor(angles, period))


def circular_mean(angles: Values, period: float = 2 * math.pi) -> float:
    r"""Mean direction in [0, period): the phase of the mean of :math:`e^{2 \pi i a_k / \text{period}}`.

    Arguments and errors as in `resultant_length`.
    """
    phase = np.angle(_mean_phasor(angles, period)) / (2 * math.pi)
    return float(phase % 1.0 * period) % period


def rayleigh_p(angles: Values, period: float = 2 * math.pi) -> float:
    r"""Probability that uniform angles agree at least as well as these: the Rayleigh test.

    .. math:: p = \exp\left(\sqrt{1 + 4 n + 4 (n^2 - (n R)^2)} - (1 + 2 n)\right)

    (Zar, Biostatistical Analysis, eq. 27.4: an approximation, good for n of 10 and more.) Arguments and errors as in
    `resultant_length`.
    """
    n, length = len(angles), resultant_length(angles, period)
    return min(1.0, math.exp(math.sqrt(1 + 4 * n + 4 * n * n * max(0.0, 1 - length**2)) - (1 + 2 * n)))


def _mean_phasor(angles: Values, period: float) -> complex:
    if not period > 0:
        raise ValueError(f"period must be positive, not {period}")
    return complex(np.exp(2j * np.pi * _checked(angles, 1) / period).mean())


def _checked(values: Values, least: int, flat: bool = True) -> NDArray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = array.astype(float)
    if flat and array.ndim != 1:
        raise ValueError(f"values must have one axis, not shape {array.shape}")
    if array.ndim == 0 or len(array) < least:
        raise ValueError(f"at least {least} values are needed, not {array.size}")
    if not np.isfinite(array).all():
        raise ValueError("all values must be finite")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
