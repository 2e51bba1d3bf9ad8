"""Energies E(x) of lattice fields, whose densities are e^(-E) / Z, with exact references where there are any."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rgflow import observables
from rgflow.hierarchy import whole
from rgflow.ising import check_temperature, ising_energy, ising_log_z

__all__ = ["ENERGIES", "Energy", "Ising", "Phi4", "free_log_z", "free_two_point", "ising_energy", "ising_log_z"]


class Energy(nn.Module):
    r"""An energy of fields on the L x L torus: :math:`p(x) = e^{-E(x)} / Z`.

    Shapes: x (B, C, L, L) -> E (B,), nats, differentiable.

    Arguments:
        size: L.
        channels: C.

    Raises:
        ValueError: a size below 2.
    """

    name: str
    trajectory = 1.0  # length of an HMC trajectory, in units of the field, that moves the magnetisation

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = whole("size", size, 2)
        self.shape = (channels, self.size, self.size)

    @property
    def log_z(self) -> float | None:
        """Log of the integral of e^(-E), nats; None where it is not known exactly."""
        return None

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What tells this energy from others, by the names of its arguments."""
        raise NotImplementedError

    def energy(self, x: Tensor) -> Tensor:
        """E of checked fields (B, C, L, L); (B,)."""
        raise NotImplementedError

    def squared_magnetisation(self, x: Tensor) -> Tensor:
        """What tells order from disorder, m^2 of the fields (or of the spins behind them): (B, C, L, L) -> (B,)."""
        return observables.squared_magnetisation(x)

    def forward(self, x: Tensor) -> Tensor:
        """E of fields x (B, C, L, L); (B,), nats.

        Raises:
            ValueError: another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must be (B, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}")
        return self.energy(x)


class Ising(Energy):
    r"""The Ising model on the torus as a model of continuous fields: spins are integrated out exactly.

    .. math:: E(x) = \tfrac12 x^T K^{-1} x - \sum_i \log(2 \cosh x_i), \qquad
        K = A / T + c, \quad c = \text{offset} - \text{smallest eigenvalue of } A / T,

    with A the number of bonds between two sites (1 for neighbours; 2 on L = 2, where both bonds of a pair count). From
    :math:`e^{s^T K s / 2} \propto \int e^{-x^T K^{-1} x / 2 + s^T x} dx` follows that given x the spins are
    independent, with means tanh x, and that given s the field is Gaussian, with mean K s and covariance K; and

    .. math:: \log Z_x = \log Z_s + \tfrac{N c}{2} + \tfrac N2 \log 2\pi + \tfrac12 \log\det K, \qquad N = L^2.

    Shapes: x (B, 1, L, L).

    Arguments:
        size: L, at least 2.
        temperature: T, in units of the bond; `ising.CRITICAL` is the critical one.
        offset: smallest eigenvalue of K.

    Raises:
        ValueError: a size below 2, a temperature below 0.01 or an offset that is not positive.

    Source: Li & Wang 2018 (arXiv:1802.02840), eq. 7-9, after Fisher 1983; Hubbard 1959 and Stratonovich 1957.
    """

    name = "ising"
    trajectory = 8.0  # fields are of the size of K s, about 3: with 1, chains stay where they began for long

    def __init__(self, size: int, temperature: float, offset: float = 0.1) -> None:
        super().__init__(size, 1)
        self.temperature, self.offset = check_temperature(temperature), _positive("offset", offset)
        bonds = _bonds(self.size) / self.temperature
        self.diagonal = self.offset - float(bonds.min())
        self.register_buffer("spectrum", bonds + self.diagonal, persistent=False)

    @property
    def log_z(self) -> float:
        sites = self.size**2
        gauss = 0.5 * (sites * math.log(2 * math.pi) + float(self.spectrum.double().log().sum()))
        return ising_log_z(self.size, self.temperature) + 0.5 * sites * self.diagonal + gauss

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {"energy": self.name, "size": self.size, "temperature": self.temperature, "offset": self.offset}

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * _quadratic(x, 1 / self.spectrum) - torch.logaddexp(x, -x).sum((1, 2, 3))

    def squared_magnetisation(self, x: Tensor) -> Tensor:
        return observables.spin_squared_magnetisation(x)

    def draw_spins(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws spins given fields, -1 or 1, of the shape and type of x."""
        chance = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return torch.where(chance < (2 * x).sigmoid(), 1.0, -1.0).to(x.dtype)

    def draw_fields(self, spins: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws fields given spins, of their shape and type: K s plus noise of covariance K."""
        noise = torch.randn(spins.shape, dtype=spins.dtype, device=spins.device, generator=generator)
        return _filtered(spins, self.spectrum) + _filtered(noise, self.spectrum.sqrt())


class Phi4(Energy):
    r"""Lattice phi^4, real or complex; the free field with lambda = 0.

    .. math:: E(\phi) = \sum_i \Bigl[ -2 \kappa \sum_{\mu} \phi_i \cdot \phi_{i + \mu} + (1 - 2 \lambda) |\phi_i|^2
        + \lambda |\phi_i|^4 \Bigr],

    with :math:`\mu` the steps right and down: each bond counts once (on L = 2 both bonds of a pair). A complex field
    is two channels, its real and imaginary part, and :math:`\phi \cdot \phi' = \mathrm{Re}(\phi^* \phi')`.

    Shapes: x (B, 1, L, L) real, (B, 2, L, L) complex.

    Arguments:
        size: L, at least 2.
        kappa: hopping parameter.
        lam: the coupling lambda, at least 0.
        channels: 1 real, 2 complex.

    Raises:
        ValueError: a value that is not allowed; lambda = 0 with abs(kappa) of 1/4 or more, where Z is infinite.

    Source: the lattice convention of Montvay & Muenster 1994, eq. 2.6 (complex phi: their n = 2 components).
    """

    name = "phi4"

    def __init__(self, size: int, kappa: float, lam: float, channels: int = 1) -> None:
        if channels not in (1, 2):
            raise ValueError(f"channels must be 1 (real) or 2 (complex), not {channels!r}")
        if not (math.isfinite(lam) and lam >= 0):
            raise ValueError(f"lam must be at least 0, not {lam}")
        if not math.isfinite(kappa) or (lam == 0 and abs(kappa) >= 0.25):
            raise ValueError(f"kappa must be finite, and with lam 0 between -1/4 and 1/4, not {kappa}")
        super().__init__(size, channels)
        self.kappa, self.lam = float(kappa), float(lam)

    @property
    def log_z(self) -> float | None:
        return free_log_z(self.size, self.kappa, self.shape[0]) if self.lam == 0 else None

    @property
    def settings(self) -> dict[str, str | int | float]:
        numbers = {"kappa": self.kappa, "lam": self.lam, "channels": self.shape[0]}
        return {"energy": self.name, "size": self.size, **numbers}

    def energy(self, x: Tensor) -> Tensor:
        hopping = (x * (x.roll(-1, -1) + x.roll(-1, -2))).sum((1, 2, 3))
        square = x.square().sum(1)
        local = (1 - 2 * self.lam) * square + self.lam * square.square()
        return local.sum((1, 2)) - 2 * self.kappa * hopping


ENERGIES = {kind.name: kind for kind in (Ising, Phi4)}


def free_log_z(size: int, kappa: float, channels: int = 1) -> float:
    r"""Log Z of `Phi4` with lambda = 0, nats: for each channel

    .. math:: \log Z = \tfrac12 \sum_k \log \frac{2 \pi}{M_k}, \qquad M_k = 2 - 4 \kappa (\cos k_1 + \cos k_2), \quad
        k_\mu \in \tfrac{2 \pi}{L} \{0, \dots, L - 1\}.

    Raises:
        ValueError: a size below 2, or kappa not between -1/4 and 1/4.
    """
    return 0.5 * channels * float((2 * math.pi / _free_spectrum(size, kappa)).log().sum())


def free_two_point(size: int, kappa: float) -> Tensor:
    r"""The mean of phi(0) phi(r) in each channel of `Phi4` with lambda = 0, :math:`\sum_k \cos(k r) / (L^2 M_k)`, by r;
    (L, L), float64. Errors as in `free_log_z`."""
    return torch.fft.ifft2(1 / _free_spectrum(size, kappa)).real


def _free_spectrum(size: int, kappa: float) -> Tensor:
    if not abs(kappa) < 0.25:
        raise ValueError(f"the free field needs a kappa between -1/4 and 1/4, not {kappa}")
    return 2 - 2 * kappa * _bonds(whole("size", size, 2))


def _bonds(size: int) -> Tensor:
    """Eigenvalues of A by wave vector, 2 cos k_1 + 2 cos k_2; (L, L), float64."""
    cosines = 2 * (2 * math.pi / size * torch.arange(size, dtype=torch.float64)).cos()
    return cosines[:, None] + cosines


def _quadratic(x: Tensor, spectrum: Tensor) -> Tensor:
    """x^T M x summed over channels, M with these eigenvalues by wave vector; (B,)."""
    waves = torch.fft.fft2(x, norm="ortho")
    return ((waves.real.square() + waves.imag.square()) * spectrum.to(x.dtype)).sum((1, 2, 3))


def _filtered(x: Tensor, spectrum: Tensor) -> Tensor:
    """M x, M with these eigenvalues by wave vector."""
    return torch.fft.ifft2(torch.fft.fft2(x) * spectrum.to(x.dtype)).real


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive, not {value}")
    return float(value)
