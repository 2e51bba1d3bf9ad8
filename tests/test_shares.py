"""Weights of sources in what is made of them, and their difference for two factors, on made-up factors."""

from __future__ import annotations

import pytest
import torch

from rgflow import shares


def triple(w_a: float, w_b: float, noise: float = 0.0, seed: int = 0, count: int = 400) -> shares.Triple:
    a, b, e = torch.randn(3, count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return shares.Triple(w_a * a + w_b * b + noise * e + torch.arange(5.0), a + 100, b - 7 * torch.arange(5.0))


def test_weights_are_those_the_factors_were_made_with() -> None:
    exact = shares.weights(triple(0.7, -0.2))
    assert exact.first == pytest.approx((0.7, 0.7, 0.7)) and exact.second == pytest.approx((-0.2, -0.2, -0.2))
    assert exact.pairs == 400 and exact.explained == pytest.approx((1, 1, 1))
    noisy = shares.weights(triple(0.7, -0.2, 1.0), torch.Generator().manual_seed(1))
    width = noisy.first.high - noisy.first.low
    assert noisy.first.low < 0.7 < noisy.first.high and width == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.25)


def test_weights_of_dependent_sources_are_not_confused() -> None:
    """A factor shared by both sources must not be given to the wrong one."""
    made, a, b = triple(0.9, 0.1, 0.3)
    found = shares.weights(shares.Triple(made + 0.1 * 0.8 * a, a, b + 0.8 * a), torch.Generator().manual_seed(0))
    assert found.first.value == pytest.approx(0.9, abs=0.03) and found.second.value == pytest.approx(0.1, abs=0.03)


def test_explained_is_the_share_that_does_not_scatter() -> None:
    """Slopes that are exact may explain little: variances 0.36 + 0.09 of both sources beside 0.55 of neither."""
    found = shares.weights(triple(0.6, 0.3, 0.55**0.5, count=4000), torch.Generator().manual_seed(0))
    assert found.explained.value == pytest.approx(0.45, abs=0.02)
    assert found.explained.low < 0.45 < found.explained.high < 0.48
    constant = shares.weights(shares.Triple(torch.ones(9, 2), *torch.randn(2, 9, 2)))
    assert constant.explained == (0, 0, 0) and constant.first == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_draws_of_the_weights_are_their_own() -> None:
    given = torch.Generator().manual_seed(3)
    shares.weights(triple(0.7, 0.1, 1.0), given, draws=50)
    again = torch.Generator().manual_seed(3)
    torch.randint(400, (2 * 50, 400), generator=again)
    assert torch.equal(given.get_state(), again.get_state())


def test_separation_is_a_difference_of_weights_and_of_that_to_a_control() -> None:
    coarse, fine = triple(0.9, 0.1, 0.5, seed=1), triple(0.2, 0.8, 0.5, seed=2)
    control = triple(0.5, 0.5, 0.5, seed=3), triple(0.6, 0.4, 0.5, seed=4)
    alone = shares.separation(coarse, fine, generator=torch.Generator().manual_seed(0))
    assert alone.value == pytest.approx(0.7, abs=0.05) and alone.low < 0.7 < alone.high
    beside = shares.separation(coarse, fine, control, torch.Generator().manual_seed(0))
    assert beside.value == pytest.approx(0.8, abs=0.07) and beside.low < 0.8 < beside.high
    assert shares.separation(coarse, coarse).low == shares.separation(coarse, coarse).high == 0  # the same draws
    with pytest.raises(ValueError, match=r"of the same pairs, not of \[400, 300\]"):
        shares.separation(coarse, triple(1, 0, count=300))


def test_factors_of_other_shapes_are_refused() -> None:
    good = torch.zeros(4, 2)
    for wrong in ((good, good, good[:3]), (good[:2], good[:2], good[:2]), (good[0], good[0], good[0])):
        with pytest.raises(ValueError, match="three of one shape"):
            shares.weights(shares.Triple(*wrong))
