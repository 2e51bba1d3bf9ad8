"""Densities on a line that are known exactly, how far a flow is from them, and a flow that learns from draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rgflow.flow import Flow
from rgflow.hierarchy import whole
from rgflow.penalties import penalised

REACH = 8.0  # widths beyond the outermost bumps where the integrals over the line end


class Bumps(nn.Module):
    r"""Equal Gaussian bumps on a line: an energy of fields of one channel and one site.

    .. math:: E(x) = -\log \sum_{k=1}^K e^{-(x - m_k)^2 / 2 w^2}, \qquad p(x) = e^{-E(x)} / Z, \qquad
        Z = K w \sqrt{2 \pi}

    Shapes: x (B, 1, 1) -> E (B,), nats, differentiable.

    Arguments:
        means: m_k, one or several.
        width: w, above 0.

    Raises:
        ValueError: no means, one that is not finite, or a width that is not positive.

    Source: the notebook that comes with the ODE RG-Flow (arXiv:2203.07975), whose two examples are `PEAKS` and `BELL`.
    """

    name, size, shape = "bumps", 1, (1, 1)

    def __init__(self, means: Sequence[float], width: float) -> None:
        super().__init__()
        self.means, self.width = tuple(float(mean) for mean in means), float(width)
        if not self.means or not all(map(math.isfinite, self.means)):
            raise ValueError(f"means must be one or several finite numbers, not {means!r}")
        if not (math.isfinite(self.width) and self.width > 0):
            raise ValueError(f"width must be above 0, not {width!r}")

    @property
    def log_z(self) -> float:
        """Log Z, nats."""
        return math.log(len(self.means) * self.width * math.sqrt(2 * math.pi))

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What tells this energy from others."""
        return {"energy": self.name, "means": ", ".join(f"{mean:g}" for mean in self.means), "width": self.width}

    @property
    def ends(self) -> tuple[float, float]:
        """Where the integrals over the line begin and end: beyond is less than 1e-14 of the whole."""
        return min(self.means) - REACH * self.width, max(self.means) + REACH * self.width

    def forward(self, x: Tensor) -> Tensor:
        """E of fields x (B, 1, 1); (B,), nats.

        Raises:
            ValueError: another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must be (B, 1, 1), not {tuple(x.shape)}")
        apart = (x.flatten(1) - x.new_tensor(self.means)) / self.width
        return -torch.logsumexp(-0.5 * apart.square(), 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of x (B, 1, 1); (B,), nats."""
        return -self(x) - self.log_z

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws, (n, 1, 1): as many of each bump as can be, in order, as in the original notebook."""
        bump = torch.arange(n) * len(self.means) // max(1, n)
        return (torch.tensor(self.means)[bump] + self.width * torch.randn(n, generator=generator)).view(n, 1, 1)


PEAKS = Bumps((-1.0, 1.0), 0.1)  # "Learn from Data"
BELL = Bumps((1.0,), 1 / 3)  # "Learn from Energy"


class Divergence(NamedTuple):
    """What `divergence` finds, nats."""

    value: float
    error: float
    """of the quadrature: its difference from that with half the points"""
    total: float
    """integral of the flow's density over the same stretch: at most 1 for a density"""


@torch.no_grad()
def divergence(target: Bumps, flow: Flow, points: int = 4001) -> Divergence:
    r"""Distance of a flow on a line from a density that is known, by Simpson's rule.

    .. math:: \mathrm{KL}(p \,|\, q) = \int p(x) \log \frac{p(x)}{q(x)}\, dx

    Not negative if q is a density; a solver of an ODE that is too coarse makes it none, and `total` tells.

    Arguments:
        points: of the rule, 4 k + 1.

    Raises:
        ValueError: another number of points, or a flow of another shape.
    """
    from scipy.integrate import simpson  # here, for it takes a second to import

    if whole("points", points, 5) % 4 != 1:
        raise ValueError(f"points must be 4 k + 1, not {points}")
    if tuple(flow.shape) != target.shape:
        raise ValueError(f"the target has fields {target.shape}, the flow {tuple(flow.shape)}")
    x = torch.linspace(*target.ends, points, dtype=torch.float64)
    log_p = target.log_prob(x.view(-1, 1, 1))
    log_q = flow.log_prob(x.view(-1, 1, 1).to(flow.device, flow.dtype)).double().cpu()
    parts, q = (log_p.exp() * (log_p - log_q)).numpy(), log_q.exp().numpy()
    value, half = (float(simpson(parts[::k], x=x[::k].numpy())) for k in (1, 2))
    return Divergence(value, abs(value - half), float(simpson(q, x=x.numpy())))


def learn(
    flow: Flow,
    draws: Tensor,
    steps: int,
    batch_size: int,
    rate: float = 1e-2,
    generator: torch.Generator | None = None,
) -> list[float]:
    r"""Trains a flow in place on draws that are no pictures, by maximum likelihood; gives the loss of each step, nats.

    .. math:: \text{loss} = \langle -\log q(x) \rangle + \text{penalties}

    with Adam, whose rate falls to 0 as a cosine. Pictures: `train.fit`.

    Shapes: draws (N, C, *size), of the flow's shape.

    Arguments:
        batch_size: draws in a step, with replacement; all of them, each once, if N is not larger.
        generator: source of batches and of what bijectors draw.

    Raises:
        ValueError: draws of another shape.
        FloatingPointError: the loss is not finite.

    Source: Kingma & Ba 2015 (Adam); loss and settings of the original notebook, but for the cosine.
    """
    if tuple(draws.shape[1:]) != tuple(flow.shape):
        raise ValueError(f"the draws are {tuple(draws.shape[1:])}, the flow takes {tuple(flow.shape)}")
    draws, losses = draws.to(flow.device, flow.dtype), []
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        chosen = draws
        if batch_size < len(draws):
            chosen = draws[torch.randint(len(draws), (batch_size,), generator=generator)]
        with penalised(flow, generator) as penalties:
            loss = -flow.log_prob(chosen).mean() + penalties.mean()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is not finite at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return losses
