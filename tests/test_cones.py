"""Cones against a reference of plain sets, against each other, and against the Jacobians of random flows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from bijectors import wake_up
from hypothesis import given, settings
from hypothesis import strategies as st

from rgflow import cones
from rgflow.flow import RGFlowConfig, build
from rgflow.hierarchy import ORDERS, Geometry

Site = tuple[int, int]


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    block = draw(st.sampled_from([2, 4, 6]))
    small = block << draw(st.integers(0, 3 if block == 2 else 2))
    large = small * draw(st.integers(1, 2))
    height, width = draw(st.permutations([small, large]))
    return Geometry(height, width, block, draw(st.sampled_from(ORDERS)), draw(st.integers(1, 2)))


def sites(geometry: Geometry) -> st.SearchStrategy[Site]:
    return st.tuples(st.integers(0, geometry.height - 1), st.integers(0, geometry.width - 1))


def regions(geometry: Geometry) -> st.SearchStrategy[set[Site]]:
    return st.sets(sites(geometry), min_size=1, max_size=6)


def mask(geometry: Geometry, marked: set[Site]) -> torch.Tensor:
    result = torch.zeros(geometry.height, geometry.width, dtype=torch.bool)
    for i, j in marked:
        result[i, j] = True
    return result


def blocks_of(geometry: Geometry, level: int, half: int) -> list[frozenset[Site]]:
    """Every block of a half-step as the set of the full lattice's sites, written out from eq. 5."""
    m, unit = geometry.block, 2**level
    first_shifted = geometry.order == "paper"
    shift = m // 2 if (half % 2 == 0) == first_shifted else 0
    rows, columns = geometry.height // (m * unit), geometry.width // (m * unit)
    return [
        frozenset(
            (unit * (m * p + shift + a) % geometry.height, unit * (m * q + shift + b) % geometry.width)
            for a in range(m)
            for b in range(m)
        )
        for p in range(rows)
        for q in range(columns)
    ]


def touch(blocks: list[frozenset[Site]], changed: set[Site]) -> tuple[set[Site], int]:
    hit = [block for block in blocks if block & changed]
    return set().union(*hit), len(hit)


def reference_inference(geometry: Geometry, region: set[Site]) -> tuple[set[Site], list[list[int]]]:
    cone, counts, changed = set(), [], set(region)
    for level in range(geometry.depth + 1):
        row = []
        for half in range(2 * geometry.repeat):
            changed, count = touch(blocks_of(geometry, level, half), changed)
            row.append(count)
        counts.append(row)
        keep = 2 ** (level + 1)
        passed = {s for s in changed if level < geometry.depth and s[0] % keep == s[1] % keep == 0}
        cone |= changed - passed
        changed = passed
    return cone, counts


def reference_generation(geometry: Geometry, site: Site) -> set[Site]:
    changed = {site}
    for level in reversed(range(int(geometry.levels[site]) + 1)):
        for half in reversed(range(2 * geometry.repeat)):
            changed, _ = touch(blocks_of(geometry, level, half), changed)
    return changed


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_inference_cone_and_counts_agree_with_sets(data: st.DataObject) -> None:
    geometry = data.draw(geometries())
    region = data.draw(regions(geometry))
    cone, counts = reference_inference(geometry, region)
    assert torch.equal(cones.inference_cone(geometry, mask(geometry, region)), mask(geometry, cone))
    assert cones.block_counts(geometry, mask(geometry, region)).tolist() == counts


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_generation_cone_agrees_with_sets(data: st.DataObject) -> None:
    geometry = data.draw(geometries())
    site = data.draw(sites(geometry))
    before = torch.tensor(site)
    found = cones.generation_cone(geometry, before)
    assert torch.equal(found, mask(geometry, reference_generation(geometry, site)))
    assert tuple(before.tolist()) == site


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_cones_are_dual_and_inference_is_a_union(data: st.DataObject) -> None:
    geometry = data.draw(geometries())
    pixel, latent = data.draw(sites(geometry)), data.draw(sites(geometry))
    seen = cones.inference_cone(geometry, mask(geometry, {pixel}))
    assert bool(seen[latent]) == bool(cones.generation_cone(geometry, latent)[pixel])
    other = mask(geometry, data.draw(regions(geometry)))
    both = cones.inference_cone(geometry, other | mask(geometry, {pixel}))
    assert torch.equal(both, seen | cones.inference_cone(geometry, other))


@pytest.mark.parametrize("order", ORDERS)
def test_all_pairs_are_dual(order: str) -> None:
    geometry = Geometry(16, 32, 2, order)  # small blocks: cones that stay small, so that a shift by one site shows
    grid = list(product(range(16), range(32)))
    generated = torch.stack([cones.generation_cone(geometry, site).flatten() for site in grid])
    inferred = torch.stack([cones.inference_cone(geometry, mask(geometry, {site})).flatten() for site in grid])
    assert torch.equal(generated, inferred.T)


@pytest.mark.parametrize("order", ORDERS)
def test_block_maps_name_the_blocks(order: str) -> None:
    """Maps are numbered as in eq. 5, finest level and first half-step first; blocks above a latent stay out."""
    geometry = Geometry(16, 32, 4, order)
    region = {(15, 31), (6, 3)}
    changed = set(region)
    found = cones.inference_blocks(geometry, mask(geometry, region))
    assert [[tuple(half.shape) for half in halves] for halves in found] == [[(4, 8)] * 2, [(2, 4)] * 2, [(1, 2)] * 2]
    for half in range(2):
        blocks = blocks_of(geometry, 0, half)
        assert found[0][half].flatten().tolist() == [bool(block & changed) for block in blocks]
        changed, _ = touch(blocks, changed)
    latent = (2, 30)
    found, changed = cones.generation_blocks(geometry, latent), {latent}
    assert not any(half.any() for half in found[2])
    for level in (1, 0):
        for half in (1, 0):
            blocks = blocks_of(geometry, level, half)
            assert found[level][half].flatten().tolist() == [bool(block & changed) for block in blocks]
            changed, _ = touch(blocks, changed)


# The counts that the inpainting engine has to reach: a 4 x 4 hole at rows 9-12 and columns 10-13.
@pytest.mark.parametrize(
    ("size", "order", "blocks", "latents"),
    [
        *((32 << k, "paper", 31 + 13 * k, 732 + 324 * k) for k in range(6)),
        *((32 << k, "authors", 48 + 25 * k, 1092 + 576 * k) for k in range(6)),
    ],
)
def test_counts_of_a_hole_grow_by_a_constant_per_doubling(size: int, order: str, blocks: int, latents: int) -> None:
    geometry = Geometry(size, size, 4, order)
    hole = torch.zeros(size, size, dtype=torch.bool)
    hole[9:13, 10:14] = True
    assert int(cones.block_counts(geometry, hole).sum()) == blocks
    assert 3 * int(cones.inference_cone(geometry, hole).sum()) == latents


def test_cones_by_hand() -> None:
    """m = 4, counted on paper."""
    geometry = Geometry(8, 8, 4)
    assert cones.generation_cone(geometry, (1, 1)).all()  # its decimator touches all 4 shifted blocks
    whole = torch.ones(8, 8, dtype=torch.bool)
    assert cones.block_counts(geometry, whole).tolist() == [[4, 4], [1, 1]]
    assert cones.inference_cone(geometry, whole).all()
    # order "authors": the latent meets a shifted block first, which touches all 4 unshifted ones
    assert cones.generation_cone(Geometry(8, 8, 4, "authors"), (3, 5)).all()
    # L = 16: the decimator of rows and columns 4-7 touches the shifted blocks of rows and columns 2-9
    cone = cones.generation_cone(Geometry(16, 16, 4), (5, 7))
    assert cone[2:10, 2:10].all() and int(cone.sum()) == 64
    # and the block at the corner wraps around
    cone = cones.generation_cone(Geometry(16, 16, 4), (1, 1))
    rows = [14, 15, 0, 1, 2, 3, 4, 5]
    assert cone[rows][:, rows].all() and int(cone.sum()) == 64


# At L = 8 the cones of 4 x 4 blocks are the whole lattice: smaller blocks and larger lattices have an outside.
FLOWS = {
    "affine 8x8x1": RGFlowConfig(1, 8, nlayers=3, nhidden=8, net="plain"),
    "affine 16x16x1": RGFlowConfig(1, 16, nlayers=3, nhidden=8, net="plain"),
    "affine 16x16x1 authors": RGFlowConfig(1, 16, nlayers=3, nhidden=8, net="plain", order="authors"),
    "affine 16x16x1 shared": RGFlowConfig(1, 16, nlayers=3, nhidden=8, net="plain", share_levels=True),
    "affine 8x16x1 gaussian": RGFlowConfig(1, (8, 16), nlayers=3, nhidden=8, net="plain", prior="gaussian"),
    "affine 8x8x3 m=2": RGFlowConfig(3, 8, block=2, nlayers=3, nhidden=8, net="plain"),
    "affine 8x8x3 m=2 authors residual": RGFlowConfig(3, 8, 2, nlayers=3, nres=1, nmlp=1, nhidden=8, order="authors"),
    "affine 16x16x1 m=2 authors": RGFlowConfig(1, 16, 2, nlayers=3, nhidden=8, net="plain", order="authors"),
    "affine 16x16x1 m=2 repeated": RGFlowConfig(1, 16, 2, nlayers=3, nhidden=8, net="plain", repeat=2),
    "autoregressive 16x16x1": RGFlowConfig(1, 16, nlayers=3, nres=1, nmlp=1, nhidden=16, coupling="autoregressive"),
    "autoregressive 8x8x1 m=2": RGFlowConfig(1, 8, 2, nlayers=3, nres=1, nmlp=1, nhidden=8, coupling="autoregressive"),
    "autoregressive 8x8x3 m=2 authors": RGFlowConfig(
        3, 8, 2, nlayers=3, nres=1, nmlp=1, nhidden=8, coupling="autoregressive", order="authors"
    ),
}


def connections(function: Callable, value: torch.Tensor, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which sites of the argument the chosen sites of the result depend on, in some channel and in every channel.

    One row per chosen site; by autograd, all rows in one backward pass over copies of the argument.
    """
    channels, sites_count = len(value), value[0].numel()
    picked = [(site, channel) for site in chosen for channel in range(channels)]
    copies = value.expand(len(picked), *value.shape).clone().requires_grad_()
    result = function(copies)[0].flatten(2)
    (rows,) = torch.autograd.grad(sum(result[k, channel, site] for k, (site, channel) in enumerate(picked)), copies)
    linked = (rows != 0).view(len(chosen), channels * channels, sites_count)
    return linked.any(1), linked.all(1)


@pytest.mark.parametrize("name", FLOWS)
def test_jacobians_vanish_outside_the_cones_and_fill_them(name: str) -> None:
    flow = wake_up(build(FLOWS[name]).double(), std=0.1)
    geometry, (_, height, width) = flow.geometry, flow.shape
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(flow.shape, generator=generator, dtype=torch.float64)
    chosen = [0, *torch.randperm(height * width, generator=generator)[:9].tolist()]
    grid = list(product(range(height), range(width)))
    generated = [cones.generation_cone(geometry, site).flatten() for site in grid]
    inferred = [cones.inference_cone(geometry, mask(geometry, {site})).flatten() for site in grid]
    for function, expected in ((flow.decode, generated), (flow.encode, inferred)):
        some, every = connections(function, value, chosen)
        assert torch.equal(some, torch.stack(expected, dim=1)[chosen]), "a change leaks out of its cone or leaves a gap"
        assert torch.equal(every, some), "not every channel of a connected site takes part"


def test_tiny_lattices_leave_cones_whole() -> None:
    """Where all blocks see each other, every cone is the whole lattice (at L = m trivially)."""
    for order in ORDERS:
        geometry = Geometry(4, 4, 4, order)
        assert cones.generation_cone(geometry, (3, 1)).all()
        assert cones.inference_cone(geometry, mask(geometry, {(0, 2)})).all()


GEOMETRY = Geometry(8, 8, 4)
FULL = torch.ones(8, 8, dtype=torch.bool)


@pytest.mark.parametrize("function", [cones.inference_cone, cones.inference_blocks, cones.block_counts])
@pytest.mark.parametrize(
    ("region", "error", "text"),
    [
        (FULL.float(), TypeError, r"bool tensor of shape \(H, W\), not a tensor of torch.float32"),
        (FULL.long(), TypeError, "not a tensor of torch.int64"),
        (FULL.tolist(), TypeError, "not list"),
        (FULL.numpy(), TypeError, "not ndarray"),
        (FULL[:4], ValueError, r"shape \(8, 8\), not \(4, 8\)"),
        (FULL[None], ValueError, r"shape \(8, 8\), not \(1, 8, 8\)"),
        (~FULL, ValueError, "at least one pixel"),
    ],
)
def test_wrong_regions_raise(function, region, error, text: str) -> None:
    with pytest.raises(error, match=text):
        function(GEOMETRY, region)


@pytest.mark.parametrize("function", [cones.generation_cone, cones.generation_blocks])
@pytest.mark.parametrize(
    ("site", "error", "text"),
    [
        ((8, 0), ValueError, r"site \(8, 0\) lies outside the lattice: rows 0 to 7, columns 0 to 7"),
        ((0, 8), ValueError, "outside the lattice"),
        ((0, -1), ValueError, "outside the lattice"),
        ((-1, 0), ValueError, "outside the lattice"),
        ((1,), TypeError, "two integers"),
        ((1, 2, 3), TypeError, "two integers"),
        ((1.0, 2.0), TypeError, "two integers"),
        (5, TypeError, "two integers"),
    ],
)
def test_wrong_sites_raise(function, site, error, text: str) -> None:
    with pytest.raises(error, match=text):
        function(GEOMETRY, site)


def test_region_is_left_alone() -> None:
    region = mask(GEOMETRY, {(0, 0)})
    before = region.clone()
    cones.inference_cone(GEOMETRY, region)
    assert torch.equal(region, before)
