"""The effective energy of a coarse lattice as a sum of few operators, that is, by its couplings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OPERATORS = ("x^2", "x^4", "neighbours", "diagonal neighbours")


class Couplings(NamedTuple):
    """An energy fitted by `OPERATORS`.

    Shapes: values and errors (4,), float64, nats.

    Arguments:
        values: the couplings, of the field divided by its root mean square `scale`.
        errors: standard errors of the fit, residuals taken as independent and alike, the scale as exact.
        explained: share of the energy's variance that the fit explains.
        constant: nats.
    """

    values: Tensor
    errors: Tensor
    explained: float
    scale: float
    constant: float


def operators(x: Tensor) -> Tensor:
    r"""The operators of fields, summed over the torus: x (B, 1, H, W) -> (B, 4), in the order of `OPERATORS`,

    .. math:: \sum_i x_i^2, \quad \sum_i x_i^4, \quad \sum_i x_i (x_{i + \to} + x_{i + \downarrow}), \quad
        \sum_i x_i (x_{i + \searrow} + x_{i + \swarrow}).

    On an edge of two sites both bonds of a pair count, as in `energies`, and all four of a diagonal pair.

    Raises:
        ValueError: other shapes, several channels, or an edge of one site.
    """
    if x.ndim != 4 or x.shape[1] != 1 or min(x.shape[2:]) < 2:
        raise ValueError(f"x must be (B, 1, H, W) with edges of at least 2, not {tuple(x.shape)}")
    down = x.roll(-1, -2)
    near = x * (x.roll(-1, -1) + down)
    diagonal = x * (down.roll(-1, -1) + down.roll(1, -1))
    return torch.stack([x.square(), x.square().square(), near, diagonal]).sum((2, 3, 4)).T


def couplings(x: Tensor, energy: Tensor) -> Couplings:
    r"""Fits an energy of fields by few local terms, least squares over draws of the density it belongs to.

    .. math:: E(x) \approx c + \sum_k K_k O_k(x / \sigma), \qquad \sigma^2 = \langle x_i^2 \rangle,

    O the `operators`. A field may be rescaled freely at each level; divided by its root mean square its couplings can
    be compared.

    Shapes: x (B, 1, H, W); energy (B,), nats.

    Raises:
        ValueError: other shapes, or not more draws than the fit has numbers.

    Source: Li & Wang 2018 (arXiv:1802.02840) name the energy of the collective variables; the fit is ours.
    """
    if energy.shape != x.shape[:1] or len(x) <= len(OPERATORS) + 1:
        raise ValueError(
            f"energy must be (B,) of more than {len(OPERATORS) + 1} fields (B, 1, H, W), not {tuple(energy.shape)} of "
            f"{tuple(x.shape)}"
        )
    x, energy = x.double(), energy.double()
    scale = float(x.square().mean().sqrt())
    found = operators(x / scale)
    columns = torch.cat([found - found.mean(0), torch.ones_like(found[:, :1])], 1)
    solution = torch.linalg.lstsq(columns, energy[:, None]).solution[:, 0]
    rest = energy - columns @ solution
    freedom = len(x) - columns.shape[1]
    variance = rest.square().sum() / freedom
    covariance = variance * torch.linalg.pinv(columns.T @ columns, hermitian=True)
    values, errors = solution[:-1], covariance.diagonal()[:-1].clamp_min(0).sqrt()
    explained = 1 - float(rest.square().sum() / (energy - energy.mean()).square().sum())
    return Couplings(values, errors, explained, scale, float(solution[-1] - found.mean(0) @ values))
