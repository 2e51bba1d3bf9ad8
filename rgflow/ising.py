"""The Ising model of spins on the torus, exactly: Kaufman's solution for any size, enumeration for small ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rgflow.hierarchy import whole

CRITICAL = 2 / math.log(1 + math.sqrt(2))  # the temperature at which the infinite lattice orders
LARGEST = 4  # edge that can be enumerated
COLDEST = 0.01


def ising_log_z(size: int, temperature: float) -> float:
    r"""Log of the partition function of L x L Ising spins on the torus, nats.

    .. math:: Z = \sum_s e^{-H(s) / T}, \qquad H(s) = -\sum_{\langle ij \rangle} s_i s_j,

    every site having a bond to its right and to its lower neighbour (so on L = 2 both bonds of a pair count). With
    K = 1/T, and :math:`K^*` its dual, :math:`\sinh 2K \sinh 2K^* = 1`,

    .. math:: Z = \tfrac12 (2 \sinh 2K)^{L^2/2} \Bigl[ \prod_r 2 \cosh \tfrac{L \gamma_{2r+1}}{2}
        + \prod_r 2 \sinh \tfrac{L \gamma_{2r+1}}{2} + \prod_r 2 \cosh \tfrac{L \gamma_{2r}}{2}
        + \prod_r 2 \sinh \tfrac{L \gamma_{2r}}{2} \Bigr], \quad r = 0, \dots, L - 1,

    where :math:`\sinh^2(\gamma_l / 2) = \sinh^2(K - K^*) + \sin^2(\pi l / 2L)`, all positive but
    :math:`\gamma_0 = 2 (K - K^*)`, which has a sign: without it Z is wrong above the critical temperature.

    Raises:
        ValueError: a size below 2, or a temperature below 0.01.

    Source: Kaufman 1949, eq. 64 and 65 (the sines here are her cosines rewritten, which lose no digits near T_c).
    """
    beta, size = _checked(size, temperature)
    return float(_log_z(size, torch.tensor(beta, dtype=torch.float64)))


def ising_energy(size: int, temperature: float) -> float:
    """The mean of H, minus the derivative of log Z by 1 / T; arguments and errors as in `ising_log_z`."""
    beta, size = _checked(size, temperature)
    coupling = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(_log_z(size, coupling), coupling)
    return -float(slope)


class Enumerated(NamedTuple):
    """Sums over all states of the spins.

    Shapes: states (S, L, L), -1 or 1; probability (S,); two_point (L, L), the mean of s(0) s(r) by r.

    Arguments:
        log_z: nats.
        energy: mean of H.
        magnetisation, squared: means of abs(m) and m^2, m the mean spin.
    """

    log_z: float
    energy: float
    magnetisation: float
    squared: float
    two_point: Tensor
    states: Tensor
    probability: Tensor


def enumerate_ising(size: int, temperature: float) -> Enumerated:
    """Everything about L x L Ising spins on the torus by summing over their states, L at most 4; H as in `ising_log_z`.

    Raises:
        ValueError: a size that is not 2, 3 or 4, or a temperature below 0.01.
    """
    beta, size = _checked(size, temperature)
    if size > LARGEST:
        raise ValueError(f"the states of {size} x {size} spins are too many: size must be at most {LARGEST}")
    sites = size * size
    bits = torch.arange(2**sites)[:, None] >> torch.arange(sites) & 1
    states = (2.0 * bits.double() - 1).view(-1, size, size)
    energy = spin_energy(states)
    weights = -beta * energy
    p, m = weights.softmax(0), states.mean((1, 2))
    spectrum = (torch.fft.fft2(states).abs().square() * p[:, None, None]).sum(0) / sites
    return Enumerated(
        log_z=float(weights.logsumexp(0)),
        energy=float((p * energy).sum()),
        magnetisation=float((p * m.abs()).sum()),
        squared=float((p * m.square()).sum()),
        two_point=torch.fft.ifft2(spectrum).real,
        states=states,
        probability=p,
    )


def spin_energy(spins: Tensor) -> Tensor:
    """H of spins (..., L, L): minus the sum over sites of s times its right and its lower neighbour; (...)."""
    return -(spins * (spins.roll(-1, -1) + spins.roll(-1, -2))).sum((-1, -2))


def _checked(size: int, temperature: float) -> tuple[float, int]:
    size = whole("size", size, 2)
    return 1 / check_temperature(temperature), size


def check_temperature(temperature: float) -> float:
    """A temperature, finite and at least 0.01 (below it, numbers of e^(1/T) would overflow); else a ValueError."""
    if not (math.isfinite(temperature) and temperature >= COLDEST):
        raise ValueError(f"temperature must be finite and at least {COLDEST}, not {temperature}")
    return float(temperature)


def _log_z(size: int, coupling: Tensor) -> Tensor:
    dual = -0.5 * coupling.tanh().log()
    sines = (math.pi / (2 * size) * torch.arange(1, 2 * size, dtype=torch.float64)).sin()
    gamma = 2 * ((coupling - dual).sinh().square() + sines.square()).sqrt().asinh()  # of l = 1, 2, ..., 2 L - 1
    odd, even, first = size / 2 * gamma[0::2], size / 2 * gamma[1::2], size * (coupling - dual)
    # The one product that can be negative or 0: the factor of gamma_0 is kept out of the logarithm.
    last = torch.exp(first - first.abs()) - torch.exp(-first - first.abs())
    logs = torch.stack([
        _log_cosh(odd).sum(),
        _log_sinh(odd).sum(),
        _log_cosh(even).sum() + _log_cosh(first),
        _log_sinh(even).sum() + first.abs(),
    ])  # fmt: skip
    largest = logs.max().detach()
    terms = (logs - largest).exp()
    total = terms[0] + terms[1] + terms[2] + terms[3] * last
    return total.log() + largest - math.log(2) + size**2 / 2 * _log_sinh(2 * coupling)


def _log_cosh(x: Tensor) -> Tensor:
    """log(2 cosh x)."""
    return torch.logaddexp(x, -x)


def _log_sinh(x: Tensor) -> Tensor:
    """log(2 sinh x) for x > 0."""
    return x + torch.log(-torch.expm1(-2 * x))
