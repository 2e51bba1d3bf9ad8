"""Mixing and swapping latents by level, and the weight of the donor's colour."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rgflow import RGFlowConfig, build, mixing, pixels

FLOW = build(RGFlowConfig(channels=3, size=8, nlayers=1, nhidden=4, net="plain"))
LEVELS = FLOW.levels


def test_mixing_by_eq_9() -> None:
    a, b = torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    assert torch.equal(mixing.mix(LEVELS, a, b, 0), a)
    assert torch.equal(mixing.mix(LEVELS, a, b, 2), b)
    assert mixing.mix(LEVELS, a, b, 1).sum() == 2 * 16  # the top level of an 8 x 8 lattice holds 16 sites
    assert mixing.swap(LEVELS, b, a, 0).sum() == 2 * 48
    with pytest.raises(ValueError, match=r"level must be one of 0..1, not 2"):
        mixing.swap(LEVELS, a, b, 2)


def test_global_colour_by_hand() -> None:
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, :, 0, 0] = torch.tensor([100, 0, 0])  # brightness 100
    image[0, :, 1, 1] = torch.tensor([0, 200, 100])  # brightness 300
    assert_close(mixing.global_colour(image), torch.tensor([[25.0, 150.0, 75.0]]).double())
    assert mixing.global_colour(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).tolist() == [[0, 0, 0]]


def test_donor_weight_of_a_flow_that_changes_nothing() -> None:
    """A fresh flow leaves latents where the pixels are: a level brings the share of the pixels it holds."""
    colour = torch.randint(32, 224, (400, 3, 1, 1), generator=torch.Generator().manual_seed(1))
    images = colour.expand(-1, -1, 8, 8).to(torch.uint8).contiguous()
    found = {level: mixing.donor_weight(FLOW, images, level, seed=2) for level in (0, 1)}
    for level, share in {0: 0.75, 1: 0.25}.items():
        weight = found[level]
        assert weight.pairs == 200 and weight.level == level
        assert weight.donor == pytest.approx(share, abs=0.06) and weight.host == pytest.approx(1 - share, abs=0.06)
        assert weight.interval[0] < weight.donor < weight.interval[1]
    with pytest.raises(ValueError, match="must be even, not 3"):
        mixing.donor_weight(FLOW, images[:3], 0)


def test_interpolation_of_latents_and_of_pixels() -> None:
    a, b = torch.full((1, 3, 8, 8), 4.0), torch.zeros(1, 3, 8, 8)
    assert torch.equal(mixing.interpolate(a, b, 0.25), torch.ones(1, 3, 8, 8))
    grey = [torch.full((1, 3, 2, 2), v, dtype=torch.uint8) for v in (255, 200)]
    mixed = mixing.interpolate(*grey, 0.5)  # 227.5, which uint8 could not add up
    assert mixed.dtype == torch.uint8 and mixed.unique().tolist() == [228]
    with pytest.raises(ValueError, match="weight must be in 0..1, not 1.5"):
        mixing.interpolate(a, b, 1.5)
    with pytest.raises(ValueError, match="the same shape"):
        mixing.interpolate(a, b[:, :1], 0.5)


def test_a_gallery_goes_from_one_image_to_the_other_and_back() -> None:
    a, b = torch.full((1, 3, 8, 8), 2.0), torch.full((1, 3, 8, 8), -2.0)
    rows = mixing.gallery(FLOW, a, b)
    bright, dark = (int(pixels.from_logit(z)[0, 0, 0, 0]) for z in (a, b))
    assert rows.shape == (2, 3, 3, 8, 8)
    assert (rows[0, 0] == bright).all() and (rows[0, 2] == dark).all()
    assert (rows[1, 0] == dark).all() and (rows[1, 2] == bright).all()
    assert (rows[0, 1][:, LEVELS == 1] == bright).all() and (rows[0, 1][:, LEVELS == 0] == dark).all()
    with pytest.raises(ValueError, match="one image on each side, not of 2 and 1"):
        mixing.gallery(FLOW, a.repeat(2, 1, 1, 1), b)


def test_pairs_use_every_image_once() -> None:
    first, second = mixing.pairs_of(50, torch.Generator().manual_seed(0))
    assert sorted(first.tolist() + second.tolist()) == list(range(50)) and len(first) == 25


def triple(w_a: float, w_b: float, noise: float = 0.0, seed: int = 0, count: int = 400) -> mixing.Triple:
    a, b, e = torch.randn(3, count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mixing.Triple(w_a * a + w_b * b + noise * e + torch.arange(5.0), a + 100, b - 7 * torch.arange(5.0))


def test_weights_are_those_the_factors_were_made_with() -> None:
    exact = mixing.weights(triple(0.7, -0.2))
    assert exact.first == pytest.approx((0.7, 0.7, 0.7)) and exact.second == pytest.approx((-0.2, -0.2, -0.2))
    assert exact.pairs == 400
    noisy = mixing.weights(triple(0.7, -0.2, 1.0), torch.Generator().manual_seed(1))
    width = noisy.first.high - noisy.first.low
    assert noisy.first.low < 0.7 < noisy.first.high and width == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.25)


def test_weights_of_dependent_sources_are_not_confused() -> None:
    """A factor shared by both sources must not be given to the wrong one."""
    made, a, b = triple(0.9, 0.1, 0.3)
    found = mixing.weights(mixing.Triple(made + 0.1 * 0.8 * a, a, b + 0.8 * a), torch.Generator().manual_seed(0))
    assert found.first.value == pytest.approx(0.9, abs=0.03) and found.second.value == pytest.approx(0.1, abs=0.03)


def test_separation_is_a_difference_of_weights_and_of_that_to_a_control() -> None:
    coarse, fine = triple(0.9, 0.1, 0.5, seed=1), triple(0.2, 0.8, 0.5, seed=2)
    control = triple(0.5, 0.5, 0.5, seed=3), triple(0.6, 0.4, 0.5, seed=4)
    alone = mixing.separation(coarse, fine, generator=torch.Generator().manual_seed(0))
    assert alone.value == pytest.approx(0.7, abs=0.05) and alone.low < 0.7 < alone.high
    beside = mixing.separation(coarse, fine, control, torch.Generator().manual_seed(0))
    assert beside.value == pytest.approx(0.8, abs=0.07) and beside.low < 0.8 < beside.high
    assert mixing.separation(coarse, coarse).low == mixing.separation(coarse, coarse).high == 0  # the same draws
    with pytest.raises(ValueError, match=r"of the same pairs, not of \[400, 300\]"):
        mixing.separation(coarse, triple(1, 0, count=300))


def test_factors_of_other_shapes_are_refused() -> None:
    good = torch.zeros(4, 2)
    for wrong in ((good, good, good[:3]), (good[:2], good[:2], good[:2]), (good[0], good[0], good[0])):
        with pytest.raises(ValueError, match="three of one shape"):
            mixing.weights(mixing.Triple(*wrong))
