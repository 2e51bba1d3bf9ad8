"""Factorised priors of variance 1, with a temperature per site."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Laplace(nn.Module):
    r"""The sparse prior: :math:`p(z) = e^{-|z|/b} / 2b` with :math:`b = 1/\sqrt 2`, so that the variance is 1.

    At temperature T the density is :math:`p^{1/T}` normalised: the same with b T in the place of b.

    Source: paper, sec. 3 "Sparse prior distribution" and eq. 12, 13 (which has b = 1; the authors' code has
        :math:`1/\sqrt 2`, as here).
    """

    scale = math.sqrt(0.5)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of each element, nats, with the shape of z."""
        return -z.abs() / self.scale - math.log(2 * self.scale)

    def sample(
        self,
        shape: tuple[int, ...],
        temperature: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws z of the given shape; a temperature tensor is broadcast to it."""
        # The difference of two exponentials is Laplace and, unlike the inverse CDF of a uniform number, never infinite.
        first, second = (torch.empty(shape, dtype=dtype, device=device).exponential_(generator=generator) for _ in "ab")
        return (first - second) * self.scale * temperature


class Gaussian(nn.Module):
    r"""The standard normal prior: :math:`p(z) = e^{-z^2/2} / \sqrt{2\pi}`; at temperature T the standard deviation is
    :math:`\sqrt T`.

    Source: paper, sec. 3 and eq. 12.
    """

    scale = 1.0

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of each element, nats, with the shape of z."""
        return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)

    def sample(
        self,
        shape: tuple[int, ...],
        temperature: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws z of the given shape; a temperature tensor is broadcast to it."""
        return torch.randn(shape, generator=generator, dtype=dtype, device=device) * temperature**0.5


PRIORS = {"laplace": Laplace, "gaussian": Gaussian}


def temperature_map(temperature: float | Tensor | list | tuple, levels: Tensor) -> float | Tensor:
    """Turns a temperature into a number or a map over the lattice.

    Arguments:
        temperature: one number; one number per level, lowest first (T_h of eq. 14); or a map of the shape of `levels`.
        levels: (H, W), which level leaves a site behind.

    Raises:
        ValueError: another number of levels or another shape, or a temperature that is not positive and finite.
    """
    value = torch.as_tensor(temperature, dtype=torch.float64)  # a number stays where no device is waited for
    if not (value.isfinite().all() and (value > 0).all()):
        raise ValueError(f"temperatures must be positive and finite, not {value.tolist()}")
    if value.ndim == 0:
        return float(value)
    value, count = value.to(levels.device), int(levels.max()) + 1
    if value.shape == levels.shape:
        return value
    if value.shape == (count,):
        return value[levels]
    raise ValueError(
        f"temperature must be one number, {count} numbers (one per level) or a map {tuple(levels.shape)}, "
        f"not of shape {tuple(value.shape)}"
    )
