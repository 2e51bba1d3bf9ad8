"""Convolutional networks that give s and t of Real NVP's couplings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormedConv(nn.Module):
    """A 3 x 3 convolution with zero padding and weight normalisation, w = gain * v / |v| per output channel.

    Shapes: (B, n_in, H, W) -> (B, n_out, H, W). Source: Salimans and Kingma 2016, eq. 2, arXiv:1602.07868.
    """

    def __init__(self, n_in: int, n_out: int, gain: float = 1.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        # |v| is near 1 at the start, so that the step of an optimiser means the same at every width.
        self.direction = nn.Parameter(torch.randn(n_out, n_in, 3, 3, generator=generator) / (9 * n_in) ** 0.5)
        self.gain = nn.Parameter(torch.full((n_out,), gain))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        weight = F.normalize(self.direction, dim=(1, 2, 3)) * self.gain[:, None, None, None]
        return F.conv2d(x, weight, self.bias, padding=1)


class ScaleShiftNet(nn.Module):
    r"""A convolutional residual network that gives s and t of a coupling, s = scale * tanh(raw s).

    Pre-activation blocks h + conv(swish(conv(swish(h)))), all 3 x 3; zero at the start, as the output gain is 0.

    Shapes: (B, n_in, H, W) -> s, t, both (B, n_out, H, W); scale (n_out, 1, 1) is learned, 1 at the start.
    Source: Dinh et al. 2017, sec. 4.1.
    """

    def __init__(
        self, n_in: int, n_out: int, nhidden: int, nres: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.first = NormedConv(n_in, nhidden, generator=generator)
        self.blocks = nn.ModuleList()
        for _ in range(nres):
            one, two = (NormedConv(nhidden, nhidden, generator=generator) for _ in range(2))
            self.blocks.append(nn.Sequential(nn.SiLU(), one, nn.SiLU(), two))
        self.last = NormedConv(nhidden, 2 * n_out, gain=0.0, generator=generator)
        self.scale = nn.Parameter(torch.ones(n_out, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        # Back to the dtype of x: under autocast s and t must not lower the precision of z and ladj.
        s, t = self.last(F.silu(h)).to(x.dtype).chunk(2, dim=1)
        return self.scale * torch.tanh(s), t
