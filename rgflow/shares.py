"""How much of what each of two pictures has is in a third one made of them, as weights of a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgflow.statistics import Interval, bootstrap_interval


class Triple(NamedTuple):
    """One factor of pictures made of two others, and of these: three tensors (pairs, K)."""

    made: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Weights:
    """How much of each source's factor a made picture has, and the share of that factor's variance which both explain;
    95 % bootstrap intervals over pairs."""

    first: Interval
    second: Interval
    explained: Interval
    pairs: int


def weights(triple: Triple, generator: torch.Generator | None = None, draws: int = 1000) -> Weights:
    r"""Regresses a factor of made pictures on that of their sources.

    .. math:: f(\text{made}) = w_1 f(\text{first}) + w_2 f(\text{second}) + \text{constant}

    by least squares over all pairs and the K components together, each component with its own constant. Explained is
    the R^2 of this regression: a weight is a slope, and says nothing of how much scatters around it.

    Raises:
        ValueError: other shapes, or fewer than three pairs.
    """
    moments, count = _moments(triple)
    same = None if generator is None else generator.clone_state()  # so that the weights' draws stay what they were
    first, second = (
        bootstrap_interval(moments, lambda m, i=i: _fit(m, count)[i], n=draws, generator=generator) for i in (0, 1)
    )
    explained = bootstrap_interval(moments, lambda m: _explained(m, count), n=draws, generator=same)
    return Weights(first, second, explained, len(moments))


def separation(
    coarse: Triple,
    fine: Triple,
    control: tuple[Triple, Triple] | None = None,
    generator: torch.Generator | None = None,
    draws: int = 1000,
) -> Interval:
    r"""The first source's weight in a coarse factor less its weight in a fine one.

    .. math:: S = w_1(\text{coarse}) - w_1(\text{fine})

    1 for a mixture with the coarse factor of A and the fine one of B, 0 for one that treats both alike. With a control
    (coarse and fine, of the same pairs) S less that of the control. The interval is a bootstrap over pairs.

    Raises:
        ValueError: as `weights`, or factors of different numbers of pairs. Source: ours.
    """
    parts = [_moments(triple) for triple in (coarse, fine, *(control or ()))]
    if len({len(moments) for moments, _ in parts}) > 1:
        raise ValueError(f"all factors must be of the same pairs, not of {[len(moments) for moments, _ in parts]}")
    ends = np.cumsum([moments.shape[1] for moments, _ in parts])

    def difference(rows: NDArray) -> float:
        split = np.split(rows, ends[:-1], 1)
        first = [_fit(moments, count)[0] for moments, (_, count) in zip(split, parts, strict=True)]
        return sum(sign * weight for sign, weight in zip((1, -1, -1, 1), first))

    return bootstrap_interval(np.concatenate([m for m, _ in parts], 1), difference, n=draws, generator=generator)


def _moments(triple: Triple) -> tuple[NDArray, int]:
    """What the regression needs of each pair, (pairs, 6 + 3 K): products summed over components, then all values; and
    K. The regression sees means of these alone, so a bootstrap need not draw the factors themselves."""
    shapes = [tuple(part.shape) for part in triple]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1 or shapes[0][0] < 3:
        raise ValueError(f"factors must be three of one shape (pairs, K), with three pairs at least, not {shapes}")
    made, first, second = (part.double().numpy() for part in triple)
    products = [(a * b).sum(1) for a, b in ((first, first), (first, second), (second, second), (first, made))]
    products += [(second * made).sum(1), (made * made).sum(1)]
    return np.concatenate([np.stack(products, 1), first, second, made], 1), made.shape[1]


def _fit(moments: NDArray, count: int) -> NDArray:
    """The two weights."""
    return _solve(_covariances(moments, count))


def _explained(moments: NDArray, count: int) -> float:
    """The share of the variance of the made pictures' factor that the regression explains; 0 where it has none."""
    covariances = _covariances(moments, count)
    *_, at, bt, tt = covariances
    return float(_solve(covariances) @ [at, bt] / tt) if tt > 0 else 0.0


def _covariances(moments: NDArray, count: int) -> NDArray:
    """Of first (a), second (b) and made (t), components together: aa, ab, bb, at, bt, tt."""
    mean = moments.mean(0)
    first, second, made = mean[6:].reshape(3, count)
    pairs = ((first, first), (first, second), (second, second), (first, made), (second, made), (made, made))
    return mean[:6] - [a @ b for a, b in pairs]


def _solve(covariances: NDArray) -> NDArray:
    aa, ab, bb, at, bt, _ = covariances
    return np.linalg.lstsq(np.array([[aa, ab], [ab, bb]]), np.array([at, bt]), rcond=None)[0]
