"""Evaluation of an RG-Flow where something changed, and nowhere else: blocks of the causal cone, level by level."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rgflow.couplings import AffineStack, AutoregressiveCoupling, Chain, Coupling
from rgflow.flow import Flow
from rgflow.hierarchy import Geometry, Hierarchy
from rgflow.linears import PatchLinear


def frozen(flow: Flow) -> Flow:
    """A copy of the flow whose weights are constants: what they are now, whatever becomes of the flow.

    What its layers compute of their weights alone is computed once, here. It stores activations for its gradients.

    Raises:
        ValueError: the flow has no blocks, hence no causal cones (Real NVP, neural ODE).
    """
    flow.geometry  # noqa: B018 (raises)
    flow = copy.deepcopy(flow).requires_grad_(False)
    for module in flow.modules():
        if isinstance(module, (AffineStack, Chain)):
            module.memory = "store"
        if isinstance(module, (Coupling, PatchLinear)):
            _keep(module)
        if isinstance(module, AutoregressiveCoupling):
            _keep(module.net)
    return flow


@torch.no_grad()
def _keep(module: nn.Module) -> None:
    prepared = module.prepare()
    module.prepare = lambda: prepared


@dataclass(frozen=True)
class HalfPlan:
    """What a half-step (disentangler or decimator) of a level has to do.

    Arguments:
        blocks: (b,), numbers of the blocks that see the hole, row by row of blocks, rising.
        features: (b d,), where the features of their patches lie in the flattened lattice (C, H_h, W_h) of the level.
        outside: (k,), those of them that do not change.
        take: (b d,), each feature as a place in (what the half-step before gave, what is outside).
        give: (a,), the same backwards: where each number of the half-step before went; b d if nowhere.
    """

    blocks: Tensor
    features: Tensor
    outside: Tensor
    take: Tensor
    give: Tensor


@dataclass(frozen=True)
class LevelPlan:
    """The half-steps of a level, and what becomes of the numbers that the last of them gives.

    Arguments:
        halves: in the direction x -> z.
        latents: (l,), places of the level's latents among these numbers.
        sites: (l,), where the latents lie in the flattened lattice (C, H, W) of the image.
        merge: (b d,), backwards: each number as a place in (what comes back from the next level, the latents).
    """

    halves: list[HalfPlan]
    latents: Tensor
    sites: Tensor
    merge: Tensor


def plan(geometry: Geometry, pixels: Tensor, orders: list[list[Tensor]], channels: int) -> list[LevelPlan]:
    """Which blocks see some pixels, and which numbers they need: integers only, the same for all images and weights.

    The work is that of the cone: nothing here has the size of the image.

    Shapes: pixels (K, 2), rows and columns.

    Arguments:
        orders: `Blocks.order` of each half-step of each level.
        channels: C.
    """
    levels, size = [], (geometry.height, geometry.width)
    channel = torch.arange(channels)[:, None]
    changing = ((channel * size[0] + pixels[:, 0]) * size[1] + pixels[:, 1]).flatten()
    for level in range(geometry.depth + 1):
        halves = []
        for shift, order in zip(geometry.shifts, orders[level], strict=True):
            halves.append(_half(geometry.block, shift, changing, size, order))
            changing = halves[-1].features
        channel, row, column = _unravel(changing, size)
        stay = (row % 2 == 1) | (column % 2 == 1)
        if level == geometry.depth:
            stay = torch.ones_like(stay)
        sites = (channel * geometry.height + (row << level)) * geometry.width + (column << level)
        merge = torch.where(stay, stay.cumsum(0) - 1 + int((~stay).sum()), (~stay).cumsum(0) - 1)
        levels.append(LevelPlan(halves, stay.nonzero()[:, 0], sites[stay], merge))
        size = size[0] // 2, size[1] // 2
        changing = torch.where(stay, -1, (channel * size[0] + row // 2) * size[1] + column // 2)  # -1: stays behind
    return levels


def _half(block: int, shift: int, changing: Tensor, size: tuple[int, int], order: Tensor) -> HalfPlan:
    (height, width), across = size, size[1] // block
    _, row, column = _unravel(changing[changing >= 0], size)
    blocks = ((row - shift) % height // block * across + (column - shift) % width // block).unique()
    channel, inside_row, inside_column = _unravel(order, (block, block))
    row = (blocks[:, None] // across * block + shift + inside_row) % height
    column = (blocks[:, None] % across * block + shift + inside_column) % width
    features = ((channel * height + row) * width + column).flatten()
    values, places = changing.sort()
    found = torch.searchsorted(values, features).clamp_max(len(values) - 1)
    known = values[found] == features
    outside, take = features[~known], torch.empty_like(features)
    take[known] = places[found[known]]
    take[~known] = len(changing) + torch.arange(len(outside))
    give = torch.full((len(changing) + len(outside),), len(features))
    give[take] = torch.arange(len(features))
    return HalfPlan(blocks, features, outside, take, give[: len(changing)])


def _unravel(places: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Channel, row and column of places in a flattened lattice (C, H, W)."""
    return places // (size[0] * size[1]), places // size[1] % size[0], places % size[1]


class _Take(torch.autograd.Function):
    """Columns of (what changes (S, a), what is outside (k,)); the gradient takes, where autograd would add."""

    @staticmethod
    def forward(ctx: Any, changing: Tensor, outside: Tensor, take: Tensor, give: Tensor) -> Tensor:
        ctx.save_for_backward(give)
        return torch.cat([changing, outside.expand(len(changing), -1)], 1).index_select(1, take)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (give,) = ctx.saved_tensors
        return nn.functional.pad(grad, (0, 1)).index_select(1, give), None, None, None


class Encoding:
    """All that an encoded image leaves behind on its way: lattices, log-determinants block by block, latents' densities.

    Shapes: lattices[level][half] (C H_h W_h,), what enters the half-step; ladjs[level][half] (blocks,);
    prior (C H W,), log density of each latent; nats.
    """

    @torch.no_grad()
    def __init__(self, flow: Flow, x: Tensor) -> None:
        self.lattices: list[list[Tensor]] = []
        self.ladjs: list[list[Tensor]] = []
        hierarchy: Hierarchy = flow.bijector
        prior, x = torch.empty_like(x), x[None]
        for level in range(hierarchy.depth + 1):
            self.lattices.append([])
            self.ladjs.append([])
            for half in hierarchy.step(level).blocks:
                self.lattices[-1].append(x.flatten())
                patches, ladj = half.bijector(half.cut(x))
                self.ladjs[-1].append(ladj.clone())
                x = half.join(patches, x.shape)
            stride = 1 << level
            prior[:, ::stride, ::stride] = flow.prior.log_prob(x[0])  # the next level overwrites what was passed on
            x = x[:, :, ::2, ::2]
        self.prior = prior.flatten()
