"""Statistics of receptive fields, on fields made up by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rgflow import RGFlowConfig, build
from rgflow.jacobians import latents_of
from rgflow.receptive import ReceptiveFields
from rgflow.strengths import share_above, summaries, top_share

FLOW = build(RGFlowConfig(channels=1, size=8, nlayers=1, nhidden=4, net="plain"))  # 48 latents below, 16 on top


def fields(below: Tensor, top: Tensor) -> ReceptiveFields:
    """Fields of the given strengths; those below lie on one site, those above on 2 x 2."""
    count = len(below) + len(top)
    mean = torch.zeros(count, 1, 8, 8, dtype=torch.float64)
    mean[: len(below), 0, 3, 3] = below.double()
    mean[len(below) :, 0, 4:6, 6:8] = top.double()[:, None, None] / 2
    latents = torch.cat([latents_of(FLOW, 0)[: len(below)], latents_of(FLOW, 1)[: len(top)]])
    levels = torch.tensor([0] * len(below) + [1] * len(top))
    return ReceptiveFields(latents, levels, mean, mean.abs(), torch.zeros(count).double(), 10)


def test_summaries_by_level() -> None:
    found = summaries(FLOW, fields(torch.tensor([0.2, 0.4, 0.6, 3.0]), torch.tensor([2.0, 0.5])))
    below, top = found
    assert (below.level, below.measured, below.latents) == (0, 4, 48) and (top.measured, top.latents) == (2, 16)
    assert below.above.value == 0.25 and top.above.value == 0.5
    assert below.strength.value == pytest.approx(0.5) and top.strength.value == pytest.approx(1.25)
    assert below.radius.value == 0 and top.radius.value == pytest.approx(math.sqrt(0.5))
    assert below.above.low <= 0.25 <= below.above.high and below.strength.low >= 0.2
    assert summaries(FLOW, fields(torch.tensor([0.2, 0.4]), torch.zeros(0)), 0.3)[0].above.value == 0.5
    with pytest.raises(ValueError, match="at least 2 values"):
        summaries(FLOW, fields(torch.tensor([0.2, 0.4]), torch.tensor([1.0])))


def test_levels_count_by_the_latents_they_have() -> None:
    found = fields(torch.tensor([0.5, 0.5, 0.5, 2.0]), torch.tensor([2.0, 2.0]))
    share = share_above(FLOW, found, generator=torch.Generator().manual_seed(0))
    assert share.value == pytest.approx((12 + 16) / 64)  # each below stands for 12, each above for 8
    assert share.low < share.value < share.high
    assert share_above(FLOW, found, 5.0).value == 0
    with pytest.raises(ValueError, match=r"no latent was measured on the levels \[1\]"):
        share_above(FLOW, fields(torch.tensor([1.0, 2.0]), torch.zeros(0)))


def test_what_the_strongest_hold() -> None:
    equal = fields(torch.ones(48), torch.ones(16))
    assert top_share(FLOW, equal).value == pytest.approx(0.1)
    assert top_share(FLOW, equal, 1.0).value == pytest.approx(1.0)
    strong = torch.full((48,), 1e-6)
    strong[7] = 5.0
    assert top_share(FLOW, fields(strong, torch.full((16,), 1e-6))).value == pytest.approx(1.0)
    # squares 1 below, 9 above: the top quarter is the top level
    mixed = fields(torch.ones(4), torch.full((2,), 3.0))
    assert top_share(FLOW, mixed, 0.25).value == pytest.approx(16 * 9 / (16 * 9 + 48))
    assert top_share(FLOW, mixed, 0.125).value == pytest.approx(8 * 9 / (16 * 9 + 48))
    for part in (0, 1.5):
        with pytest.raises(ValueError, match=rf"part must be in \(0, 1\], not {part}"):
            top_share(FLOW, equal, part)


def test_noise_is_taken_off_the_strength() -> None:
    plain = fields(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]))
    noisy = ReceptiveFields(
        plain.latents, plain.levels, plain.mean, plain.magnitude, torch.tensor([0.0, 0.6, 1.0, 2.0]).double(), 10
    )
    assert noisy.strengths.tolist() == pytest.approx([1.0, 0.8, 0.0, 0.0])
