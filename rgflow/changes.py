"""What moving one latent changes in pictures: how much, where, in which colour, and whether alike in all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rgflow.receptive import radius

GREY, FLAT, ODD, CONSTANT = 0.9, 0.5, 0.7, 0.5  # shares from which `words` says so
WIDE = 0.75  # of the radius of a change that is the same everywhere
NEAR, ROUND = 1 / 6, 1 / 8  # of the edge: so near to the corner, and of such a radius, a change goes around the rim


@dataclass(frozen=True)
class Change:
    """A change of n pictures of H x W pixels. Shares are of squares: of the mean change, but for `constant`."""

    effect: float
    """root mean square over pictures, channels and pixels, grey levels"""
    constant: float
    """share of the change that is the same in all pictures; 0 on average if it is of either sign at random"""
    grey: float
    """share that is alike in all channels"""
    flat: float
    """share that is alike at all pixels, channel by channel"""
    odd: float
    """share that changes its sign when the picture is mirrored, left for right"""
    centre: tuple[float, float]
    """row and column, the middle on the torus"""
    radius: float
    """of gyration, sites"""
    size: tuple[int, int]
    """H, W"""


def describe(changes: Tensor) -> Change:
    r"""Measures a change, such as `factors.response` gives it.

    With :math:`d_n` the change of picture n and :math:`\bar d` the mean over N pictures, `constant` is

    .. math:: \max\Bigl(0, \frac{N q - 1}{N - 1}\Bigr), \qquad
        q = |\bar d|^2 \Big/ \tfrac1N \textstyle\sum_n |d_n|^2

    q less what chance gives of it. The other shares are squared lengths of a projection of :math:`\bar d`, divided by
    :math:`|\bar d|^2`.

    Shapes: changes (N, C, H, W), N at least 2.

    ValueError: another shape, a value that is not finite, or a mean change of zero. Source: ours.
    """
    if changes.ndim != 4 or len(changes) < 2 or not changes.isfinite().all():
        raise ValueError(f"changes must be finite and (N, C, H, W), N at least 2, not {tuple(changes.shape)}")
    d, count = changes.double(), len(changes)
    mean = d.mean(0)
    power = float(mean.square().sum())
    if not power > 0:
        raise ValueError("the mean change is zero everywhere: there is nothing to describe")

    def share(part: Tensor) -> float:
        return float(part.expand_as(mean).square().sum()) / power

    q = power / float(d.square().sum() / count)
    squares = mean.square().sum(0)
    return Change(
        float(d.square().mean().sqrt()),
        max(0.0, (count * q - 1) / (count - 1)),
        share(mean.mean(0, keepdim=True)),
        share(mean.mean((1, 2), keepdim=True)),
        share((mean - mean.flip(2)) / 2),
        (_middle(squares.sum(1)), _middle(squares.sum(0))),
        float(radius(squares)),
        tuple(squares.shape),
    )


def words(change: Change) -> str:
    """The same in a few plain words, by fixed thresholds on the measured shares: where, and in which colour."""
    height, width = change.size
    if change.flat >= FLAT:
        place = "the whole picture alike"
    elif change.odd >= ODD:
        place = "left against right"
    elif change.radius >= ROUND * min(height, width) and all(
        min(at, edge - at) <= NEAR * edge for at, edge in zip(change.centre, change.size, strict=True)
    ):
        place = "the rim of the picture"  # on the torus all four corners are one
    elif change.radius >= WIDE * math.sqrt((height**2 + width**2 - 2) / 12):
        place = "the whole picture, by parts"
    else:
        rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
        row, column = (int(3 * at / edge) for at, edge in zip(change.centre, change.size, strict=True))
        place = f"{rows[row]} {columns[column]}"
    tone = "brightness" if change.grey >= GREY else "colour"
    return f"{place}, {tone}{'' if change.constant >= CONSTANT else ', otherwise in each picture'}"


def _middle(weights: Tensor) -> float:
    """Circular mean of places 0..L-1 with weights (L,), in [0, L)."""
    edge = len(weights)
    angle = 2 * math.pi * torch.arange(edge, dtype=weights.dtype) / edge
    mean = torch.atan2((weights * angle.sin()).sum(), (weights * angle.cos()).sum())
    return float(mean / (2 * math.pi) * edge) % edge
