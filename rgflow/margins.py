"""Coordinates in which each pixel, taken alone, is a standard normal number."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Margins:
    r"""The monotone map x = Q(Phi(t)) of one distribution per channel, from samples of it: piecewise linear in t.

    In x a black that is certain is a box some eighty times narrower than the range of lit pixels, so no step suits both;
    in t each takes the room that its probability gives it.

    Shapes: x and t (S, C, K), logit pixels and standard normal; log|dx/dt| (S,), nats.

    Arguments:
        samples: (n, C, K), of the distribution; the channels' pixels are pooled.
        pieces: of the map, between quantiles that are evenly spaced in t; beyond them it goes on straight.
    """

    def __init__(self, samples: Tensor, pieces: int = 64) -> None:
        pooled = samples.transpose(0, 1).flatten(1).double()
        most = math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 / pooled.shape[1], dtype=torch.float64))
        self.t = torch.linspace(-float(most), float(most), pieces + 1, dtype=torch.float64, device=samples.device)
        x = torch.quantile(pooled, 0.5 + 0.5 * torch.erf(self.t / math.sqrt(2)), dim=1).T  # (C, pieces + 1)
        gaps = x.diff(dim=1).clamp_min(1e-4 * (x[:, -1:] - x[:, :1]) / pieces)
        self.x = torch.cat([x[:, :1], x[:, :1] + gaps.cumsum(1)], 1).to(samples)
        self.t = self.t.to(samples)
        self.slope = self.x.diff(dim=1) / self.t.diff()

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal -> logit pixels: x, log|dx/dt|."""
        piece = torch.searchsorted(self.t, t.contiguous()).sub(1).clamp(0, self.slope.shape[1] - 1)
        slope, x = (self._pick(table, piece) for table in (self.slope, self.x))
        return x + slope * (t - self.t[piece]), slope.log().flatten(1).sum(1)

    def inverse(self, x: Tensor) -> Tensor:
        """Logit pixels -> standard normal: t."""
        rows = x.transpose(0, 1).flatten(1).contiguous()
        piece = torch.searchsorted(self.x, rows).sub(1).clamp(0, self.slope.shape[1] - 1)
        piece = piece.view(x.shape[1], x.shape[0], -1).transpose(0, 1)
        return self.t[piece] + (x - self._pick(self.x, piece)) / self._pick(self.slope, piece)

    def _pick(self, table: Tensor, piece: Tensor) -> Tensor:
        channel = torch.arange(len(table), device=table.device)[:, None]
        return table[channel, piece]
