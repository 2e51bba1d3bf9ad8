"""The spline is a smooth bijection of the line; its inverse and its written-out gradients are those of the formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from rgflow.splines import LEAST, SPAN, inverse_spline, spline


def example(pieces: int, seed: int = 0, spread: float = 1.5, shape: tuple[int, ...] = (5, 40)):
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, spread * torch.randn(3 * pieces - 1, *shape, generator=generator, dtype=torch.float64)


def by_hand(x: float, raw: list[float], pieces: int) -> float:
    """One element, written as in the reference, with plain numbers."""
    q = [v + (v * v + 1) ** 0.5 for v in raw]
    parts = q[:pieces], q[pieces : 2 * pieces]
    widths, heights = ([2 * SPAN * (LEAST + (1 - pieces * LEAST) * v / sum(p)) for v in p] for p in parts)
    slopes = [1.0, *(LEAST + (1 - LEAST) * v for v in q[2 * pieces :]), 1.0]
    if abs(x) > SPAN:
        return x
    xs, ys = ([sum(p[:k]) - SPAN for k in range(pieces + 1)] for p in (widths, heights))
    k = max(k for k in range(pieces) if x >= xs[k])
    theta, sigma = (x - xs[k]) / widths[k], heights[k] / widths[k]
    over = heights[k] * (sigma * theta**2 + slopes[k] * theta * (1 - theta))
    return ys[k] + over / (sigma + (slopes[k] + slopes[k + 1] - 2 * sigma) * theta * (1 - theta))


@pytest.mark.parametrize("pieces", [2, 3, 4, 7])
def test_values_are_those_of_the_formula(pieces):
    x, shape = example(pieces, shape=(60,))
    y, _ = spline(x, shape)
    expected = [by_hand(x[i].item(), shape[:, i].tolist(), pieces) for i in range(len(x))]
    assert_close(y, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("pieces", [2, 3, 4, 7])
def test_gradients_are_those_of_finite_differences(pieces):
    x, shape = example(pieces, shape=(3, 8))
    x, shape = x.requires_grad_(), shape.requires_grad_()
    assert torch.autograd.gradcheck(spline, (x, shape))
    assert torch.autograd.gradcheck(inverse_spline, (x, shape))


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 8), st.integers(0, 10**6), st.floats(0, 4))
def test_the_inverse_undoes_it_and_the_slope_is_the_derivative(pieces, seed, spread):
    x, shape = example(pieces, seed, spread)
    x.requires_grad_()
    y, log_slope = spline(x, shape)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    assert_close(slope.log(), log_slope, rtol=0, atol=1e-10)
    back, log_back = inverse_spline(y.detach(), shape)
    error = (back - x).abs() * slope.clamp_max(1)  # a flat piece loses what its slope loses
    assert error.max() < 1e-10
    flat = log_slope.abs() < 8
    assert_close(log_back[flat], -log_slope[flat], rtol=0, atol=1e-6)


def test_raw_zeros_are_the_identity():
    x, shape = example(4)
    y, log_slope = spline(x, 0 * shape)
    assert_close(y, x, rtol=0, atol=1e-12)
    assert log_slope.abs().max() < 1e-12


def test_the_tails_are_straight_and_every_knot_is_smooth():
    _, shape = example(4, shape=(1,))
    line = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    y, log_slope = spline(line, shape.expand(-1, len(line)))
    far = line.abs() > SPAN
    assert_close(y[far], line[far], rtol=0, atol=1e-12)
    assert log_slope[far].abs().max() < 1e-12
    assert (y.diff() > 0).all()
    assert log_slope.exp().diff().abs().max() < 0.05  # no jump of the slope at any knot
    assert log_slope.abs().max() > 0.5


def test_float32_is_a_bijection_to_rounding():
    x, shape = example(4, spread=1.0, shape=(20_000,))
    y, log_slope = spline(x.float(), shape.float())
    back, log_back = inverse_spline(y, shape.float())
    assert ((back - x).abs() * log_slope.exp().clamp_max(1)).max() < 1e-4
    assert_close(spline(x, shape)[1].float(), log_slope, rtol=0, atol=1e-3)
