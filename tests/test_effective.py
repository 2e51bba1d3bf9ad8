"""Operators by hand, and couplings of an energy that is made of them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rgflow.effective import OPERATORS, couplings, operators
from rgflow.energies import Phi4


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_operators_by_hand() -> None:
    """3 x 3 sites, ones at (0, 0), (0, 1) and 2 at (1, 1): one bond right, one down, one diagonal."""
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 0] = x[0, 0, 0, 1] = 1
    x[0, 0, 1, 1] = 2
    assert operators(x).tolist() == [[6, 18, 1 + 2, 2]]
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = 1  # the other diagonal
    assert operators(x).tolist() == [[2, 2, 0, 1]]
    assert operators(torch.ones(2, 1, 2, 2))[0].tolist() == [4, 4, 8, 8], "both bonds of a pair"


def test_operators_are_those_of_any_place_and_sign() -> None:
    x = noise(5, 1, 4, 6)
    assert_close(operators(x.roll((1, 3), (-2, -1))), operators(x))
    assert_close(operators(-x), operators(x))


@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_phi4_has_its_couplings(lam: float) -> None:
    """An energy made of these operators comes back, in units of the field's own size."""
    energy, x = Phi4(4, 0.2, lam), 1.7 * noise(400, 1, 4, 4)
    found = couplings(x, energy(x) + 3)
    s = found.scale
    assert s == pytest.approx(float(x.square().mean().sqrt()))
    expected = [(1 - 2 * lam) * s**2, lam * s**4, -2 * 0.2 * s**2, 0]
    assert_close(found.values, torch.tensor(expected, dtype=torch.float64))
    assert found.explained == pytest.approx(1) and found.constant == pytest.approx(3)
    assert float(found.errors.max()) < 1e-9


def test_errors_tell_how_far_off_a_noisy_fit_is() -> None:
    energy, pulls = Phi4(4, 0.2, 0.1), []
    for seed in range(300):
        x = noise(200, 1, 4, 4, seed=seed)
        found = couplings(x, energy(x) + noise(200, seed=1000 + seed))
        s = found.scale
        exact = torch.tensor([0.8 * s**2, 0.1 * s**4, -0.4 * s**2, 0], dtype=torch.float64)
        pulls.append((found.values - exact) / found.errors)
        assert 0 < found.explained < 1
    assert_close(torch.stack(pulls).square().mean(0).sqrt(), torch.ones(4, dtype=torch.float64), rtol=0, atol=0.15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: operators(torch.ones(2, 2, 4, 4)), r"\(B, 1, H, W\) with edges of at least 2, not \(2, 2, 4, 4\)"),
        (lambda: operators(torch.ones(2, 1, 1, 4)), "edges of at least 2"),
        (lambda: couplings(torch.ones(5, 1, 2, 2), torch.ones(5)), "more than 5 fields"),
        (lambda: couplings(torch.ones(9, 1, 2, 2), torch.ones(8)), r"not \(8,\) of \(9, 1, 2, 2\)"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_names() -> None:
    assert operators(torch.ones(1, 1, 4, 4)).shape == (1, len(OPERATORS))
