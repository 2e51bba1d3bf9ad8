"""Energies of lattice fields against enumeration, quadrature, values by hand and the exact solutions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from rgflow.energies import ENERGIES, Ising, Phi4, free_log_z, free_two_point, ising_energy, ising_log_z
from rgflow.ising import CRITICAL, enumerate_ising, spin_energy

CASES = [Ising(6, 2.5), Phi4(6, 0.27, 0.022), Phi4(6, 0.3, 0.5, channels=2), Phi4(6, 0.2, 0)]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Spins


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.5, 2.0, CRITICAL, 3.0, 5.0])
def test_kaufman_is_enumeration(size, temperature):
    exact = enumerate_ising(size, temperature)
    assert ising_log_z(size, temperature) == pytest.approx(exact.log_z, abs=1e-11)
    assert ising_energy(size, temperature) == pytest.approx(exact.energy, abs=1e-9)


def test_known_values():
    assert ising_log_z(16, 2.269185314213022) == pytest.approx(238.64225663513, abs=1e-10)
    infinite = math.log(2) / 2 + 2 * 0.915965594177219 / math.pi  # Onsager at T_c, with Catalan's constant
    assert ising_log_z(256, CRITICAL) / 256**2 == pytest.approx(infinite, abs=2e-5)
    assert ising_energy(64, CRITICAL) / 64**2 == pytest.approx(-math.sqrt(2), abs=0.02)


def test_cold_and_hot_limits():
    assert ising_log_z(128, 0.01) == pytest.approx(2 * 128**2 / 0.01 + math.log(2))
    assert ising_energy(8, 0.01) == pytest.approx(-128)
    assert ising_log_z(8, 1e6) == pytest.approx(64 * math.log(2))


def test_enumeration_by_hand():
    """2 x 2 spins: H is -8 for 2 states, 8 for 2 and 0 for 12, for both bonds of a pair count."""
    exact, t = enumerate_ising(2, 3.0), 1 / 3
    z = 2 * math.exp(8 * t) + 2 * math.exp(-8 * t) + 12
    assert exact.log_z == pytest.approx(math.log(z))
    assert exact.energy == pytest.approx((-16 * math.exp(8 * t) + 16 * math.exp(-8 * t)) / z)
    assert exact.squared == pytest.approx((2 * math.exp(8 * t) + 8 * 0.25) / z)
    assert exact.two_point[0, 0] == pytest.approx(1)
    assert -8 * exact.two_point[0, 1] == pytest.approx(exact.energy)


def test_two_point_of_enumeration_is_that_of_the_states():
    exact = enumerate_ising(3, 2.0)
    direct = (exact.probability * exact.states[:, 0, 0] * exact.states[:, 2, 1]).sum()
    assert exact.two_point[2, 1] == pytest.approx(float(direct))


# The continuous form


def matrix(size, temperature, offset=0.1):
    """K from a list of bonds, site by site."""
    a = torch.zeros(size, size, size, size, dtype=torch.float64)
    for i, j in itertools.product(range(size), repeat=2):
        for k, m in (((i + 1) % size, j), (i, (j + 1) % size)):
            a[i, j, k, m] += 1
            a[k, m, i, j] += 1
    a = a.view(size**2, size**2) / temperature
    return a + torch.eye(size**2, dtype=torch.float64) * (offset - torch.linalg.eigvalsh(a).min())


@pytest.mark.parametrize(("size", "offset"), [(2, 0.1), (3, 0.2), (4, 0.1)])
def test_ising_is_the_formula_with_matrices(size, offset):
    x = noise(5, 1, size, size)
    flat, k = x.flatten(1), matrix(size, 2.2, offset)
    expected = 0.5 * ((flat @ torch.linalg.inv(k)) * flat).sum(1) - (2 * flat.cosh()).log().sum(1)
    assert_close(Ising(size, 2.2, offset)(x), expected)
    assert matrix(2, 1.0)[0, 1] == 2


def test_ising_by_hand():
    """x = (1, 1, 1, 1) on 2 x 2 is an eigenvector of K, with eigenvalue 8 / T + 0.1."""
    energy = Ising(2, 2.0)(torch.ones(1, 1, 2, 2, dtype=torch.float64))
    assert float(energy) == pytest.approx(4 / (2 * (8 / 2 + 0.1)) - 4 * math.log(2 * math.cosh(1)))


@pytest.mark.parametrize("temperature", [CRITICAL, 4.0])
def test_log_z_of_the_continuous_ising_by_quadrature(temperature):
    """The trapezoidal rule along the four wave vectors of 2 x 2; for such a function it has ten digits."""
    energy = Ising(2, temperature)
    one = torch.tensor([[1.0, 1], [1, -1]], dtype=torch.float64) / math.sqrt(2)
    waves = torch.einsum("ai,bj->abij", one, one).reshape(4, 1, 2, 2)
    widths = energy.spectrum.flatten().sqrt()
    axes = [torch.linspace(-7 - 2 * w, 7 + 2 * w, 33, dtype=torch.float64) * w for w in widths.tolist()]
    rest = torch.cartesian_prod(*axes[1:])
    parts = []
    for first in axes[0]:
        points = torch.cat([first.expand(len(rest), 1), rest], 1)
        parts.append((-energy(torch.einsum("nk,kcij->ncij", points, waves))).logsumexp(0))
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    assert float(torch.stack(parts).logsumexp(0)) + math.log(cell) == pytest.approx(energy.log_z, abs=1e-8)


def test_log_z_of_the_original_program():
    """What NeuralRG's README adds to log Z of the spins, for L = 4, 8 and 16 at T_c; its energy has log cosh x."""
    for size, added in ((4, 21.8548162312), (8, 88.5132354919), (16, 354.233483222)):
        ours = Ising(size, CRITICAL).log_z - ising_log_z(size, CRITICAL)
        assert ours - size**2 * math.log(2) == pytest.approx(added, abs=1e-8)


def test_fields_and_spins_have_their_common_distribution():
    """Fields drawn from exact spins: E[tanh x tanh x'] is E[s s'], and the covariance of x is K C K + K."""
    exact, energy = enumerate_ising(4, 3.0), Ising(4, 3.0)
    generator = torch.Generator().manual_seed(1)
    n = 40000
    states = exact.states[torch.multinomial(exact.probability, n, True, generator=generator)][:, None]
    x = energy.draw_fields(states, generator)
    c = torch.stack([exact.two_point.roll((i, j), (0, 1)) for i in range(4) for j in range(4)]).flatten(1)
    k = matrix(4, 3.0)
    assert_close(x.flatten(1).T @ x.flatten(1) / n, k @ c @ k + k, rtol=0, atol=0.25)  # of 12
    means = x.tanh()
    measured = (means[:, 0, 0, 0] * means[:, 0, 1, 2]).mean()
    assert float(measured) == pytest.approx(float(exact.two_point[1, 2]), abs=0.012)
    spins = energy.draw_spins(x, generator)
    assert spins.unique().tolist() == [-1, 1]
    assert float(spin_energy(spins).mean()) == pytest.approx(exact.energy, abs=0.2)  # 4 standard errors


# phi^4


def test_phi4_by_hand():
    x = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)[None, None]
    hopping = 2 * (1 * 2 + 3 * 4) + 2 * (1 * 3 + 2 * 4)  # both bonds of a pair
    expected = -2 * 0.3 * hopping + (1 - 0.2) * 30 + 0.1 * (1 + 16 + 81 + 256)
    assert float(Phi4(2, 0.3, 0.1)(x)) == pytest.approx(expected)


def test_complex_phi4_by_hand():
    z = torch.tensor([[1 + 1j, 2], [1j, -1 + 2j]], dtype=torch.complex128)
    hopping = sum((z.conj() * z.roll(-1, d)).real.sum() for d in (0, 1))
    expected = -2 * 0.3 * hopping + 0.8 * z.abs().pow(2).sum() + 0.1 * z.abs().pow(4).sum()
    x = torch.stack([z.real, z.imag])[None]
    assert float(Phi4(2, 0.3, 0.1, channels=2)(x)) == pytest.approx(float(expected))


@given(st.floats(0, 6.3), st.integers(0, 99))
def test_complex_phi4_has_a_phase_that_does_not_matter(angle, seed):
    x, energy = noise(2, 2, 4, 4, seed=seed), Phi4(4, 0.3, 0.1, channels=2)
    c, s = math.cos(angle), math.sin(angle)
    turned = torch.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], 1)
    assert_close(energy(turned), energy(x))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kappa", [0.2, -0.24])
def test_free_field_is_the_gaussian_of_its_hessian(channels, kappa):
    energy = Phi4(3, kappa, 0, channels)
    hessian = torch.autograd.functional.hessian(lambda x: energy(x.view(1, *energy.shape)).sum(), noise(9 * channels))
    log_z = 0.5 * (9 * channels * math.log(2 * math.pi) - torch.linalg.slogdet(hessian).logabsdet)
    assert energy.log_z == pytest.approx(float(log_z))
    assert free_log_z(3, kappa, channels) == energy.log_z
    assert_close(torch.linalg.inv(hessian)[0, :9].view(3, 3), free_two_point(3, kappa))


def test_log_z_is_unknown_with_a_coupling():
    assert Phi4(4, 0.2, 0.1).log_z is None


# All of them


@pytest.mark.parametrize("energy", CASES, ids=lambda e: f"{e.name}-{e.shape[0]}")
@given(shift=st.tuples(st.integers(0, 5), st.integers(0, 5)), seed=st.integers(0, 99))
def test_shifts_flips_turns_and_the_sign_change_nothing(energy, shift, seed):
    x = 2 * noise(2, *energy.shape, seed=seed)
    expected = energy(x)
    for same in (x.roll(shift, (-2, -1)), x.flip(-1), x.flip(-2), x.transpose(-1, -2), -x):
        assert_close(energy(same), expected)
    assert (energy(x.roll(1, -1) * torch.tensor([1, -1] * 3)) - expected).abs().min() > 1e-3


@pytest.mark.parametrize("energy", CASES, ids=lambda e: f"{e.name}-{e.shape[0]}")
def test_gradients_and_float32(energy):
    x = noise(2, *energy.shape).requires_grad_()
    assert torch.autograd.gradcheck(energy, x)
    assert_close(energy(x.detach().float()).double(), energy(x.detach()), rtol=1e-5, atol=1e-4)
    assert not list(energy.parameters()) and not energy.state_dict()
    settings = dict(energy.settings)
    assert_close(ENERGIES[settings.pop("energy")](**settings)(x), energy(x))


def test_far_out_nothing_overflows():
    x = torch.full((1, 1, 4, 4), 1e3, dtype=torch.float64)
    assert Ising(4, 2.0)(x).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ising_log_z(1, 2.0), "size must be an integer of at least 2, not 1"),
        (lambda: ising_log_z(4, 0), "temperature must be finite and at least 0.01, not 0"),
        (lambda: ising_energy(4, math.inf), "temperature must be finite"),
        (lambda: enumerate_ising(5, 2.0), "size must be at most 4"),
        (lambda: Ising(4, -1.0), "temperature must be"),
        (lambda: Ising(4, 2.0, 0), "offset must be positive, not 0"),
        (lambda: Phi4(4, 0.25, 0), "with lam 0 between -1/4 and 1/4, not 0.25"),
        (lambda: Phi4(4, 0.2, -1), "lam must be at least 0, not -1"),
        (lambda: Phi4(4, 0.2, 0.1, 3), "channels must be 1 .real. or 2 .complex., not 3"),
        (lambda: free_two_point(4, 0.3), "kappa between -1/4 and 1/4, not 0.3"),
        (lambda: Ising(4, 2.0)(torch.zeros(2, 1, 4, 5)), r"x must be \(B, 1, 4, 4\), not \(2, 1, 4, 5\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
