"""How strong receptive fields are, level by level and over all latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rgflow.flow import Flow
from rgflow.receptive import ReceptiveFields
from rgflow.statistics import Interval, bootstrap_interval


@dataclass(frozen=True)
class LevelSummary:
    """What the receptive fields of one level have in common; intervals are bootstrap over latents, 95 %."""

    level: int
    measured: int
    """latents that were measured"""
    latents: int
    """latents that the level has"""
    above: Interval
    """share with a strength above the threshold"""
    strength: Interval
    """median"""
    radius: Interval
    """median, sites"""


def summaries(
    flow: Flow, fields: ReceptiveFields, threshold: float = 1.0, generator: torch.Generator | None = None
) -> list[LevelSummary]:
    """Strengths and radii level by level, lowest first; levels without a measured latent are left out.

    Raises:
        ValueError: a level with a single measured latent.
    """
    found = []
    for level in fields.levels.unique().tolist():
        rows = fields.levels == level
        strengths, radii = fields.strengths[rows], fields.radii[rows]
        sites = int((flow.levels == level).sum())
        found.append(
            LevelSummary(
                level,
                len(strengths),
                flow.shape[0] * sites,
                bootstrap_interval(strengths > threshold, np.mean, generator=generator),
                bootstrap_interval(strengths, np.median, generator=generator),
                bootstrap_interval(radii, np.median, generator=generator),
            )
        )
    return found


def share_above(
    flow: Flow, fields: ReceptiveFields, threshold: float = 1.0, generator: torch.Generator | None = None
) -> Interval:
    """Share of all latents whose strength is above a threshold, each level with its true weight; 95 %, bootstrap.

    Raises:
        ValueError: a level of the flow has no measured latent.
    """
    return bootstrap_interval(
        _weighted(flow, fields), lambda v: (v[:, 1] * (v[:, 0] > threshold)).sum() / v[:, 1].sum(), generator=generator
    )


def top_share(
    flow: Flow, fields: ReceptiveFields, part: float = 0.1, generator: torch.Generator | None = None
) -> Interval:
    """Share of the sum of all squared strengths that the strongest `part` of the latents hold; 95 %, bootstrap.

    Each level has its true weight. Equal strengths give `part` itself, a single strong latent 1.

    Raises:
        ValueError: a level of the flow has no measured latent, or part outside (0, 1].
    """
    if not 0 < part <= 1:
        raise ValueError(f"part must be in (0, 1], not {part}")

    def held(v: NDArray) -> float:
        v = v[v[:, 0].argsort()[::-1]]
        squares = v[:, 0] ** 2 * v[:, 1]
        # the latent on the border counts in part
        return float(
            np.interp(part * v[:, 1].sum(), np.cumsum([0, *v[:, 1]]), np.cumsum([0, *squares])) / squares.sum()
        )

    return bootstrap_interval(_weighted(flow, fields), held, generator=generator)


def _weighted(flow: Flow, fields: ReceptiveFields) -> NDArray:
    """(K, 2): strength, and the number of latents that each measured one stands for."""
    levels = flow.levels.cpu()
    count = int(levels.max()) + 1
    has = levels.flatten().bincount(minlength=count) * flow.shape[0]
    measured = fields.levels.bincount(minlength=count)
    if not (measured > 0).all():
        raise ValueError(f"no latent was measured on the levels {(measured == 0).nonzero().flatten().tolist()}")
    return torch.stack([fields.strengths, (has / measured)[fields.levels]], 1).numpy()
