"""Hierarchies that end early: a top level of several blocks."""

from __future__ import annotations

import pytest
import torch
from bijectors import assert_bijector, wake_up

from rgflow import cones
from rgflow.flow import RGFlowConfig, build
from rgflow.hierarchy import Geometry

SMALL = {"channels": 1, "block": 2, "nlayers": 2, "net": "plain", "nhidden": 8}


def test_levels_end_at_the_depth():
    full = Geometry(8, 8, 2)
    assert full.depth == 2 and Geometry(8, 8, 2, deepest=5).depth == 2
    for depth in (0, 1, 2):
        geometry = Geometry(8, 8, 2, deepest=depth)
        assert geometry.depth == depth and torch.equal(geometry.levels, full.levels.clamp_max(depth))
        assert geometry.blocks(depth) == (4 >> depth) ** 2
    assert Geometry(12, 20, 2, deepest=1).depth == 1


@pytest.mark.parametrize(("size", "depth"), [(8, 0), (8, 1), ((4, 12), 1)])
def test_a_flow_that_ends_early_is_a_bijector(double, size, depth):
    flow = build(RGFlowConfig(**SMALL, size=size, depth=depth))
    assert len(flow.bijector.steps) == depth + 1
    assert_bijector(wake_up(flow.bijector), torch.randn(2, *flow.shape))


def test_what_lies_apart_stays_independent(double):
    """At depth 0 a latent reaches no further than its disentangler and decimator do."""
    flow = wake_up(build(RGFlowConfig(**SMALL, size=8, depth=0)))
    cone = cones.generation_cone(flow.geometry, (3, 3))
    assert 4 < int(cone.sum()) < 64
    z = torch.randn(1, *flow.shape)
    reach = torch.autograd.functional.jacobian(lambda u: flow.decode(u)[0], z)[0, 0, :, :, 0, 0, 3, 3] != 0
    assert torch.equal(reach, cone)


def test_the_flow_of_a_coarse_lattice_ends_where_the_whole_does(double):
    flow = wake_up(build(RGFlowConfig(**SMALL, size=16, depth=2)))
    coarse = flow.coarse(1)
    assert coarse.geometry == coarse.config.geometry == Geometry(8, 8, 2, deepest=1)
    assert torch.equal(coarse.levels, coarse.geometry.levels)
    x = torch.randn(3, 1, 16, 16)
    passed = flow.bijector.steps[0](x)[0][:, :, ::2, ::2]
    expected = flow.log_prob_by_level(x)[:, 1:].sum(1)
    torch.testing.assert_close(coarse.log_prob(passed), expected)
    assert coarse.coarse(1).config.depth == 0


def test_none_is_as_before():
    assert RGFlowConfig(**SMALL, size=8) == RGFlowConfig(**SMALL, size=8, depth=None)
    given = [torch.Generator().manual_seed(0) for _ in "ab"]
    flows = [build(RGFlowConfig(**SMALL, size=8, depth=depth), g) for depth, g in zip((None, 2), given, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(flows[0].parameters(), flows[1].parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8, "depth": -1}, "depth must be an integer of at least 0, not -1"),
        ({"size": 8, "depth": 1.5}, "depth must be an integer"),
        ({"size": 12}, "does not fit blocks of 2"),
        ({"size": 12, "depth": 2}, "multiples of 8"),
        ({"size": 8, "depth": 1, "nhidden": (8, 8, 8)}, "one number or 2"),
    ],
)
def test_bad_depths(settings, message):
    with pytest.raises(ValueError, match=message):
        RGFlowConfig(**{**SMALL, **settings})
