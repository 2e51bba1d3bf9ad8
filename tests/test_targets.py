"""Densities on a line, the distance of a flow from them, and what a flow learns from draws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad
from torch.testing import assert_close

from rgflow import ODEFlowConfig, RGFlowConfig, build
from rgflow.flow import Flow
from rgflow.targets import BELL, PEAKS, Bumps, divergence, learn

LINE = ODEFlowConfig(channels=1, size=(1,), widths=4, nhyper=2, solver="rk4", nsteps=8, kinetic=0.0, jacobian=0.0)


class Shifted(torch.nn.Module):
    """x -> (x - mean) / width on one site."""

    shape, levels = (1, 1), torch.zeros(1, dtype=torch.int64)

    def __init__(self, mean: float, width: float) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean))
        self.logarithm = torch.nn.Parameter(torch.tensor(math.log(width)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x - self.mean) * (-self.logarithm).exp(), -self.logarithm.expand(len(x))


def normal(mean: float, width: float) -> Flow:
    return Flow(Shifted(mean, width), build(LINE).prior)


@pytest.mark.parametrize("target", [PEAKS, BELL, Bumps((-2, 0, 3), 0.5)])
def test_energy_log_z_and_density_by_quadrature(double: None, target: Bumps) -> None:
    def weight(x: float) -> float:
        return math.exp(-float(target(torch.tensor([[[x]]]))))

    found = quad(weight, *target.ends, points=target.means, limit=200)[0]
    assert math.log(found) == pytest.approx(target.log_z, abs=1e-8)
    x = torch.linspace(-3, 4, 7).view(-1, 1, 1)
    by_hand = sum((-(((x - m) / target.width) ** 2) / 2).exp() for m in target.means).flatten() / found
    assert_close(target.log_prob(x).exp(), by_hand, rtol=1e-7, atol=0)


def test_the_original_examples(double: None) -> None:
    x = torch.tensor([[[1.2]]])
    assert float(BELL(x)) == pytest.approx((1.2 - 1) ** 2 / (2 * (1 / 3) ** 2))
    draws = PEAKS.sample(100, torch.Generator().manual_seed(0)).flatten()
    assert (draws[:50] < 0).all() and (draws[50:] > 0).all()
    many = PEAKS.sample(20_000, torch.Generator().manual_seed(1)).flatten()
    assert float((many.abs() - 1).std()) == pytest.approx(0.1, rel=0.02)
    assert float(many.mean()) == pytest.approx(0, abs=0.01)


def test_divergence_of_two_normals_by_hand(double: None) -> None:
    mean, width = 0.7, 0.5
    found = divergence(BELL, normal(mean, width))
    exact = math.log(width / BELL.width) + (BELL.width**2 + (1 - mean) ** 2) / (2 * width**2) - 0.5
    assert found.value == pytest.approx(exact, abs=1e-9) and found.error < 1e-8
    assert divergence(BELL, normal(1.0, BELL.width)).value == pytest.approx(0, abs=1e-12)
    assert divergence(PEAKS, normal(0.0, 0.2)).total == pytest.approx(1, abs=1e-9)
    assert divergence(BELL, normal(20.0, 0.5)).total < 1e-9, "what lies beyond the ends is not seen"


def test_learning_a_bell_finds_mean_and_width_of_the_draws(double: None) -> None:
    flow, draws = normal(0.0, 1.0), BELL.sample(4000, torch.Generator().manual_seed(2))
    losses = learn(flow, draws, 300, 4000, 0.03)
    assert float(flow.bijector.mean.detach()) == pytest.approx(float(draws.mean()), abs=1e-3)
    assert math.exp(float(flow.bijector.logarithm.detach())) == pytest.approx(float(draws.std(correction=0)), abs=1e-3)
    entropy = math.log(BELL.width * math.sqrt(2 * math.pi * math.e))
    assert losses[-1] == pytest.approx(entropy, abs=0.05) and losses[0] > losses[-1] + 0.5
    assert 0 < divergence(BELL, flow).value < 1e-3


def test_an_ode_learns_with_its_penalties_and_batches_of_its_generator(double: None) -> None:
    draws = PEAKS.sample(40, torch.Generator().manual_seed(0))
    runs = []
    for seed, weight in ((1, 0.0), (1, 0.0), (2, 0.0), (1, 5.0)):
        flow = build(replace(LINE, kinetic=weight), torch.Generator().manual_seed(0))
        runs.append(learn(flow, draws, 20, 8, 0.02, torch.Generator().manual_seed(seed)))
    assert runs[0] == runs[1] and runs[0] != runs[2]
    assert runs[0][0] == runs[3][0], "nothing moves at first"
    assert runs[0][1:] != runs[3][1:] and runs[3][-1] > runs[0][-1]


def test_what_is_not_allowed_is_named() -> None:
    for arguments, message in ((((), 1.0), "means"), (((math.nan,), 1.0), "means"), (((0.0,), 0.0), "width")):
        with pytest.raises(ValueError, match=message):
            Bumps(*arguments)
    with pytest.raises(ValueError, match=r"x must be \(B, 1, 1\)"):
        PEAKS(torch.zeros(2, 1))
    with pytest.raises(ValueError, match="4 k \\+ 1"):
        divergence(BELL, normal(0.0, 1.0), 100)
    with pytest.raises(ValueError, match="the target has fields"):
        divergence(BELL, build(replace(LINE, size=(2,))))
    with pytest.raises(ValueError, match="the draws are"):
        learn(normal(0.0, 1.0), torch.zeros(3, 1, 2), 1, 1)
    with pytest.raises(FloatingPointError, match="not finite at step 0"):
        learn(normal(math.nan, 1.0), torch.zeros(3, 1, 1), 1, 1)


def test_another_solver_for_the_same_weights(double: None) -> None:
    flow = build(replace(LINE, size=(3,), solver="euler", nsteps=1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in flow.parameters():
            weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(2))
    finer = [flow.solved(nsteps=n).log_prob(x) for n in (1, 4, 256)]
    exact = flow.solved(solver="dopri5", rtol=1e-9, atol=1e-9)
    errors = [float((found - exact.log_prob(x)).detach().abs().max()) for found in finer]
    assert_close(finer[0], flow.log_prob(x), rtol=0, atol=0)
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.05 * errors[0]
    assert next(exact.parameters()) is not next(flow.parameters()) and exact.dtype == torch.float64
    with pytest.raises(ValueError, match="solver must be one of"):
        flow.solved(solver="leapfrog")
    with pytest.raises(ValueError, match="ODEFlowConfig"):
        build(RGFlowConfig(size=4, nlayers=1, nres=1, nhidden=2)).solved(rtol=1e-3)
