"""What is measured on lattice fields: magnetisation, structure factor, two-point function; of fields and of spins."""

from __future__ import annotations

import torch
from torch import Tensor


def magnetisation(x: Tensor) -> Tensor:
    """Mean over the sites, channel by channel: x (B, C, H, W) -> (B, C)."""
    return x.mean((2, 3))


def squared_magnetisation(x: Tensor) -> Tensor:
    """m^2 summed over channels: x (B, C, H, W) -> (B,)."""
    return magnetisation(x).square().sum(1)


def structure_factor(x: Tensor) -> Tensor:
    r"""Power by wave vector, summed over channels: x (B, C, H, W) -> (B, H, W), zero wave vector first.

    .. math:: S(k) = \frac1N \Bigl| \sum_j x_j e^{-i k j} \Bigr|^2
    """
    waves = torch.fft.fft2(x)
    return (waves.real.square() + waves.imag.square()).sum(1) / x[0, 0].numel()


def two_point(x: Tensor) -> Tensor:
    r"""Correlations averaged over the lattice, summed over channels: x (B, C, H, W) -> (B, H, W) by distance r.

    .. math:: G(r) = \frac1N \sum_j x_j x_{j + r}

    on the torus; the Fourier transform of `structure_factor`.
    """
    return torch.fft.ifft2(structure_factor(x)).real


def spin_two_point(x: Tensor) -> Tensor:
    """`two_point` of the spins of `energies.Ising`, averaged over spins given the field: x (B, 1, L, L) -> (B, L, L).

    Given x the spins are independent with means tanh x: products of means, and 1 at distance 0.
    """
    found = two_point(x.tanh())
    found[:, 0, 0] = 1
    return found


def spin_squared_magnetisation(x: Tensor) -> Tensor:
    """m^2 of the spins of `energies.Ising`, averaged over spins given the field: x (B, 1, L, L) -> (B,)."""
    means = x.tanh()
    return squared_magnetisation(means) + (1 - means.square()).mean((1, 2, 3)) / x[0].numel()
