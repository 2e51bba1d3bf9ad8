"""Priors of variance 1 and temperatures."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from rgflow.priors import PRIORS, temperature_map

LEVELS = torch.tensor([[1, 0], [0, 0]])


@pytest.mark.parametrize(("name", "law"), [("laplace", stats.laplace(0, 0.5**0.5)), ("gaussian", stats.norm())])
def test_density_and_draws_follow_scipy(name: str, law) -> None:
    prior = PRIORS[name]()
    z = torch.linspace(-5, 5, 21, dtype=torch.float64)
    assert_close(prior.log_prob(z), torch.from_numpy(law.logpdf(z.numpy())), rtol=0, atol=1e-12)
    draws = prior.sample((40_000,), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert draws.var().item() == pytest.approx(1, abs=0.05)
    assert stats.kstest(draws.numpy(), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_temperature_is_the_power_of_the_density(name: str, temperature: float) -> None:
    """Draws at T follow p^(1/T): the slope of their log density against log p is 1/T (paper, eq. 12)."""
    prior = PRIORS[name]()
    axis = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    density = (prior.log_prob(axis) / temperature).exp()
    cdf = torch.cumsum(density, 0) / density.sum()
    draws = prior.sample((40_000,), temperature, torch.Generator().manual_seed(2), torch.float64).sort().values
    expected = torch.from_numpy(stats.uniform.ppf((torch.arange(40_000) + 0.5) / 40_000))
    assert (cdf[torch.searchsorted(axis, draws)] - expected).abs().max() < 0.012  # Kolmogorov distance, beyond 99.9 %


def test_temperature_maps() -> None:
    assert temperature_map(0.6, LEVELS) == 0.6
    assert_close(temperature_map([0.2, 0.6], LEVELS), torch.tensor([[0.6, 0.2], [0.2, 0.2]]).double())
    full = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(temperature_map(full, LEVELS), full.double())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0.0, "positive and finite"),
        (-1.0, "positive and finite"),
        (float("nan"), "positive and finite"),
        ([1.0, 1.0, 1.0], r"one number, 2 numbers \(one per level\) or a map \(2, 2\), not of shape \(3,\)"),
    ],
)
def test_bad_temperatures_are_refused(given, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temperature_map(given, LEVELS)
