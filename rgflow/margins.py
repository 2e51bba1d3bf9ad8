"""A Gaussian copula: each number alone as it is distributed in samples, together as a Gaussian in other coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Margins:
    r"""The monotone maps :math:`x = Q(\Phi(t))` of each pixel's distribution, from samples: piecewise linear in t.

    In x a grey level that is certain is a box some eighty times narrower than the range of all pixels, so that no step
    suits both; in t, taken alone, each takes the room that its probability gives it.

    Shapes: x and t (S, C, K), logit pixels and standard normal numbers; log|dx/dt| (S,), nats.

    Arguments:
        samples: (n, C, K), finite.
        pieces: of each map, between quantiles that are evenly spaced in t; beyond them it goes on straight.
    """

    def __init__(self, samples: Tensor, pieces: int = 64) -> None:
        ordered = samples.flatten(1).T.double().sort(dim=1).values  # (C K, n)
        tail = torch.tensor(1 - 2 / len(samples), dtype=torch.float64)
        most = math.sqrt(2) * float(torch.erfinv(tail))
        t = torch.linspace(-most, most, pieces + 1, dtype=torch.float64, device=samples.device)
        ranks = (0.5 + 0.5 * torch.erf(t / math.sqrt(2))) * (len(samples) - 1)
        below = ranks.floor().long().clamp_max(len(samples) - 2)
        x = torch.lerp(ordered[:, below], ordered[:, below + 1], ranks - below)
        gaps = x.diff(dim=1).clamp_min(1e-4 * (x[:, -1:] - x[:, :1]) / pieces)
        self.x = torch.cat([x[:, :1], x[:, :1] + gaps.cumsum(1)], 1).to(samples)
        self.t = t.to(samples)
        self.slope = (gaps / t.diff()).to(samples)  # not of the rounded x, of which two may be the same number

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal numbers -> logit pixels: x, log|dx/dt|."""
        rows = t.flatten(1).T
        piece = torch.searchsorted(self.t, rows.detach().contiguous()).sub(1).clamp(0, self.slope.shape[1] - 1)
        slope = self.slope.gather(1, piece)
        x = self.x.gather(1, piece) + slope * (rows - self.t[piece])
        return x.T.view(t.shape), slope.log().sum(0)

    def inverse(self, x: Tensor) -> Tensor:
        """Logit pixels -> standard normal numbers: t."""
        rows = x.flatten(1).T.contiguous()
        piece = torch.searchsorted(self.x, rows).sub(1).clamp(0, self.slope.shape[1] - 1)
        t = self.t[piece] + (rows - self.x.gather(1, piece)) / self.slope.gather(1, piece)
        return t.T.reshape(x.shape)


class Copula:
    r"""What samples say of some pixels when others are given, with a Gaussian between the coordinates t of `Margins`.

    .. math:: t_h \sim N\bigl(\mu_h + \Sigma_{hk} \Sigma_{kk}^{-1} (t_k - \mu_k),\
        w^2 (\Sigma_{hh} - \Sigma_{hk} \Sigma_{kk}^{-1} \Sigma_{kh})\bigr)

    for the hole h and the known pixels k; Sigma is the covariance of n samples of dimension D plus 0.01 + D / n on its
    diagonal, and known coordinates are cut at +-4.

    A density that can be drawn from, near enough to a conditional of the samples' distribution to start from.

    Shapes: t (S, d) with d = C K, standard normal coordinates of the hole's pixels.

    Arguments:
        samples: (n, C, K + R), of the pixels of the hole, then those known.
        known: (C, R), the pixels that are given.
        width: w, by which the Gaussian is made wider, for its tails should cover what it does not know.
    """

    def __init__(self, samples: Tensor, known: Tensor, width: float = 1.5) -> None:
        own, rim = samples.split([samples.shape[2] - known.shape[1], known.shape[1]], 2)
        self.margins, around = Margins(own), Margins(rim)
        count = own[0].numel()
        t = torch.cat([self.margins.inverse(own).flatten(1), around.inverse(rim).flatten(1)], 1).double()
        mean, covariance = t.mean(0), torch.cov(t.T)
        covariance = covariance + (0.01 + t.shape[1] / len(t)) * torch.eye(t.shape[1], dtype=t.dtype, device=t.device)
        far = around.inverse(known[None]).flatten().double().clamp(-4, 4) - mean[count:]
        gain = torch.linalg.solve(covariance[count:, count:], covariance[count:, :count]).T
        rest = covariance[:count, :count] - gain @ covariance[count:, :count]
        self.mean = (mean[:count] + gain @ far).to(samples)
        self.factor = (width * torch.linalg.cholesky(0.5 * (rest + rest.T))).to(samples)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws n."""
        normal = torch.randn(n, len(self.mean), generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + normal @ self.factor.T

    def log_prob(self, t: Tensor) -> Tensor:
        """Log density, (S,), nats."""
        normal = torch.linalg.solve_triangular(self.factor, (t - self.mean).T, upper=False)
        constant = self.factor.diagonal().log().sum() + 0.5 * math.log(2 * math.pi) * len(self.mean)
        return -0.5 * normal.square().sum(0) - constant
