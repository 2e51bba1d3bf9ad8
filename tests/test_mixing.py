"""Mixing and swapping latents by level, and the weight of the donor's colour."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rgflow import RGFlowConfig, build, mixing

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
