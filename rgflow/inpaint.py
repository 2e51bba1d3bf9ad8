"""Holes in images: exact conditional likelihoods at the cost of the hole's causal cone."""

from __future__ import annotations

import torch
from torch import Tensor

from rgflow.flow import Flow
from rgflow.local import Encoding, LevelPlan, _Take, frozen, plan


class Conditional:
    """log p(x with a hole filled)"""

    def __init__(self, flow: Flow, encoding: Encoding, levels: list[LevelPlan], pixels: Tensor) -> None:
        self.flow, self.encoding, self.levels, self.pixels = flow, encoding, levels, pixels
        self.outside = [
            [lattice[half.outside] for lattice, half in zip(lattices, level.halves, strict=True)]
            for lattices, level in zip(encoding.lattices, levels, strict=True)
        ]

    @property
    def latents(self) -> int:
        return sum(len(level.latents) for level in self.levels)

    @property
    def blocks(self) -> Tensor:
        return torch.tensor([[len(half.blocks) for half in level.halves] for level in self.levels])

    def cone_log_prob(self, fills: Tensor) -> Tensor:
        v, total = fills.flatten(1), fills.new_zeros(len(fills))
        for number, level in enumerate(self.levels):
            modules = self.flow.bijector.step(number).blocks
            for half, module, outside in zip(level.halves, modules, self.outside[number], strict=True):
                patches = _Take.apply(v, outside, half.take, half.give)
                z, ladj = module.bijector(patches.view(-1, len(module.order)))
                v, total = z.view(len(v), -1), total + ladj.view(len(v), -1).sum(1)
            total = total + self.flow.prior.log_prob(v.index_select(1, level.latents)).sum(1)
        return total

    def encode(self, fills: Tensor) -> Tensor:
        v, latents = fills.flatten(1), []
        for number, level in enumerate(self.levels):
            for half, module, outside in zip(level.halves, self._modules(number), self.outside[number], strict=True):
                patches = _Take.apply(v, outside, half.take, half.give)
                v = module.bijector(patches.view(-1, len(module.order)))[0].view(len(v), -1)
            latents.append(v.index_select(1, level.latents))
        return torch.cat(latents, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Hole pixels from the cone's latents: of no other latent they know anything."""
        parts = latents.split([len(level.latents) for level in self.levels], 1)
        v = latents[:, :0]
        for number in reversed(range(len(self.levels))):
            level = self.levels[number]
            v = torch.cat([v, parts[number]], 1).index_select(1, level.merge)
            for k in reversed(range(len(level.halves))):
                half, module = level.halves[k], self._modules(number)[k]
                patches = module.bijector.inverse(v.view(-1, len(module.order)))[0]
                back = half.give if k else half.give[half.give < len(half.features)]
                v = patches.view(len(v), -1).index_select(1, back)
        return v.view(len(v), -1, len(self.pixels))

    def _modules(self, level: int) -> list:
        return self.flow.bijector.step(level).blocks

    @torch.no_grad()
    def update(self, fill: Tensor) -> None:
        v = fill.flatten()[None]
        for number, level in enumerate(self.levels):
            kept = self.encoding
            for k, (half, module, outside) in enumerate(zip(level.halves, self._modules(number), self.outside[number], strict=True)):
                inside = half.take < v.shape[1]
                kept.lattices[number][k][half.features[inside]] = v[0, half.take[inside]]
                patches = _Take.apply(v, outside, half.take, half.give)
                z, kept.ladjs[number][k][half.blocks] = module.bijector(patches.view(-1, len(module.order)))
                v = z.view(1, -1)
            kept.prior[level.sites] = self.flow.prior.log_prob(v[0, level.latents])

    def at(self, hole: Tensor) -> Conditional:
        pixels = hole.nonzero()
        return Conditional(self.flow, self.encoding, _plan(self.flow, pixels), pixels)

    def log_prob(self, fills: Tensor) -> Tensor:
        return self.outside_log_prob() + self.cone_log_prob(fills)

    def outside_log_prob(self) -> Tensor:
        total = 0
        prior = self.encoding.prior.clone()
        for ladjs, level in zip(self.encoding.ladjs, self.levels, strict=True):
            for ladj, half in zip(ladjs, level.halves, strict=True):
                total = total + ladj.index_fill(0, half.blocks, 0).sum()
            prior[level.sites] = 0
        return total + prior.sum()


def condition(flow: Flow, x: Tensor, hole: Tensor) -> Conditional:
    flow = frozen(flow)
    pixels = hole.nonzero()
    return Conditional(flow, Encoding(flow, x.masked_fill(hole, 0)), _plan(flow, pixels), pixels)


def _plan(flow, pixels):
    orders = [[half.order for half in flow.bijector.step(k).blocks] for k in range(flow.geometry.depth + 1)]
    return plan(flow.geometry, pixels, orders, flow.shape[0])
