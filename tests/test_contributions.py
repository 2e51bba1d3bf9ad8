"""What levels contribute to log p: sums, by-hand values, independence of levels; and when a curve has converged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from rgflow import RealNVPConfig, RGFlowConfig, build
from rgflow.batches import Indexed, code_lengths, noise
from rgflow.contributions import bits_by_level, converged, lag, smoothed, still_moving
from rgflow.pictures import Pictures
from rgflow.pixels import to_logit


def awake(**options):
    """A flow with random weights in float64; a fresh one is the identity."""
    flow = build(RGFlowConfig(**{"channels": 2, "size": 16, "nlayers": 2, "nres": 1, "nhidden": 8, **options})).double()
    for weight in flow.parameters():
        nn.init.normal_(weight, std=0.1)
    return flow.requires_grad_(False)


@pytest.mark.parametrize("share", [False, True])
def test_contributions_add_up_to_log_p(share: bool) -> None:
    flow = awake(share_levels=share)
    x = torch.randn(3, 2, 16, 16, dtype=torch.float64)
    parts = flow.log_prob_by_level(x)
    assert parts.shape == (3, 3)
    torch.testing.assert_close(parts.sum(1), flow.log_prob(x), rtol=1e-12, atol=1e-9)


def test_contribution_is_the_step_s_determinant_and_the_prior_of_what_it_leaves() -> None:
    """Level by level, without the hierarchy: the step, its log-determinant, the sites of odd row or column."""
    flow = awake()
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    parts, lattice = flow.log_prob_by_level(x), x
    for level in range(3):
        y, ladj = flow.bijector.step(level)(lattice)
        density = flow.prior.log_prob(y)
        lattice = y[..., ::2, ::2]
        passed_on = density[..., ::2, ::2].sum((1, 2, 3)) if level < 2 else 0
        torch.testing.assert_close(parts[:, level], density.sum((1, 2, 3)) - passed_on + ladj, rtol=1e-12, atol=1e-9)


def test_identity_by_hand() -> None:
    """A fresh flow with a Laplace prior: at x = 0 every latent has log p = -log(2 b)."""
    flow = build(RGFlowConfig(channels=3, size=32, nlayers=1, nres=1, nhidden=4))
    counts = torch.tensor([2304.0, 576.0, 144.0, 48.0])
    expected = -counts * math.log(2 * math.sqrt(0.5))
    torch.testing.assert_close(flow.log_prob_by_level(torch.zeros(1, 3, 32, 32))[0], expected)


def test_upper_contributions_do_not_see_what_is_left_behind_below() -> None:
    """Contributions of levels 1 and up are a density of x(1), whatever level 0 left behind."""
    flow = awake()
    z = torch.randn(1, 2, 16, 16, dtype=torch.float64).expand(2, -1, -1, -1).clone()
    z[1][:, flow.levels == 0] = torch.randn(2, 192, dtype=torch.float64)
    parts = flow.log_prob_by_level(flow.decode(z)[0])
    torch.testing.assert_close(parts[0, 1:], parts[1, 1:], rtol=1e-9, atol=1e-9)
    assert (parts[0, 0] - parts[1, 0]).abs() > 1


def test_bits_are_those_of_the_code_length() -> None:
    flow = awake(channels=1, size=8)
    images = Pictures(torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8))
    found = bits_by_level(flow, images, batch_size=3, seed=5)
    assert found.shape == (7, 2) and found.dtype == torch.float64
    pictures, index = Indexed(images).__getitems__(range(7))
    _, ladj = to_logit(pictures, noise(pictures, 5, 0, index, torch.float64), dtype=torch.float64)
    whole = 8 - ladj / (64 * math.log(2)) + found.sum(1)
    torch.testing.assert_close(whole, code_lengths(flow, images, seed=5), rtol=0, atol=1e-9)
    torch.testing.assert_close(bits_by_level(flow, images, seed=5, indices=[4, 2]), found[[4, 2]])
    with pytest.raises(ValueError, match="no images"):
        bits_by_level(flow, images, indices=[])


def test_real_nvp_has_no_steps() -> None:
    flow = build(RealNVPConfig(channels=1, size=8, nres=1, nhidden=4))
    with pytest.raises(ValueError, match="flow of RealNVP has no RG steps"):
        flow.log_prob_by_level(torch.zeros(1, 1, 8, 8))


def test_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"x must be \(B, 2, 16, 16\), not \(1, 2, 8, 8\)"):
        awake().log_prob_by_level(torch.zeros(1, 2, 8, 8, dtype=torch.float64))


def test_smoothed_by_hand() -> None:
    smooth, end = smoothed([8, 0, 4, 100, 2, 1, 3])
    assert smooth.tolist() == [4, 6, 4, 2, 3, 2.5, 2] and end == (100 + 2 + 1 + 3) / 4
    assert smoothed([2.0, 4.0])[1] == 3.0


def test_converged_by_hand() -> None:
    steps, rest = [0, *(2**k for k in range(11))], [0.0] * 8
    falls = [10.0] * 4 + rest  # running median: 10, 10, 10, 10, 0, ...
    assert converged(steps, falls) == 8
    assert converged(steps, [-v for v in falls]) == 8, "signs do not matter"
    assert converged(steps, [10, 10, 10, 10, 0, 0, 0, 7, *rest[4:]]) == 8, "one value that leaves is noise"
    assert converged(steps, [0, 0, 10, 10, 10, *rest[1:]]) == 16, "what leaves again has not converged"
    assert converged(steps, [1, 1, 1, 11, 11, 11, *[1] * 6]) == 32, "the range counts, not first less last"
    straight = [float(11 - k) for k in range(12)]
    assert converged(steps, straight) == 1024, "what falls to the end has not converged before it"
    assert converged(steps, straight, 0.4) == 32, "10, 9.5, 9, ..., 1.5, 1 of the median, 1.5 at the end"
    assert converged(steps, [3] * 12) == 0


def test_noise_does_not_put_convergence_off() -> None:
    """Levels that are equally slow, of which one is noisy, have converged at about the same time."""
    steps = [1 + 31 * k for k in range(64)]
    curve = np.exp(-np.arange(64) / 8)
    noise = np.random.default_rng(0).normal(size=(200, 64))
    quiet = converged(steps, curve.tolist())
    found = np.array([converged(steps, (curve + 0.02 * e).tolist()) for e in noise])
    assert 0.6 * quiet < np.median(found) < 1.3 * quiet < steps[-1]


def test_still_moving_is_the_last_quarter_of_the_steps() -> None:
    steps = [0, 25, 50, 60, 70, 75, 80, 90, 95, 100]
    straight = [100.0 - step for step in steps]
    smooth, _ = smoothed(straight)
    assert still_moving(steps, straight) == pytest.approx((smooth[5] - smooth[9]) / (smooth[0] - smooth[9]))
    assert still_moving(steps, [9.0] * 5 + [0.0] * 5) == 0 and still_moving(steps, [1.0] * 10) == 0
    with pytest.raises(ValueError, match="steps must rise"):
        still_moving([1, 0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("steps", "curve", "tolerance", "message"),
    [
        ([0, 1], [1.0], 0.05, "steps must rise"),
        ([0], [1.0], 0.05, "at least two"),
        ([1, 0], [1.0, 2.0], 0.05, "steps must rise"),
        ([0, 1], [1.0, math.nan], 0.05, "finite"),
        ([0, 1], [1.0, 2.0], 1.0, "between 0 and 1, not 1.0"),
    ],
)
def test_bad_curves_are_named(steps: list, curve: list, tolerance: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converged(steps, curve, tolerance)


def test_lag_by_hand() -> None:
    assert lag([800, 100, 400, 200]) == 1.0 and lag([100, 400, 50]) == -2.0
    assert lag([4, 0]) == 2.0 and lag([0, 4]) == -2.0
    for steps in ([3], [4, -1]):
        with pytest.raises(ValueError, match="steps must be of two levels or more"):
            lag(steps)
