"""Flows of neural ODEs: the verbs of a flow in one, two and three dimensions, their files, their training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bijectors import wake_up
from torch.testing import assert_close

import rgflow
from rgflow import ODEFlowConfig, build
from rgflow.flow import Flow

SMALL = ODEFlowConfig(channels=1, size=(2, 3), widths=3, nhyper=2, solver="rk4", nsteps=4)


def woken(config: ODEFlowConfig, std: float = 0.3) -> Flow:
    return wake_up(build(config), std)


def test_a_fresh_flow_is_the_identity_and_its_weights_come_from_the_generator() -> None:
    first, again, other = (build(SMALL, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    x = torch.randn(2, 1, 2, 3)
    z, ladj = first.encode(x)
    assert torch.equal(z, x) and not ladj.any()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("size", [(5,), (2, 3), (2, 1, 2)])
def test_the_verbs_in_one_to_three_dimensions(double: None, size: tuple[int, ...]) -> None:
    flow = woken(replace(SMALL, size=size, nsteps=8), 0.2)
    x, log_prob = flow.sample_and_log_prob(3, generator=torch.Generator().manual_seed(0))
    assert x.shape == (3, 1, *size)
    assert_close(flow.log_prob(x), log_prob, rtol=0, atol=1e-4)
    assert_close(flow.log_prob_by_level(x).sum(1), flow.log_prob(x))
    levels = int(flow.levels.max()) + 1
    assert flow.log_prob_by_level(x).shape == (3, levels) and flow.lattices(x)[-1].shape == x.shape
    hot = [0.5] * (levels - 1) + [2.0]
    z, plain = (flow.sample_latents(4, t, torch.Generator().manual_seed(1)) for t in (hot, 1.0))
    assert_close(z, plain * torch.tensor(hot)[flow.levels].sqrt())


@pytest.mark.parametrize("prior", ["gaussian", "laplace"])
def test_total_probability_is_one(double: None, prior: str) -> None:
    flow = woken(replace(SMALL, size=(2,), prior=prior), 0.25)
    axis = torch.linspace(-10, 10, 120)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis)[:, None]).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=5e-3)


def test_a_file_gives_back_the_flow_bit_by_bit(tmp_path: Path) -> None:
    flow, x = woken(replace(SMALL, exact=1, solver="dopri5")), torch.randn(2, 1, 2, 3)
    rgflow.save(flow, tmp_path / "ode.safetensors")
    again = rgflow.load(tmp_path / "ode.safetensors")
    assert again.config == flow.config and torch.equal(again.log_prob(x), flow.log_prob(x))


def test_there_are_no_cones_and_no_other_size() -> None:
    flow = build(SMALL)
    assert not flow.has_cones
    with pytest.raises(ValueError, match="no blocks and no causal cones"):
        _ = flow.geometry
    with pytest.raises(ValueError, match="share_levels"):
        flow.resized(4)
    with pytest.raises(ValueError, match="images must be"):
        build(replace(SMALL, size=(4,))).bits_per_dim(torch.zeros(2, 1, 4, dtype=torch.uint8))
