"""Evaluation of an RG-Flow where something changes, and nowhere else: plans of the blocks in a causal cone.

A plan is integers only. It follows the changed numbers through the half-steps: each block that holds one of them is
evaluated, its other numbers come from outside, and all that it gives has changed. Nothing here is done at the size of
the image, so plan and evaluation cost what the cone costs.

Source: ours; the paper has the cones (section 3, figure 2) but evaluates the whole network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rgflow.couplings import AutoregressiveCoupling, Chain, Coupling, CouplingStack
from rgflow.flow import Flow
from rgflow.linears import PatchLinear
from rgflow.plainnets import PlainNet


def frozen(flow: Flow) -> Flow:
    """A copy of the flow whose weights are constants: what they are now, whatever becomes of the flow.

    What its layers compute of their weights alone is computed once, here. It stores activations for its gradients. A
    flow that is frozen already is given back as it is.

    Raises:
        ValueError: the flow has no blocks, hence no causal cones (Real NVP, neural ODE).
    """
    flow.geometry  # noqa: B018 (raises)
    if getattr(flow, "frozen", False):
        return flow
    flow = copy.deepcopy(flow).requires_grad_(False)
    for module in flow.modules():
        if isinstance(module, (CouplingStack, Chain)):
            module.memory = "store"
        if isinstance(module, PatchLinear):
            _keep(module, "prepare_inverse")
        if isinstance(module, (Coupling, PatchLinear)):
            _keep(module, "prepare")
        if isinstance(module, AutoregressiveCoupling):
            _keep(module.net, "prepare")
    flow.frozen = True
    return flow


def restricted(bijector: nn.Module, blocks: Tensor) -> nn.Module:
    """The patch bijector of a half-step of a frozen flow, for the patches of these blocks (b,) alone; its weights are
    the same tensors.

    One whose networks do not know places is given back as it is.
    """
    if not any(isinstance(net, PlainNet) and net.places is not None for net in bijector.modules()):
        return bijector
    shared = {id(tensor): tensor for tensor in (*bijector.parameters(), *bijector.buffers())}
    bijector = copy.deepcopy(bijector, shared)
    for net in bijector.modules():
        if isinstance(net, PlainNet):
            net.places = nn.Parameter(net.places[blocks], requires_grad=False)
    return bijector


@torch.no_grad()
def _keep(module: nn.Module, name: str) -> None:
    prepared = getattr(module, name)()
    setattr(module, name, lambda: prepared)


@dataclass(frozen=True)
class HalfPlan:
    """What a half-step (disentangler or decimator) of a level has to do.

    Arguments:
        blocks: (b,), numbers of the blocks that hold a changed number, row by row of blocks, rising.
        features: (b d,), where the numbers of their patches lie in the flattened lattice (C, H_h, W_h) of the level.
        outside: (k,), those of them that do not change.
        take: (b d,), each number as a place in (what the half-step before gave, what is outside).
        give: (a,), the same backwards: where each number of the half-step before went; b d for one that stayed behind.
        back: those of give that did go on.
    """

    blocks: Tensor
    features: Tensor
    outside: Tensor
    take: Tensor
    give: Tensor
    back: Tensor

    def cut(self, changing: Tensor, outside: Tensor) -> Tensor:
        """Changed numbers (S, a) and those from outside (k,) -> (S, b d), the patches of S candidates."""
        return _Take.apply(changing, outside, self.take, self.give)


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


class Plan:
    """The plan of a hole: of the pixels that change when it is filled. The same for all images and weights.

    Shapes: `pixels` (K, 2), rows and columns, row-major.

    Arguments:
        flow: for its geometry and the order of its patches' features.
        pixels: (K, 2).
    """

    def __init__(self, flow: Flow, pixels: Tensor) -> None:
        self.geometry, self.channels, self.pixels = flow.geometry, flow.shape[0], pixels
        self.order = flow.bijector.step(0).blocks[0].order
        height, width = size = self.geometry.height, self.geometry.width
        channel = torch.arange(self.channels, device=pixels.device)[:, None]
        changing = ((channel * height + pixels[:, 0]) * width + pixels[:, 1]).flatten()
        self.levels: list[LevelPlan] = []
        for level in range(self.geometry.depth + 1):
            halves = []
            for half in flow.bijector.step(level).blocks:
                halves.append(_half(self.geometry.block, half.shift, half.order, changing, size))
                changing = halves[-1].features
            channel, row, column = _unravel(changing, size)
            stay = (row % 2 == 1) | (column % 2 == 1)
            if level == self.geometry.depth:
                stay = torch.ones_like(stay)
            sites = (channel * height + (row << level)) * width + (column << level)
            merge = torch.where(stay, stay.cumsum(0) - 1 + (~stay).sum(), (~stay).cumsum(0) - 1)
            self.levels.append(LevelPlan(halves, stay.nonzero()[:, 0], sites[stay], merge))
            size = size[0] // 2, size[1] // 2
            changing = torch.where(stay, -1, (channel * size[0] + row // 2) * size[1] + column // 2)

    def fits(self, flow: Flow) -> bool:
        """Whether it is a plan for this flow too: the same lattice, blocks and order of a patch's features."""
        same = (self.geometry, self.channels) == (flow.geometry, flow.shape[0])
        return same and torch.equal(self.order, flow.bijector.step(0).blocks[0].order)

    @property
    def blocks(self) -> Tensor:
        """(n + 1, 2 repeat), int64: how many blocks are evaluated, level by half-step in the direction x -> z."""
        return torch.tensor([[len(half.blocks) for half in level.halves] for level in self.levels])

    @property
    def sites(self) -> Tensor:
        """(l,), where the cone's latents lie in the flattened lattice (C, H, W): level by level, lowest first."""
        return torch.cat([level.sites for level in self.levels])


def _half(block: int, shift: int, order: Tensor, changing: Tensor, size: tuple[int, int]) -> HalfPlan:
    """`changing` (a,): places in the flattened lattice (C, H_h, W_h), -1 for what stayed behind at the level below."""
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
    take[~known] = len(changing) + torch.arange(len(outside), device=features.device)
    give = torch.full((len(changing) + len(outside),), len(features), device=features.device)
    give[take] = torch.arange(len(features), device=features.device)
    give = give[: len(changing)]
    return HalfPlan(blocks, features, outside, take, give, give[give < len(features)])


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
    """What an image leaves behind on its way through a flow: all that a conditional of it needs from outside its hole.

    It holds all of that, not the part that one hole needs, so that others can follow (`Conditional.at`, `update`).

    Shapes: lattices[level][half] (C H_h W_h,), what enters the half-step; ladjs[level][half] (blocks,), nats; latents
    and log_probs, those of each latent under the prior, nats, (C H W,). version counts the changes.

    Arguments:
        flow: frozen.
        x: (C, H, W), logit pixels.
    """

    @torch.no_grad()
    def __init__(self, flow: Flow, x: Tensor) -> None:
        self.lattices: list[list[Tensor]] = []
        self.ladjs: list[list[Tensor]] = []
        self.version = 0
        latents, x = torch.empty_like(x), x[None]
        for level in range(flow.geometry.depth + 1):
            self.lattices.append([])
            self.ladjs.append([])
            for half in flow.bijector.step(level).blocks:
                self.lattices[-1].append(x.flatten())
                patches, ladj = half.bijector(half.cut(x))
                self.ladjs[-1].append(ladj.clone())
                x = half.join(patches, x.shape)
            latents[:, :: 1 << level, :: 1 << level] = x[0]  # the next level overwrites what was passed on
            x = x[:, :, ::2, ::2]
        self.latents = latents.flatten()
        self.log_probs = flow.prior.log_prob(self.latents)
