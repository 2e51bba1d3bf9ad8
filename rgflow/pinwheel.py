"""The two-dimensional toy of the paper's appendix C: flows on two pixels learn a pinwheel, under each prior.

A point (2,) is an image (1, 1, 2) to a flow. Many flows are trained side by side: their weights are stacked along a
first axis.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from rgflow import synthetic
from rgflow.blocks import Blocks
from rgflow.couplings import AffineCoupling, CouplingStack
from rgflow.flow import Flow
from rgflow.hierarchy import Hierarchy
from rgflow.plainnets import PlainNet
from rgflow.priors import PRIORS

LEGS, RADIAL, TANGENTIAL, RATE = 4, 0.3, 0.1, 0.25  # the target: the defaults of synthetic.pinwheel
SCALE = math.sqrt(2 / (1 + RADIAL**2 + TANGENTIAL**2))


@dataclass(frozen=True)
class Recipe:
    """How the flows are trained.

    layers: affine couplings, each changing one coordinate and then the other; nhidden: width of their networks.
    steps, batch: of Adam on fresh points; rate: its peak learning rate, reached after 5 % of the steps, then a cosine
    to zero.
    """

    layers: int = 8
    nhidden: int = 24
    steps: int = 1500
    batch: int = 96
    rate: float = 7e-3

    def __post_init__(self) -> None:
        for name in ("layers", "nhidden", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.rate > 0:
            raise ValueError(f"rate must be positive, not {self.rate}")


@dataclass(frozen=True)
class Job:
    """One flow to train: its prior, its seed (first weights and points), by how many degrees its target is turned."""

    prior: str
    seed: int
    turn: float = 0.0


def two_pixel_flow(prior: str, recipe: Recipe, generator: torch.Generator | None = None) -> Flow:
    """A fresh flow on two pixels (1, 1, 2) from the parts of RG-Flow: one level, one block of 1 x 2, affine couplings.

    prior: "laplace" or "gaussian". ValueError for another.
    """
    if prior not in PRIORS:
        raise ValueError(f"prior must be one of {', '.join(PRIORS)}, not {prior!r}")
    nets = [PlainNet(1, recipe.nhidden, generator) for _ in range(2 * recipe.layers)]
    with torch.no_grad():  # of one coordinate: spread the bends of the first layer over the data, not all of them at 0
        for net in nets:
            net.w1.mul_(3)
            net.b1.copy_(-net.w1[:, 0] * (4 * torch.rand(recipe.nhidden, generator=generator) - 2))
    layers = [AffineCoupling(pair) for pair in zip(nets[0::2], nets[1::2], strict=True)]
    step = Blocks(CouplingStack(layers), channels=1, block=(1, 2))
    return Flow(Hierarchy([step], shape=(1, 1, 2)), PRIORS[prior]())


class _Inverse(nn.Module):
    """A bijector the other way round, as `functional_call` wants it."""

    def __init__(self, bijector: nn.Module) -> None:
        super().__init__()
        self.bijector = bijector

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector.inverse(z)


class Ensemble(nn.Module):
    """Flows on two pixels of one architecture, each with its prior, computed side by side.

    Shapes: points and latents (S, N, 2) for S flows.

    ValueError: no flows.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        super().__init__()
        if not flows:
            raise ValueError("an ensemble needs at least one flow")
        self.priors = [flow.prior for flow in flows]
        pattern = copy.deepcopy(flows[0].bijector)
        object.__setattr__(self, "_pattern", pattern)  # not a child: its own weights are never used
        object.__setattr__(self, "_backwards", _Inverse(pattern))
        weights, _ = stack_module_state([flow.bijector for flow in flows])
        self._names = list(weights)
        self.weights = nn.ParameterList(weight.detach() for weight in weights.values())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points (S, N, 2) -> latents (S, N, 2) and log|det dz/dx| (S, N), nats."""
        return self._mapped(self._pattern, "", x)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (S, N, 2) -> points (S, N, 2) and log|det dx/dz| (S, N), nats."""
        return self._mapped(self._backwards, "bijector.", z)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of points (S, N, 2): (S, N), nats."""
        z, ladj = self.encode(x)
        kinds = {type(prior): prior for prior in self.priors}
        prior = torch.zeros_like(z)
        for kind, density in kinds.items():
            mine = torch.tensor([type(other) is kind for other in self.priors])
            prior = torch.where(mine[:, None, None], density.log_prob(z), prior)
        return prior.sum(-1) + ladj

    def flow(self, index: int) -> Flow:
        """A copy of one of the flows."""
        bijector = copy.deepcopy(self._pattern)
        state = {name: weight[index] for name, weight in zip(self._names, self.weights, strict=True)}
        bijector.load_state_dict(state, strict=False)
        return Flow(bijector, self.priors[index])

    def _mapped(self, module: nn.Module, prefix: str, x: Tensor) -> tuple[Tensor, Tensor]:
        def one(weights: dict[str, Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
            value, ladj = functional_call(module, weights, (points.reshape(-1, 1, 1, 2),))
            return value.reshape(-1, 2), ladj

        return vmap(one)({prefix + name: weight for name, weight in zip(self._names, self.weights, strict=True)}, x)


def turned(points: Tensor, degrees: float | Tensor) -> Tensor:
    """Turns points (..., N, 2) counter-clockwise about the origin; by one angle, or by one per leading index (...)."""
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=points.dtype))
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    x, y = points.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def train(jobs: Sequence[Job], recipe: Recipe) -> Ensemble:
    """Trains one flow per job on fresh points of the pinwheel, by maximum likelihood.

    Which flows are trained beside a flow makes no difference to it (up to rounding).

    ValueError: no jobs.
    """
    generators = [torch.Generator().manual_seed(job.seed) for job in jobs]
    flows = [two_pixel_flow(job.prior, recipe, g) for job, g in zip(jobs, generators, strict=True)]
    ensemble = Ensemble(flows)
    data = torch.stack([synthetic.pinwheel(recipe.batch * recipe.steps, g)[0] for g in generators])
    data = turned(data, torch.tensor([job.turn for job in jobs]))
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=recipe.rate, betas=(0.9, 0.99), fused=True)
    warm = max(1, recipe.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min((k + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * k / recipe.steps))
    )
    for step in range(recipe.steps):
        batch = data[:, step * recipe.batch : (step + 1) * recipe.batch]
        loss = -ensemble.log_prob(batch).mean(1).sum()  # a sum over flows: each gets its own gradient
        optimizer.zero_grad()
        loss.backward()
        for weight in ensemble.weights:  # clipped flow by flow, so that a rare outlier throws none of them off
            norm = weight.grad.flatten(1).norm(dim=1).clamp_min(1.0)
            weight.grad.div_(norm.view(-1, *[1] * (weight.ndim - 1)))
        optimizer.step()
        schedule.step()
    return ensemble.requires_grad_(False)


def target_log_prob(points: Tensor, cells: int = 256) -> Tensor:
    r"""Exact log density of the four-leg pinwheel, nats.

    A point at radius :math:`c \rho` and polar angle :math:`\theta` can come from every offset :math:`\alpha` from a
    leg's ridge with :math:`\theta = \alpha + 0.25\, e^{r} + 2 \pi k / 4`, where :math:`r = \rho \cos \alpha` and
    :math:`t = \rho \sin \alpha`:

    .. math:: p(x) = \frac{1}{4 c^2} \sum_\alpha \frac{N(r; 1, 0.3)\, N(t; 0, 0.1)}{|1 - 0.25\, e^{r}\, t|}

    The offsets are bracketed on a grid of `cells` and then bisected.

    Shapes: points (N, 2), any float type -> (N,), float64; -inf where no offset is found.

    Source: the change of variables in `synthetic.pinwheel`.
    """
    x = points.double() / SCALE
    rho, theta = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])

    def legs_away(alpha: Tensor, rho: Tensor, theta: Tensor) -> Tensor:
        """In units of the angle between legs; an integer where alpha is an offset."""
        return (alpha + RATE * (rho * alpha.cos()).exp() - theta) * LEGS / (2 * math.pi)

    edges = torch.linspace(-math.pi, math.pi, cells + 1, dtype=torch.float64)
    parts = []
    for r, th in zip(rho.split(4096), theta.split(4096), strict=True):
        whole = legs_away(edges, r[:, None], th[:, None]).floor()
        row, cell = (whole[:, 1:] != whole[:, :-1]).nonzero(as_tuple=True)
        low, high, own, th = edges[cell], edges[cell + 1], r[row], th[row]
        level, rising = torch.maximum(whole[row, cell], whole[row, cell + 1]), whole[row, cell + 1] > whole[row, cell]
        for _ in range(40):
            middle = (low + high) / 2
            right = (legs_away(middle, own, th) < level) == rising  # the crossing lies to the right of the middle
            low, high = torch.where(right, middle, low), torch.where(right, high, middle)
        a, t = own * low.cos(), own * low.sin()
        logs = -0.5 * (((a - 1) / RADIAL).square() + (t / TANGENTIAL).square())
        logs = logs - (1 - RATE * a.exp() * t).abs().log()
        parts.append(torch.zeros(len(r), dtype=torch.float64).index_add_(0, row, logs.exp()))
    return torch.cat(parts).log() - math.log(2 * math.pi * RADIAL * TANGENTIAL * LEGS * SCALE**2)


def nearest_leg(points: Tensor) -> Tensor:
    r"""The leg whose ridge is nearest on the circle through the point.

    .. math:: k = \text{round}\left(\frac{\theta - 0.25\, e^{\rho}}{90^\circ}\right) \bmod 4

    Shapes: points (..., 2) -> (...), int64 in 0..3. The ridge of a leg is where the blob's long axis goes, t = 0 in
    `synthetic.pinwheel`.
    """
    rho, theta = points.norm(dim=-1) / SCALE, torch.atan2(points[..., 1], points[..., 0])
    return ((theta - RATE * rho.exp()) * LEGS / (2 * math.pi)).round().long() % LEGS
