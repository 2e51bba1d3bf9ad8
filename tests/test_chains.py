"""Weights, autocorrelation, chains and observables against what is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from bijectors import wake_up
from torch import nn
from torch.testing import assert_close

from rgflow import observables
from rgflow.autocorrelation import autocorrelation_time, chain_mean, split_r_hat
from rgflow.chains import hmc_chains, latent_density, metropolis
from rgflow.energies import Ising, Phi4, free_two_point
from rgflow.flow import Flow, RGFlowConfig, build
from rgflow.importance import (
    effective_share,
    free_energy,
    log_z,
    metropolis_acceptance,
    weighted_draws,
    weighted_mean,
)
from rgflow.ising import enumerate_ising, spin_energy
from rgflow.priors import Gaussian

FREE = Phi4(4, 0.1, 0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Identity(nn.Module):
    """z = x / width."""

    def __init__(self, width=1.0, shape=(1, 4, 4)):
        super().__init__()
        self.width, self.shape = nn.Parameter(torch.tensor(width, dtype=torch.float64)), shape
        self.register_buffer("levels", torch.zeros(shape[1:], dtype=torch.int64))

    def forward(self, x):
        return x / self.width, -x[0].numel() * self.width.log().expand(len(x))

    def inverse(self, z):
        return z * self.width, z[0].numel() * self.width.log().expand(len(z))


def gaussian(width=0.75):
    """Draws of N(0, width^2): close to the free field, and not it."""
    return Flow(Identity(width), Gaussian())


def within(estimate, exact, errors=4):
    assert abs(estimate.value - exact) < errors * estimate.standard_error, (estimate, exact)


# Observables


def test_observables_by_hand():
    x = torch.tensor([[[[1.0, 2], [3, 6]]]], dtype=torch.float64)
    assert observables.magnetisation(x).tolist() == [[3.0]]
    assert observables.squared_magnetisation(x).tolist() == [9.0]
    assert observables.structure_factor(x)[0].tolist() == [[36.0, 4.0], [9.0, 1.0]]
    assert_close(observables.two_point(x)[0, 0, 1], torch.tensor((2 * 2 + 2 * 18) / 4, dtype=torch.float64))


def test_observables_of_several_channels_are_sums():
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    for of in (observables.squared_magnetisation, observables.structure_factor, observables.two_point):
        assert_close(of(x), of(x[:, :1]) + of(x[:, 1:]))
    found, direct = observables.two_point(x)[:, 1, 2], (x * x.roll((-1, -2), (2, 3))).sum((1, 2, 3)) / 24
    assert_close(found, direct)
    assert_close(observables.structure_factor(x)[:, 0, 0], 24 * observables.squared_magnetisation(x))


def test_observables_of_spins_are_means_over_spins_given_the_field():
    x, energy = torch.randn(1, 1, 4, 4, dtype=torch.float64), Ising(4, 3.0)
    spins = energy.draw_spins(x.expand(50000, -1, -1, -1), seeded())
    assert_close(observables.spin_two_point(x)[0], observables.two_point(spins).mean(0), rtol=0, atol=0.01)
    squared = energy.squared_magnetisation(x)
    assert_close(squared[0], observables.squared_magnetisation(spins).mean(), rtol=0, atol=0.002)
    assert_close(observables.spin_two_point(x).mean((1, 2)), squared)
    assert_close(FREE.squared_magnetisation(x), observables.squared_magnetisation(x))


# Weights


def test_weights_by_hand():
    weights = torch.tensor([1.0, 2, 3, 6], dtype=torch.float64)
    logs = weights.log() + 100
    assert float(effective_share(logs)) == pytest.approx(144 / (4 * 50))
    assert free_energy(logs).value == pytest.approx(-float(weights.log().mean()) - 100)
    variance = float((weights / 3).var()) / 4
    assert log_z(logs) == pytest.approx((100 + math.log(3) + variance / 2, math.sqrt(variance)))
    values = torch.tensor([1.0, 0, 0, 1], dtype=torch.float64)
    mean = 7 / 12
    error = math.sqrt(sum((w / 12 * (v - mean)) ** 2 for w, v in zip(weights.tolist(), values.tolist(), strict=True)))
    assert weighted_mean(values, logs) == pytest.approx((mean, error))


def test_equal_weights_are_plain_means():
    logs, values = torch.full((10,), -7.0), torch.arange(10.0)
    assert float(effective_share(logs)) == pytest.approx(1)
    assert log_z(logs) == pytest.approx((-7, 0), abs=1e-6)
    assert weighted_mean(values, logs).value == pytest.approx(4.5)


def test_acceptance_by_hand():
    """Of all ordered pairs of different draws the smaller weight, over the mean weight."""
    weights = torch.tensor([3.0, 1, 6, 2], dtype=torch.float64)
    pairs = [min(a, b) for i, a in enumerate(weights.tolist()) for j, b in enumerate(weights.tolist()) if i != j]
    assert metropolis_acceptance(weights.log() - 50) == pytest.approx(sum(pairs) / 12 / 3)
    assert metropolis_acceptance(torch.full((9,), 4.0)) == pytest.approx(1)


def test_log_z_and_means_of_the_free_field_from_another_gaussian():
    draws = weighted_draws(gaussian(), FREE, 20000, seeded(), batch=3000)
    assert draws.x.shape == (20000, 1, 4, 4)
    within(log_z(draws.log_weights), FREE.log_z)
    assert 0.1 < float(effective_share(draws.log_weights)) < 0.9
    free = free_energy(draws.log_weights)
    assert free.value > -FREE.log_z + 4 * free.standard_error
    for r in ((0, 0), (0, 1), (1, 2)):
        values = observables.two_point(draws.x)[:, *r]
        within(weighted_mean(values, draws.log_weights), float(free_two_point(4, 0.1)[r]))


def test_log_z_of_few_draws_is_right_on_average():
    """The mean weight of 10 draws, many times over, is Z; the half variance takes most of the bias of its logarithm."""
    draws = weighted_draws(gaussian(), FREE, 40000, seeded(1))
    parts = draws.log_weights.view(-1, 10)
    corrected = torch.tensor([log_z(part).value for part in parts]).mean() - FREE.log_z
    plain = (parts.logsumexp(1) - math.log(10)).mean() - FREE.log_z
    assert plain < -0.018 and abs(corrected) < 0.012


# Autocorrelation


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_autocorrelation_of_a_known_chain(memory):
    noise = torch.randn(8000, 8, generator=seeded(), dtype=torch.float64)
    values = [noise[0]]
    for kick in noise[1:]:
        values.append(memory * values[-1] + math.sqrt(1 - memory**2) * kick)
    values = 5 + torch.stack(values)
    found = autocorrelation_time(values)
    exact = (1 + memory) / (1 - memory)
    assert found.time == pytest.approx(exact, abs=4 * found.standard_error)
    assert found.standard_error < 0.1 * exact and 5 * exact < 1.5 * found.window + 5
    within(chain_mean(values), 5)
    assert chain_mean(values).standard_error == pytest.approx(math.sqrt(exact / 64000), rel=0.15)
    assert split_r_hat(values) == pytest.approx(1, abs=0.01)


def test_chains_that_differ_do_not_agree():
    values = torch.randn(200, 4, generator=seeded())
    assert split_r_hat(values) < 1.02 < 1.3 < split_r_hat(values + torch.arange(4.0))
    drifting = values + torch.linspace(0, 3, 200)[:, None]
    assert split_r_hat(drifting) > 1.2
    with pytest.raises(ValueError, match="too short"):
        autocorrelation_time(torch.arange(30.0))


# Chains


def test_hmc_of_the_free_field():
    x = torch.zeros(50, 1, 4, 4, dtype=torch.float64)
    chains = hmc_chains(lambda y: -FREE(y), x, 300, observables.two_point, generator=seeded())
    assert chains.values.shape == (300, 50, 4, 4) and chains.last.shape == x.shape
    assert 0.65 < chains.acceptance < 0.95
    assert chains.leaps * chains.step == pytest.approx(1, abs=0.3)
    for r in ((0, 0), (0, 1), (2, 1)):
        within(chain_mean(chains.values[:, :, *r]), float(free_two_point(4, 0.1)[r]))


def test_hmc_of_the_ising_model_in_fields_and_in_latents():
    """Both give the energy and m^2 of the spins that enumeration gives; with the identity they are the same chains."""
    energy, exact = Ising(4, 6.0), enumerate_ising(4, 6.0)

    def observe(x):
        return torch.stack([spin_energy(x.tanh())[:, 0], observables.spin_squared_magnetisation(x)], 1)

    config = RGFlowConfig(channels=1, size=4, block=2, nlayers=1, net="plain", nhidden=4, prior="gaussian")
    flow = wake_up(build(config).double(), 0.1)
    x = torch.randn(40, 1, 4, 4, generator=seeded(), dtype=torch.float64)
    how = {"burn": 30, "length": 2.0, "step": 0.3}
    plain = hmc_chains(lambda y: -energy(y), x, 120, observe, **how, generator=seeded(1))
    inside = hmc_chains(
        latent_density(flow, energy), x, 120, lambda z: observe(flow.decode(z)[0]), **how, generator=seeded(2)
    )
    for chains in (plain, inside):
        within(chain_mean(chains.values[..., 0]), exact.energy)
        within(chain_mean(chains.values[..., 1]), exact.squared)
    same = [
        hmc_chains(density, x, 3, burn=2, generator=seeded(3)).last
        for density in (lambda y: -energy(y), latent_density(gaussian(1.0), energy))
    ]
    assert_close(*same)


def test_latent_density_knows_the_volume():
    """At width w it is -E(w z) + D log w."""
    z = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    assert_close(latent_density(gaussian(0.5), FREE)(z), -FREE(z / 2) + 16 * math.log(0.5))


def test_metropolis_of_the_free_field():
    chains = metropolis(gaussian(), FREE, 600, 60, observables.two_point, seeded())
    assert chains.values.shape == (600, 60, 4, 4)
    for r in ((0, 0), (0, 1)):
        within(chain_mean(chains.values[:, :, *r]), float(free_two_point(4, 0.1)[r]))
    assert 0.2 < chains.acceptance < 0.9
    moved = (chains.values[1:, :, 0, 0] != chains.values[:-1, :, 0, 0]).double().mean()
    assert float(moved) == pytest.approx(chains.acceptance, abs=0.02)
    weights = weighted_draws(gaussian(), FREE, 20000, seeded(1)).log_weights
    assert metropolis_acceptance(weights) == pytest.approx(chains.acceptance, abs=0.02)


def test_metropolis_with_the_target_itself_takes_everything():
    class Exact:
        def sample_and_log_prob(self, n, generator=None):
            x = torch.randn(n, 1, 4, 4, generator=generator, dtype=torch.float64) * math.sqrt(0.5)
            return x, -Phi4(4, 0, 0)(x) - Phi4(4, 0, 0).log_z

    assert metropolis(Exact(), Phi4(4, 0, 0), 5, 7, generator=seeded()).acceptance == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weighted_draws(gaussian(), FREE, 0), "n and batch must be at least 1, not 0"),
        (lambda: log_z(torch.zeros(1)), "at least 2 weights"),
        (lambda: weighted_mean(torch.zeros(3), torch.zeros(2)), r"values must be \(2,\)"),
        (lambda: autocorrelation_time(torch.zeros(20)), "all the same"),
        (lambda: autocorrelation_time(torch.zeros(5)), "at least 10 steps, not .5,."),
        (lambda: split_r_hat(torch.full((20,), math.nan)), "values must be finite"),
        (lambda: hmc_chains(lambda y: -FREE(y), torch.zeros(1, 1, 4, 4), 1, target=1.0), "target in .0, 1."),
        (lambda: metropolis(gaussian(), FREE, 1, 0), "n and chains must be at least 1, not 1 and 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_chains_must_start_where_the_density_is():
    with pytest.raises(FloatingPointError, match="not finite where the chains start"):
        hmc_chains(lambda y: -FREE(y), torch.full((1, 1, 4, 4), math.inf), 1)


def test_metropolis_of_fields_with_other_axes():
    """A model of lines, (B, C, L): the chains keep that shape, and nothing is mixed between them."""

    class Lines:
        def sample_and_log_prob(self, n, *, generator=None):
            x = torch.randn(n, 1, 4, generator=generator, dtype=torch.float64)
            return x, -0.5 * x.square().sum((1, 2))

    chains = metropolis(
        Lines(), lambda x: 0.5 * x.square().sum((1, 2)), 2, 3, generator=torch.Generator().manual_seed(0)
    )
    assert chains.last.shape == (3, 1, 4) and chains.values.shape == (2, 3, 1, 4) and chains.acceptance == 1
