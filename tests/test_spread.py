"""How far effects spread, on effects made by hand, and on flows of which the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rgflow import Geometry, RealNVPConfig, RGFlowConfig, build
from rgflow.cones import generation_cone
from rgflow.jacobians import latents_of
from rgflow.receptive import ReceptiveFields, receptive_fields
from rgflow.spread import by_level, centred, effects, near_cones, outside, pixels_holding

FLOW = build(RGFlowConfig(channels=2, size=8, nlayers=1, nhidden=4, net="plain"))  # 96 latents below, 32 on top


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fields(latents: Tensor, magnitude: Tensor, mean: Tensor | None = None) -> ReceptiveFields:
    levels = FLOW.levels[latents[:, 1], latents[:, 2]]
    mean = torch.zeros_like(magnitude) if mean is None else mean
    return ReceptiveFields(latents, levels, mean, magnitude, torch.zeros(len(latents)).double(), 10)


def test_an_effect_sums_squares_of_magnitudes_over_channels() -> None:
    magnitude = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    magnitude[0, :, 2, 3] = torch.tensor([3.0, 4.0])
    found = effects(fields(torch.tensor([[0, 1, 1]]), magnitude))  # signs that cancel in the mean do not matter
    assert found[0, 2, 3] == 25 and found.sum() == 25


def test_the_share_outside_by_hand() -> None:
    effect, cone = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.bool)
    effect[:, 0, 0], effect[:, 0, 1] = 3.0, 1.0
    cone[0, 0, 0] = cone[1, 0, :2] = True
    assert outside(effect, cone).tolist() == [0.25, 0.0, 1.0]
    with pytest.raises(ValueError, match="0 everywhere"):
        outside(torch.zeros(1, 8, 8), cone[:1])
    with pytest.raises(ValueError, match="need bool cones of their shape"):
        outside(effect, cone[:2])
    with pytest.raises(ValueError, match="need bool cones of their shape, not .* torch.float32"):
        outside(effect, cone.float())


def test_cones_of_the_same_level_and_the_nearest_place() -> None:
    geometry = Geometry(16, 16, 4)
    on, beside, around = (2, 6), (1, 6), (15, 15)  # sites of level 1, level 0, level 0
    latents = torch.tensor([[0, *on], [2, *beside], [1, *around], [0, *around]])
    found = near_cones(geometry, latents, torch.tensor([1, 1, 2, 0]))
    assert torch.equal(found[0], generation_cone(geometry, on)) and torch.equal(found[1], found[0])
    assert found[2].all(), "the cone of the top level is everything"
    assert torch.equal(found[3], generation_cone(geometry, around)) and found[3].sum() < found[0].sum()
    large = Geometry(64, 64, 4)  # where the cones of level 2, too, are less than everything
    over = near_cones(large, torch.tensor([[0, 63, 60]]), torch.tensor([2]))[0]
    assert torch.equal(over, generation_cone(large, (0, 60))) and not over.all(), "nearest around the border"
    with pytest.raises(ValueError, match=r"the levels 0..2, not 3"):
        near_cones(geometry, latents[:1], torch.tensor([3]))


def test_pixels_that_hold_a_share_by_hand() -> None:
    effect = torch.zeros(3, 4, 4)
    effect[0] = 1.0
    effect[1, 0, 0] = 1.0
    effect[2, :1, :3] = torch.tensor([5.0, 4.0, 1.0])
    assert pixels_holding(effect, 0.85).tolist() == [14, 1, 2]  # 13.6 of 16; one; 9 of 10
    assert pixels_holding(effect, 0.4)[2] == 1 and pixels_holding(effect, 0.95)[2] == 3
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), not 1"):
        pixels_holding(effect, 1)
    with pytest.raises(ValueError, match="0 everywhere"):
        pixels_holding(torch.zeros(1, 4, 4))


def test_the_mean_around_the_own_site_by_hand() -> None:
    effect = torch.zeros(2, 4, 6)
    effect[0, 0, 5], effect[0, 0, 0] = 3.0, 1.0  # its site, and the one to the right, around the border
    effect[1, 2, 2] = 5.0
    found = centred(effect, torch.tensor([[0, 5], [2, 1]]))
    assert found[2, 3] == 0.375 and found[2, 4] == 0.625 and found.sum() == 1
    with pytest.raises(ValueError, match="2 effects need as many sites"):
        centred(effect, torch.tensor([[0, 5]]))
    with pytest.raises(ValueError, match="0 everywhere"):
        centred(0 * effect, torch.tensor([[0, 5], [2, 1]]))


def test_levels_by_hand() -> None:
    latents = torch.cat([latents_of(FLOW, 0)[:3], latents_of(FLOW, 1)[:2]])
    magnitude = torch.zeros(5, 2, 8, 8, dtype=torch.float64)
    magnitude[:3, 0, 4, 4] = 1.0
    magnitude[3:, 0] = 1.0  # the whole lattice
    below, top = by_level(FLOW, fields(latents, magnitude), FLOW.geometry, generator())
    assert (below.level, below.measured, below.latents) == (0, 3, 96) and (top.measured, top.latents) == (2, 32)
    assert below.spread.value == 0 and below.pixels == (1, 1, 1)
    assert top.spread.value == pytest.approx(math.sqrt(63 / 6)) and top.pixels.value == 58  # 57.6 of 64
    assert top.outside.value == 0, "the cone of the top level is everything"
    with pytest.raises(ValueError, match="the cones are of 16 x 16 sites"):
        by_level(FLOW, fields(latents, magnitude), Geometry(16, 16, 4))


@pytest.mark.parametrize("config", [RGFlowConfig, RealNVPConfig])
def test_a_hierarchy_keeps_to_its_cones_and_real_nvp_does_not(config) -> None:
    """With random weights, that is with everything connected that can be."""
    geometry = Geometry(32, 32, 4)
    more = {"nlayers": 2, "net": "plain"} if config is RGFlowConfig else {"nres": 1}
    flow = build(config(channels=1, nhidden=6, **more), generator())
    with torch.no_grad():
        for index, weights in enumerate(flow.parameters()):
            weights.normal_(std=0.3, generator=torch.Generator().manual_seed(index))
    latents = torch.cat([latents_of(flow, level, 6, generator()) for level in (0, 1)])
    found = receptive_fields(flow, latents, 2, generator=generator())
    out = outside(effects(found), near_cones(geometry, latents, found.levels))
    assert (out == 0).all() if config is RGFlowConfig else (out > 0).all()
    below, _ = by_level(flow, found, geometry, generator())
    assert below.outside.value == out[:6].median() or below.outside.low <= out[:6].median() <= below.outside.high
