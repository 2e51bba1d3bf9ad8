"""Conditionals are exact: density and gradient of the whole flow, from the blocks of the cone alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rgflow import RGFlowConfig, build, cones, inpaint
from rgflow.flow import Flow
from rgflow.local import frozen
from rgflow.modes import Ascent
from rgflow.realnvp import RealNVPConfig
from rgflow.whitening import whiten

KINDS = {
    "affine": {"nres": 2, "stream": "full"},
    "half": {"nres": 1, "stream": "half", "tied": False},
    "spline": {"net": "plain", "coupling": "spline"},
    "autoregressive": {"coupling": "autoregressive", "channels": 1},
    "places": {"net": "plain", "coupling": "spline", "linear": "whitened", "places": True},
    "whitened": {"linear": "whitened"},
    "shared": {"share_levels": True},
}


def random_flow(seed: int = 0, **changes) -> Flow:
    """Random weights everywhere (a fresh flow is the identity), small enough for the latents of a trained one."""
    config = RGFlowConfig(**{"channels": 2, "size": 16, "nlayers": 2, "nres": 1, "nhidden": 16, **changes})
    flow = build(config, torch.Generator().manual_seed(seed)).double()
    generator = torch.Generator().manual_seed(seed + 1)
    for p in flow.parameters():
        p.data = 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    if flow.config.linear:
        whiten(flow, torch.randn(200, *flow.shape, generator=generator, dtype=torch.float64))
    return flow


def filled(x: Tensor, hole: Tensor, fills: Tensor) -> Tensor:
    """Whole images, put together the slow way."""
    images = x.expand(len(fills), *x.shape).clone()
    images[:, :, hole] = fills
    return images


def compare(flow: Flow, hole: Tensor, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(flow.shape, generator=generator, dtype=torch.float64)
    fills = torch.randn(3, flow.shape[0], int(hole.sum()), generator=generator, dtype=torch.float64)
    conditional = inpaint.condition(flow, x.masked_fill(hole, math.nan), hole)
    images = filled(x, hole, fills).requires_grad_()
    fills.requires_grad_()
    local, whole = conditional.log_prob(fills), flow.log_prob(images)
    assert torch.allclose(local, whole, rtol=1e-12, atol=0)
    here, there = torch.autograd.grad(local.sum(), fills)[0], torch.autograd.grad(whole.sum(), images)[0][:, :, hole]
    assert (here - there).norm() <= 1e-12 * there.norm()
    assert torch.equal(conditional.cone, cones.inference_cone(flow.geometry, hole))
    assert torch.equal(conditional.blocks, cones.block_counts(flow.geometry, hole))
    assert conditional.latents == flow.shape[0] * int(conditional.cone.sum())
    assert torch.equal(conditional.hole, hole)


@pytest.mark.parametrize("order", ["paper", "authors"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_flow(kind: str, order: str) -> None:
    hole = torch.zeros(16, 16, dtype=torch.bool)
    hole[5:9, 14:] = hole[5:9, :1] = hole[12, 7] = True  # in two pieces, one across the periodic border
    compare(random_flow(order=order, **KINDS[kind]), hole)


SHAPES = [(2, 8, 8, 1), (4, 8, 8, 2), (4, 16, 16, 1), (4, 8, 24, 1), (2, 12, 4, 2), (6, 12, 12, 1)]


@given(
    shape=st.sampled_from(SHAPES), order=st.sampled_from(["paper", "authors"]), kind=st.sampled_from(list(KINDS)),
    density=st.sampled_from([0.0, 0.02, 0.2, 0.9, 1.0]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_any_hole_of_any_lattice(shape: tuple, order: str, kind: str, density: float, seed: int) -> None:
    block, height, width, repeat = shape
    changes = {"size": (height, width), "block": block, "order": order, "repeat": repeat, "nhidden": block**2}
    flow = random_flow(seed, **{**changes, **KINDS[kind]})
    generator = torch.Generator().manual_seed(seed)
    hole = torch.rand(height, width, generator=generator) < density
    hole.view(-1)[torch.randint(height * width, (), generator=generator)] = True
    compare(flow, hole, seed)


@pytest.mark.parametrize("rows", [slice(3, 4), slice(None)])
def test_a_whole_row_and_the_whole_image(rows: slice) -> None:
    hole = torch.zeros(16, 16, dtype=torch.bool)
    hole[rows] = True
    compare(random_flow(), hole)


def test_blocks_are_counted_where_they_are_evaluated() -> None:
    flow = frozen(random_flow())
    seen = []
    for level in range(flow.geometry.depth + 1):
        for half in flow.bijector.step(level).blocks:
            half.bijector.register_forward_hook(lambda module, args, result: seen.append(len(args[0])))
    conditional = inpaint.condition(flow, torch.zeros(flow.shape, dtype=torch.float64), (9, 10, 4, 4))
    seen.clear()  # those of the image itself
    conditional.log_prob(torch.randn(5, 2, 16, dtype=torch.float64))
    assert seen == [5 * n for n in conditional.blocks.flatten().tolist()]


@pytest.mark.parametrize(("size", "total"), [(32, 31), (64, 44), (128, 57), (256, 70), (512, 83), (1024, 96)])
def test_counts_grow_by_13_blocks_per_doubling(size: int, total: int) -> None:
    flow = build(RGFlowConfig(size=size, nlayers=1, nres=1, nhidden=4, share_levels=True))
    plan = inpaint.plan(flow, (9, 10, 4, 4))
    assert int(plan.blocks.sum()) == total
    if size in (32, 1024):
        assert len(plan.sites) == {32: 732, 1024: 2352}[size]


@pytest.mark.parametrize("kind", KINDS)
def test_latents_of_the_cone_generate_the_hole(kind: str) -> None:
    flow = random_flow(**KINDS[kind])
    hole = torch.rand(16, 16) < 0.05
    hole[3, 3] = True
    x, fills = torch.randn(flow.shape, dtype=torch.float64), torch.randn(3, flow.shape[0], int(hole.sum())).double()
    conditional = inpaint.condition(flow, x, hole)
    latents = conditional.encode(fills)
    whole = flow.encode(filled(x, hole, fills))[0]
    assert torch.allclose(whole.flatten(1)[:, conditional.plan.sites], latents, rtol=0, atol=1e-12)
    assert torch.allclose(conditional.decode(latents), fills, rtol=0, atol=1e-9)
    moved = latents + 0.1 * torch.randn_like(latents)
    whole.flatten(1)[:, conditional.plan.sites] = moved
    assert torch.allclose(conditional.decode(moved), flow.decode(whole)[0][:, :, hole], rtol=0, atol=1e-9)


def test_a_walk_over_an_image() -> None:
    flow = random_flow()
    x = torch.randn(flow.shape, dtype=torch.float64)
    conditional = inpaint.condition(flow, x, (0, 0, 3, 3))
    for corner in ((1, 1), (2, 14), (9, 9), (15, 15)):
        conditional = conditional.at(inpaint.plan(flow, (*corner, 3, 3)))
        fills = torch.randn(2, 2, 9, dtype=torch.float64)
        whole = flow.log_prob(filled(x, conditional.hole, fills))
        assert torch.allclose(conditional.log_prob(fills), whole, rtol=1e-12)
        x = conditional.paste(fills[1:])[0]
        conditional.update(fills[1])
        assert torch.equal(conditional.encoding.lattices[0][0], x.flatten())
    assert torch.allclose(conditional.encoding.latents, flow.encode(x[None])[0].flatten(), rtol=0, atol=1e-12)


def test_conditionals_that_are_kept_see_what_others_accept() -> None:
    """A sweep over two holes that see each other."""
    flow = random_flow()
    x = torch.randn(flow.shape, dtype=torch.float64)
    first = inpaint.condition(flow, x, (0, 0, 3, 3))
    second = first.at(inpaint.plan(flow, (2, 2, 3, 3)))
    for conditional in (first, second, first, second):
        fills = torch.randn(2, 2, 9, dtype=torch.float64)
        whole = flow.log_prob(filled(x, conditional.hole, fills))
        assert torch.allclose(conditional.log_prob(fills), whole, rtol=1e-12)
        conditional.update(fills[1])
        x = filled(x, conditional.hole, fills[1:])[0]
        assert torch.equal(conditional.image, x)
    assert torch.allclose(first.encoding.latents, flow.encode(x[None])[0].flatten(), rtol=0, atol=1e-12)


def test_plans_are_for_flows_of_one_kind() -> None:
    flow, other = random_flow(), random_flow(order="authors")
    plan = inpaint.plan(other, (0, 0, 3, 3))
    x = torch.zeros(flow.shape, dtype=torch.float64)
    with pytest.raises(ValueError, match="the plan is one for another flow"):
        inpaint.condition(flow, x, plan)
    with pytest.raises(ValueError, match="the plan is one for another flow"):
        inpaint.condition(flow, x, (0, 0, 3, 3)).at(plan)


def test_weights_are_constants() -> None:
    flow = random_flow(nres=1)
    x, fills = torch.randn(flow.shape, dtype=torch.float64), torch.randn(2, 2, 4, dtype=torch.float64)
    conditional = inpaint.condition(flow, x, (0, 0, 2, 2))
    before = conditional.log_prob(fills.requires_grad_())
    before.sum().backward()
    assert fills.grad is not None and all(p.grad is None for p in flow.parameters())
    for p in flow.parameters():
        p.data.zero_()
    assert torch.equal(conditional.log_prob(fills), before)
    assert frozen(conditional.flow) is conditional.flow and all(p.requires_grad for p in flow.parameters())


def test_many_images_share_a_plan() -> None:
    flow, x = random_flow(), torch.randn(3, 2, 16, 16, dtype=torch.float64)
    plan = inpaint.plan(flow, (4, 4, 2, 2))
    fills = torch.randn(1, 2, 4, dtype=torch.float64)
    many = inpaint.condition(flow, x, plan)
    assert [c.plan for c in many] == [plan] * 3 and many[0].flow is many[2].flow
    for conditional, image in zip(many, x, strict=True):
        assert torch.allclose(conditional.log_prob(fills), flow.log_prob(filled(image, conditional.hole, fills)))


def test_in_float32_differences_of_the_cone_are_better() -> None:
    flow = random_flow(size=256, nlayers=1, nhidden=8)
    x, hole = torch.randn(flow.shape, dtype=torch.float64), (20, 20, 2, 2)
    fills = torch.randn(2, 4, dtype=torch.float64) + 1e-3 * torch.randn(32, 2, 4, dtype=torch.float64)
    exact = inpaint.condition(flow, x, hole).cone_log_prob(fills).diff()
    conditional = inpaint.condition(flow.float(), x.float(), hole)
    local = (conditional.cone_log_prob(fills.float()).diff() - exact).abs().median()
    whole = (conditional.log_prob(fills.float()).diff() - exact).abs().median()
    assert local < 0.1 * whole


@pytest.mark.parametrize(
    ("hole", "error", "message"),
    [
        (torch.zeros(16, 16, dtype=torch.bool), ValueError, "empty"),
        ((0, 0, 0, 3), ValueError, "empty"),
        (torch.ones(8, 16, dtype=torch.bool), ValueError, r"shape \(16, 16\), not \(8, 16\)"),
        (torch.ones(16, 16), TypeError, "bool tensor"),
        ((0, 0, 17, 3), ValueError, "does not fit"),
        ((16, 0, 1, 3), ValueError, "does not fit"),
        ((0, 0, -1, 3), ValueError, "height must be an integer"),
        ((0, 0, 3), TypeError, "box"),
    ],
)
def test_bad_holes_are_named(hole: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        inpaint.condition(random_flow(), torch.zeros(2, 16, 16, dtype=torch.float64), hole)


def test_bad_images_and_flows_are_named() -> None:
    flow, box = random_flow(), (0, 0, 2, 2)
    x = torch.zeros(2, 16, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="not finite outside"):
        inpaint.condition(flow, x.index_fill(1, torch.tensor(5), math.inf), box)
    with pytest.raises(ValueError, match=r"shape \(2, 16, 16\) or \(B, 2, 16, 16\), not \(2, 8, 16\)"):
        inpaint.condition(flow, x[:, :8], box)
    with pytest.raises(ValueError, match="float64 on cpu, as the flow is, not torch.float32"):
        inpaint.condition(flow, x.float(), box)
    with pytest.raises(ValueError, match="no blocks and no causal cones"):
        inpaint.condition(build(RealNVPConfig(channels=1, size=8, scales=1)), torch.zeros(1, 8, 8), box)


@pytest.mark.gpu
def test_a_gpu_gives_the_densities_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    flow = random_flow(**KINDS["whitened"])
    x, fills = torch.randn(flow.shape, dtype=torch.float64), torch.randn(3, 2, 6, dtype=torch.float64)
    here = inpaint.condition(flow, x, (5, 14, 2, 3))
    there = inpaint.condition(flow.cuda(), x.cuda(), (5, 14, 2, 3))
    assert torch.allclose(there.log_prob(fills.cuda()).cpu(), here.log_prob(fills), rtol=1e-10, atol=0)
    assert torch.allclose(there.decode(there.encode(fills.cuda())).cpu(), fills, rtol=0, atol=1e-8)
    mode = there.maximise(ascent=Ascent(steps=5), generator=torch.Generator("cuda").manual_seed(0))
    assert mode.fill.is_cuda and math.isfinite(mode.log_prob)
