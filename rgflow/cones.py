"""Causal cones: what can change when a latent or a pixel changes. Integer arithmetic only: no weights, no gradients."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from rgflow.hierarchy import Geometry


def inference_cone(geometry: Geometry, region: Tensor) -> Tensor:
    r"""The latents that can change when the pixels of a region change (the blue cone of figure 2d).

    A half-step changes every site of every block that holds a changed site; the sites with even row and column go on to
    the next level, the others are latents.

    Shapes: region and the result (H, W), bool.

    Raises:
        TypeError, ValueError: the region is no bool tensor, has another shape, or is empty.

    Source: paper, section 3 (image inpainting) and figure 2(d).
    """
    region = _checked(geometry, region)
    cone = torch.zeros_like(region)
    lattice = region
    for level, halves in enumerate(inference_blocks(geometry, region)):
        lattice = _covered(halves[-1], geometry.shifts[-1], geometry.block)
        stride = 1 << level
        cone[::stride, ::stride] = lattice  # the next level overwrites the sites that were passed on
        lattice = lattice[::2, ::2]
    return cone


def generation_cone(geometry: Geometry, site: Sequence[int]) -> Tensor:
    r"""The pixels that can change when the latent at a site changes (the red cone of figure 2c).

    The latent enters at the step of its level; each finer level spreads the change over the blocks that it touches.

    Shapes: (H, W), bool.

    Arguments:
        site: (i, j), row and column on the full lattice.

    Raises:
        TypeError, ValueError: the site is no pair of integers, or lies outside the lattice.

    Source: paper, section 3 (receptive fields of latent variables) and figure 2(c).
    """
    return _covered(generation_blocks(geometry, site)[0][0], geometry.shifts[0], geometry.block)


def inference_blocks(geometry: Geometry, region: Tensor) -> list[list[Tensor]]:
    """The blocks that have to be evaluated again when the pixels of a region change.

    Entry [h][k] is a bool map over the blocks of half-step k (in the direction x -> z) of level h, numbered as in
    `blocks.Blocks`: block (p, q) starts at row m p + shift and column m q + shift of the level's lattice.

    Arguments and errors as in `inference_cone`.
    """
    lattice, found = _checked(geometry, region), []
    for _ in range(geometry.depth + 1):
        halves = []
        for shift in geometry.shifts:
            halves.append(_touched(lattice, shift, geometry.block))
            lattice = _covered(halves[-1], shift, geometry.block)
        found.append(halves)
        lattice = lattice[::2, ::2]
    return found


def generation_blocks(geometry: Geometry, site: Sequence[int]) -> list[list[Tensor]]:
    """The blocks that have to be evaluated again when the latent at a site changes.

    The order and the numbering are those of `inference_blocks`: level, then half-step in the direction x -> z, though
    the latent meets them in the opposite one. Maps of the levels above the site's are all False.

    Arguments and errors as in `generation_cone`.
    """
    row, column = _checked_site(geometry, site)
    latents = torch.zeros(geometry.height, geometry.width, dtype=torch.bool)
    latents[row, column] = True
    found: list[list[Tensor]] = []
    coarse = None
    for level in reversed(range(geometry.depth + 1)):
        stride = 1 << level
        lattice = latents[::stride, ::stride].clone()
        if coarse is not None:  # a site that was passed on brings what its level made of it
            lattice[::2, ::2] = coarse
        halves = []
        for shift in reversed(geometry.shifts):
            halves.insert(0, _touched(lattice, shift, geometry.block))
            lattice = _covered(halves[0], shift, geometry.block)
        found.insert(0, halves)
        coarse = lattice
    return found


def block_counts(geometry: Geometry, region: Tensor) -> Tensor:
    """How many blocks have to be evaluated again when the pixels of a region change.

    Shape: (n + 1, 2 repeat), int64: level by half-step, the latter in the direction x -> z.

    Arguments and errors as in `inference_cone`.
    """
    return torch.tensor([[int(blocks.sum()) for blocks in halves] for halves in inference_blocks(geometry, region)])


def _touched(lattice: Tensor, shift: int, block: int) -> Tensor:
    """Which blocks hold a marked site: bool (H_h, W_h) -> bool (H_h / m, W_h / m)."""
    height, width = lattice.shape
    if shift:
        lattice = lattice.roll((-shift, -shift), (0, 1))
    return lattice.reshape(height // block, block, width // block, block).any(3).any(1)


def _covered(blocks: Tensor, shift: int, block: int) -> Tensor:
    """All sites of the marked blocks: bool (H_h / m, W_h / m) -> bool (H_h, W_h)."""
    lattice = blocks.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return lattice.roll((shift, shift), (0, 1)) if shift else lattice


def _checked(geometry: Geometry, region: Tensor) -> Tensor:
    if not isinstance(region, Tensor) or region.dtype != torch.bool:
        given = f"a tensor of {region.dtype}" if isinstance(region, Tensor) else type(region).__name__
        raise TypeError(f"region must be a bool tensor of shape (H, W), not {given}")
    if tuple(region.shape) != (geometry.height, geometry.width):
        raise ValueError(f"region must have the shape {(geometry.height, geometry.width)}, not {tuple(region.shape)}")
    if not region.any():
        raise ValueError("region is empty: it must hold at least one pixel")
    return region


def _checked_site(geometry: Geometry, site: Sequence[int]) -> tuple[int, int]:
    try:
        row, column = (operator.index(k) for k in site)
    except (TypeError, ValueError):
        raise TypeError(f"site must be two integers (i, j), not {site!r}") from None
    if not (0 <= row < geometry.height and 0 <= column < geometry.width):
        allowed = f"rows 0 to {geometry.height - 1}, columns 0 to {geometry.width - 1}"
        raise ValueError(f"site {(row, column)} lies outside the lattice: {allowed}")
    return row, column
