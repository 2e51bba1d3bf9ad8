"""How far the effect of a latent spreads over the picture, for any flow, and how much of it leaves a cone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rgflow.flow import Flow
from rgflow.hierarchy import Geometry
from rgflow.receptive import ReceptiveFields, cones_of, radius
from rgflow.statistics import Interval, bootstrap_interval


def effects(fields: ReceptiveFields) -> Tensor:
    r"""Where each latent acts: the squared mean magnitude of the derivative, summed over channels.

    .. math:: e_l(i, j) = \sum_c \Bigl( \mathbb{E}_z \Bigl| \frac{\partial G_{cij}}{\partial z_l} \Bigr| \Bigr)^2

    Not the receptive field of eq. 8, whose signs cancel where the answer depends on the rest of the picture: a latent
    that acts everywhere, now brighter and now darker, has no field there and an effect.

    Shape: (K, H, W), float64.

    Source: ours; the paper's figure 14 shows receptive fields and calls them not local without a number.
    """
    return fields.magnitude.square().sum(1)


def near_cones(geometry: Geometry, latents: Tensor, levels: Tensor) -> Tensor:
    """The generation cone with which each latent of any flow is compared, bool (K, H, W).

    That of the hierarchy's latent of the same level which is nearest on the torus: its own for a latent of the
    hierarchy. Not that of the same site, for Real NVP leaves other sites to a level (half of its level 1 lies on sites
    that a hierarchy leaves to level 0).

    Shapes: latents (K, 3), rows (channel, row, column); levels (K,), int64.

    Raises:
        ValueError: a level that the hierarchy does not have.

    Source: ours.
    """
    edges, sites = torch.tensor(geometry.levels.shape), latents.clone()
    for level in levels.unique().tolist():
        there = (geometry.levels == level).nonzero()
        if not len(there):
            raise ValueError(f"the hierarchy has the levels 0..{int(geometry.levels.max())}, not {level}")
        own = levels == level
        apart = (there - latents[own, None, 1:]).abs()  # (k, sites, 2)
        nearest = torch.minimum(apart, edges - apart).square().sum(2).argmin(1)
        sites[own, 1:] = there[nearest]
    return cones_of(geometry, sites)


def outside(effect: Tensor, cones: Tensor) -> Tensor:
    """Share of each effect that lies outside a region, (K,); 0 inside it, 1 where none of it is.

    Shapes: effect (K, H, W), not negative; cones (K, H, W), bool.

    Raises:
        ValueError: other shapes, or an effect that is 0 everywhere.
    """
    if effect.ndim != 3 or cones.shape != effect.shape or cones.dtype != torch.bool:
        raise ValueError(f"effects (K, H, W) need bool cones of their shape, not {tuple(effect.shape)} and "
                         f"{cones.dtype} {tuple(cones.shape)}")  # fmt: skip
    total = effect.sum((1, 2))
    if not (total > 0).all():
        raise ValueError("an effect is 0 everywhere: it lies neither inside nor outside")
    return (effect * ~cones).sum((1, 2)) / total


def pixels_holding(effect: Tensor, share: float = 0.9) -> Tensor:
    """The least number of pixels that together hold a share of each effect, (K,), int64.

    Shape: effect (K, H, W), not negative.

    Raises:
        ValueError: share outside (0, 1), or an effect that is 0 everywhere.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), not {share}")
    ordered = effect.flatten(1).sort(1, descending=True).values.cumsum(1)
    if not (ordered[:, -1] > 0).all():
        raise ValueError("an effect is 0 everywhere: no pixels hold it")
    return (ordered < share * ordered[:, -1:]).sum(1) + 1


def centred(effect: Tensor, sites: Tensor) -> Tensor:
    """The mean of several effects, each as shares of its whole and turned on the torus until its site is in the middle.

    Shapes: effect (K, H, W), not negative; sites (K, 2), rows and columns; (H, W), which sums to 1, middle (H // 2,
    W // 2).

    Raises:
        ValueError: an effect that is 0 everywhere, or another number of sites.
    """
    if sites.shape != (len(effect), 2) or not len(effect):
        raise ValueError(f"{len(effect)} effects need as many sites (K, 2), not {tuple(sites.shape)}")
    total = effect.sum((1, 2), keepdim=True)
    if not (total > 0).all():
        raise ValueError("an effect is 0 everywhere: it has no shares")
    middle = torch.tensor([edge // 2 for edge in effect.shape[1:]])
    turns = (middle - sites.cpu()).tolist()
    return torch.stack([e.roll(turn, (0, 1)) for e, turn in zip(effect / total, turns, strict=True)]).mean(0)


@dataclass(frozen=True)
class LevelSpread:
    """What the effects of one level's latents have in common; medians with intervals, bootstrap over latents, 95 %."""

    level: int
    measured: int
    """latents that were measured"""
    latents: int
    """latents that the level has"""
    spread: Interval
    """radius of gyration of the effect on the torus, sites"""
    pixels: Interval
    """least number that hold nine tenths of it"""
    outside: Interval
    """share of it outside the hierarchy's cone (`near_cones`)"""


def by_level(
    flow: Flow, fields: ReceptiveFields, geometry: Geometry, generator: torch.Generator | None = None
) -> list[LevelSpread]:
    """Spreads level by level, lowest first; levels without a measured latent are left out.

    Arguments:
        flow: that of the fields; it need not have cones.
        geometry: whose cones they are held against, of the same lattice.

    Raises:
        ValueError: a level with a single measured latent or none in the hierarchy, or a geometry of another lattice.
    """
    if (geometry.height, geometry.width) != flow.shape[1:]:
        raise ValueError(f"the cones are of {geometry.height} x {geometry.width} sites, the flow of {flow.shape[1:]}")
    effect = effects(fields)
    cones = near_cones(geometry, fields.latents, fields.levels)
    values = torch.stack([radius(effect), pixels_holding(effect).double(), outside(effect, cones)], 1)
    found = []
    for level in fields.levels.unique().tolist():
        own = values[fields.levels == level].numpy()
        medians = [bootstrap_interval(column, np.median, generator=generator) for column in own.T]
        sites = int((flow.levels == level).sum())
        found.append(LevelSpread(level, len(own), flow.shape[0] * sites, *medians))
    return found
