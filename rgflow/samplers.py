"""Markov chains and annealed populations for any log density, many chains at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]  # (S, d) -> (S,), nats, differentiable


class Base(Protocol):
    """A density that can be drawn from."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...


class Move(NamedTuple):
    """Chains after a proposal: x (S, d); log_prob (S,), its gradient (S, d); acceptance (S,), the probability of it."""

    x: Tensor
    log_prob: Tensor
    gradient: Tensor
    acceptance: Tensor


def start(log_prob: LogDensity, x: Tensor) -> Move:
    """Chains at x, from which `hmc` goes on."""
    value, gradient = _with_gradient(log_prob, x)
    return Move(x.detach(), value, gradient, torch.ones_like(value))


def hmc(
    log_prob: LogDensity,
    at: Move,
    step: float,
    leaps: int = 1,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
    jitter: float = 0.5,
) -> Move:
    r"""Moves S chains by a proposal of Hamiltonian Monte Carlo each; with one leap it is MALA.

    A proposal starts with a momentum p ~ N(0, 1) and makes `leaps` leapfrog steps of

    .. math:: p \leftarrow p + \tfrac{\epsilon}{2} L^T \nabla \log \pi(x), \quad x \leftarrow x + \epsilon L p, \quad
        p \leftarrow p + \tfrac{\epsilon}{2} L^T \nabla \log \pi(x);

    it is taken with probability min(1, exp(change of log pi - |p|^2 / 2)), and not where the density is not finite.

    Shapes: x (S, d); scale L (d, d), of the size of the target, so that epsilon need not be.

    Arguments:
        at: where the chains are, by `start` or the move before, of the same density.
        step: epsilon.
        jitter: each proposal takes epsilon times a random number between 1 - jitter and 1, for no trajectory should be
            a period long.

    Source: Duane et al. 1987; Neal 2011 (MCMC using Hamiltonian dynamics), sec. 5.2; Roberts & Tweedie 1996 (MALA).
    """
    like = {"dtype": at.x.dtype, "device": at.x.device, "generator": generator}
    size = step * (1 - jitter * torch.rand((len(at.x), 1), **like))
    p = torch.randn(at.x.shape, **like)
    energy = at.log_prob - 0.5 * p.square().sum(1)
    x, slope = at.x, at.gradient
    for _ in range(leaps):
        p = p + 0.5 * size * (slope if scale is None else slope @ scale)
        x = x + size * (p if scale is None else p @ scale.T)
        new, slope = _with_gradient(log_prob, x)
        p = p + 0.5 * size * (slope if scale is None else slope @ scale)
    chance = (new - 0.5 * p.square().sum(1) - energy).clamp_max(0).exp().nan_to_num(0)
    chance = torch.where(new.isfinite() & slope.isfinite().all(1), chance, 0)
    taken = torch.rand(len(x), **like) < chance
    chosen = (torch.where(taken[:, None], a, b) for a, b in ((x, at.x), (slope, at.gradient)))
    x, gradient = chosen
    return Move(x, torch.where(taken, new, at.log_prob), gradient, chance)


def _with_gradient(log_prob: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_prob(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


@dataclass(frozen=True)
class Annealed:
    """What annealing gave: samples with equal weights, and how it went.

    Shapes: x (S, d); log_prob (S,), nats; scale (d, d).

    Arguments:
        log_evidence: estimate of the log of the integral of the density, nats.
        temperatures: the inverse ones, from 0 to 1.
        acceptance: mean at each of them but the first.
        effective: S over the sum of the squares of the shares that the first particles have in the last ones; S if all
            of them live on.
        step, scale: with which `hmc` can go on.
    """

    x: Tensor
    log_prob: Tensor
    log_evidence: float
    temperatures: list[float]
    acceptance: list[float]
    effective: float
    step: float
    scale: Tensor


def anneal(
    log_prob: LogDensity,
    base: Base,
    n: int,
    moves: int = 5,
    leaps: int = 1,
    keep: float = 0.8,
    most: int = 1000,
    generator: torch.Generator | None = None,
) -> Annealed:
    r"""Carries a population from a base density to a target: sequential Monte Carlo with adaptive temperatures.

    .. math:: \log \pi_\beta = (1 - \beta) \log q + \beta \log p, \qquad 0 = \beta_0 < \beta_1 < \dots = 1

    Each :math:`\beta` is the largest at which the effective sample size of the weights
    :math:`(p/q)^{\beta' - \beta}` is `keep` of the population. The population is drawn again by these weights
    (systematically) and moved by `hmc`, whose scale is the population's covariance and whose step is adapted to an
    acceptance of 0.6. The mean weights multiply to the evidence. Temperatures, scale and step are chosen by the
    particles they act on, so that samples and evidence are right in the limit of many particles, not exactly.

    Arguments:
        n: particles; some times the dimension, for the covariance.
        moves: proposals for each particle at each temperature.
        keep: between 0 and 1.
        most: temperatures.

    Raises:
        ValueError: fewer than 2 particles or 1 move, or a keep outside (0, 1).
        FloatingPointError: fewer of the particles than `keep` have a finite density.
        RuntimeError: more temperatures than `most`.

    Source: Del Moral, Doucet & Jasra 2006; Neal 2001 (annealed importance sampling); the temperatures as in Jasra et
        al. 2011; Beskos et al. 2016 on what adaptation changes.
    """
    if n < 2 or moves < 1 or not 0 < keep < 1:
        raise ValueError(f"n must be at least 2, moves at least 1 and keep in (0, 1), not {n}, {moves} and {keep}")
    x = base.sample(n, generator)
    beta, step, evidence, ancestors = 0.0, 0.5, 0.0, torch.arange(n)
    temperatures, acceptance = [0.0], []
    value = log_prob(x).detach()
    while beta < 1:
        if len(temperatures) > most:
            raise RuntimeError(f"annealing needs more than {most} temperatures; it is at {beta:.3g}")
        ratio = value - base.log_prob(x)
        finite = ratio.isfinite()
        if finite.sum() < keep * n:
            raise FloatingPointError(f"the density is finite for {int(finite.sum())} of {n} particles only")
        rise = _rise(ratio[finite], 1 - beta, keep * n)
        weights = torch.where(finite, rise * ratio, -math.inf)
        evidence += float(torch.logsumexp(weights, 0)) - math.log(n)
        chosen = _systematic(weights.softmax(0), generator)
        x, ancestors = x[chosen], ancestors[chosen.cpu()]
        beta = 1.0 if rise >= 1 - beta else beta + rise
        temperatures.append(beta)

        def tempered(y: Tensor, beta: float = beta) -> Tensor:
            return (1 - beta) * base.log_prob(y) + beta * log_prob(y)

        scale, rates = _scale(x), []
        at = start(tempered, x)
        for _ in range(moves):
            at = hmc(tempered, at, step, leaps, scale, generator)
            rates.append(float(at.acceptance.mean()))
            step *= math.exp(rates[-1] - 0.6)
        acceptance.append(sum(rates) / moves)
        x = at.x
        value = log_prob(x).detach() if beta < 1 else at.log_prob
    shares = torch.bincount(ancestors, minlength=n) / n
    alive = float(1 / shares.square().sum())
    return Annealed(x, value, evidence, temperatures, acceptance, alive, step, scale)


def _rise(ratio: Tensor, most: float, least: float) -> float:
    """The largest rise of the inverse temperature, up to `most`, with an effective sample size of at least `least`."""

    def effective(rise: float) -> float:
        weights = (rise * ratio).softmax(0)
        return float(1 / weights.square().sum())

    if effective(most) >= least:
        return most
    low, high = 0.0, most
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= least else (low, middle)
    return low


def _systematic(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Indices drawn with these weights, with one random number for all: each comes n w times, rounded up or down."""
    n = len(weights)
    start = torch.rand((), generator=generator, dtype=torch.float64, device=weights.device)
    points = (start + torch.arange(n, device=weights.device)) / n
    return torch.searchsorted(weights.double().cumsum(0), points).clamp_max(n - 1)


def _scale(x: Tensor) -> Tensor:
    """A factor of the covariance of the population, (d, d), drawn towards its diagonal where particles are few."""
    n, d = x.shape
    covariance = torch.cov(x.T).reshape(d, d).double()
    diagonal = covariance.diagonal().clamp_min(1e-6 * covariance.diagonal().mean())
    covariance = torch.lerp(covariance, diagonal.diag(), d / (n + d))
    return torch.linalg.cholesky(covariance).to(x.dtype)
