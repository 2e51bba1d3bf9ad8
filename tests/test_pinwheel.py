"""The two-pixel toy: its flows trained side by side, and the exact target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bijectors import assert_bijector, wake_up
from torch.testing import assert_close

from rgflow import pinwheel, synthetic
from rgflow.pinwheel import Ensemble, Job, Recipe

SMALL = Recipe(layers=3, nhidden=8, steps=60, batch=64, rate=2e-2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prior", ["laplace", "gaussian"])
def test_total_probability_is_one(prior):
    flow = wake_up(pinwheel.two_pixel_flow(prior, SMALL).double())
    assert_bijector(flow.bijector, torch.randn(3, 1, 1, 2, dtype=torch.float64))
    axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=2e-3)


def test_an_ensemble_is_its_flows_side_by_side():
    kinds = ["laplace", "gaussian", "laplace"]
    flows = [pinwheel.two_pixel_flow(kind, SMALL, seeded(s)).double() for s, kind in enumerate(kinds)]
    for s, flow in enumerate(flows):
        for weight in flow.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=seeded(s))
    ensemble, points = Ensemble(flows), torch.randn(3, 5, 2, dtype=torch.float64)
    images, ladj = ensemble.decode(points)
    for k, flow in enumerate(flows):
        for one in (flow, ensemble.flow(k)):
            assert type(one.prior).__name__.lower() == kinds[k]
            x, one_ladj = one.decode(points[k].view(-1, 1, 1, 2))
            assert_close(images[k], x.view(-1, 2))
            assert_close(ladj[k], one_ladj)
            assert_close(ensemble.log_prob(points)[k], one.log_prob(points[k].view(-1, 1, 1, 2)))
    assert_close(ensemble.encode(images)[0], points)
    assert (images[0] - images[2]).abs().max() > 0.1


def test_target_density_integrates_to_one_and_agrees_with_a_histogram():
    axis = torch.linspace(-5, 5, 201)
    density = pinwheel.target_log_prob(torch.cartesian_prod(axis, axis), cells=128).exp().view(201, 201) * 0.05**2
    assert float(density.sum()) == pytest.approx(1, abs=1e-3)
    x = synthetic.pinwheel(200_000, seeded(0))[0]
    edges = np.linspace(-4.025, 3.975, 33)  # five points of the grid each
    shares = np.histogram2d(*x.numpy().T, [edges, edges])[0] / len(x)
    exact = density[20:180, 20:180].reshape(32, 5, 32, 5).sum((1, 3)).numpy()
    assert np.abs(shares - exact).max() < 5 * math.sqrt(exact.max() / len(x))
    assert np.abs(shares - exact).sum() < 0.05


@pytest.mark.parametrize("t", [0.0, 0.2, -0.15])
def test_target_density_by_hand(t):
    # Leg 1 at r = 1.3, the others being far: the blob's density N(1.3; 1, 0.3) N(t; 0, 0.1) over the map's
    # factor c^2 (1 - 0.25 e^r t)
    r, angle = 1.3, 0.25 * math.exp(1.3) + math.pi / 2
    c2 = 2 / (1 + 0.09 + 0.01)
    cos, sin = math.cos(angle), math.sin(angle)
    x = torch.tensor([[r * cos - t * sin, r * sin + t * cos]], dtype=torch.float64) * math.sqrt(c2)
    blob = math.exp(-0.5 - 0.5 * (t / 0.1) ** 2) / (2 * math.pi * 0.3 * 0.1)
    by_hand = blob / 4 / c2 / (1 - 0.25 * math.exp(1.3) * t)
    assert float(pinwheel.target_log_prob(x)[0]) == pytest.approx(math.log(by_hand), abs=1e-6)
    assert pinwheel.nearest_leg(x).tolist() == [1]


def test_nearest_leg_is_the_leg_drawn():
    x, leg = synthetic.pinwheel(20_000, seeded(1))
    assert (pinwheel.nearest_leg(x) == leg).float().mean() > 0.98
    quarter = pinwheel.nearest_leg(pinwheel.turned(x.double(), 90.0))
    assert (quarter == (pinwheel.nearest_leg(x.double()) + 1) % 4).float().mean() > 0.999


def test_turned():
    points = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    wanted = torch.tensor([[[0.0, 1.0]], [[-1.0, 0.0]]])
    assert_close(pinwheel.turned(points, torch.tensor([90.0, 180.0])), wanted, rtol=0, atol=1e-6)


def test_training_learns_and_does_not_depend_on_its_neighbours():
    job = Job("gaussian", 5)
    alone, pair = pinwheel.train([job], SMALL), pinwheel.train([Job("gaussian", 5, 45.0), job], SMALL)
    x = synthetic.pinwheel(500, seeded(0))[0]
    both = torch.stack([pinwheel.turned(x, 45.0), x])  # each flow has learned its own target
    own, other = pair.log_prob(both).mean(1), pair.log_prob(both.flip(0)).mean(1)
    assert (own > other + 0.05).all()
    assert_close(pair.log_prob(x.expand(2, -1, -1))[1], alone.log_prob(x[None])[0], rtol=0, atol=0.02)
    fresh = Ensemble([pinwheel.two_pixel_flow("gaussian", SMALL)])
    assert alone.log_prob(x[None]).mean() > fresh.log_prob(x[None]).mean() + 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pinwheel.two_pixel_flow("cauchy", SMALL), "prior must be one of laplace, gaussian, not 'cauchy'"),
        (lambda: Recipe(steps=0), "steps must be at least 1, not 0"),
        (lambda: Recipe(rate=0), "rate must be positive, not 0"),
        (lambda: Ensemble([]), "at least one flow"),
        (lambda: pinwheel.train([], SMALL), "at least one flow"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
