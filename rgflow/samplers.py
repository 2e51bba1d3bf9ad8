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
    """Chains after some steps: x (S, d), log_prob (S,) and the mean probability of acceptance (S,)."""

    x: Tensor
    log_prob: Tensor
    acceptance: Tensor


def hmc(
    log_prob: LogDensity,
    x: Tensor,
    step: float | Tensor,
    leaps: int = 1,
    n: int = 1,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
    jitter: float = 0.5,
) -> Move:
    r"""Moves S chains by n proposals of Hamiltonian Monte Carlo each; with one leap it is MALA.

    A proposal starts with a momentum p ~ N(0, 1) and makes `leaps` leapfrog steps of

    .. math:: p \leftarrow p + \tfrac{\epsilon}{2} L^T \nabla \log \pi(x), \quad x \leftarrow x + \epsilon L p, \quad
        p \leftarrow p + \tfrac{\epsilon}{2} L^T \nabla \log \pi(x);

    it is taken with probability min(1, exp(change of log pi - |p|^2 / 2)). A proposal at which the density or its
    gradient is not finite is not taken.

    Shapes: x (S, d); scale L (d, d), or (d,) for a diagonal one: of the size of the target, so that epsilon need not
    be.

    Arguments:
        step: epsilon, a number or one per chain (S,).
        jitter: each proposal takes epsilon times a random number between 1 - jitter and 1, for no trajectory should be
            a period long.

    Source: Duane et al. 1987; Neal 2011 (MCMC using Hamiltonian dynamics), sec. 5.2; Roberts & Tweedie 1996 (MALA).
    """
    epsilon = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(len(x))[:, None]
    value, gradient = _with_gradient(log_prob, x)
    accepted = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for _ in range(n):
        p = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        shorter = torch.rand((len(x), 1), generator=generator, dtype=x.dtype, device=x.device)
        size = epsilon * (1 - jitter * shorter)
        energy = value - 0.5 * p.square().sum(1)
        y, slope = x, gradient
        for _ in range(leaps):
            p = p + 0.5 * size * _times(slope, scale, transposed=True)
            y = y + size * _times(p, scale)
            new, slope = _with_gradient(log_prob, y)
            p = p + 0.5 * size * _times(slope, scale, transposed=True)
        change = new - 0.5 * p.square().sum(1) - energy
        chance = change.clamp_max(0).exp().nan_to_num(0)
        taken = torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device) < chance
        accepted = accepted + chance / n
        x, gradient = (torch.where(taken[:, None], a, b) for a, b in ((y, x), (slope, gradient)))
        value = torch.where(taken, new, value)
    return Move(x, value, accepted)


def _with_gradient(log_prob: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_prob(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def _times(x: Tensor, scale: Tensor | None, transposed: bool = False) -> Tensor:
    if scale is None:
        return x
    if scale.ndim == 1:
        return x * scale
    return x @ (scale if transposed else scale.T)


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
    acceptance of 0.6. The mean weights multiply to the evidence, without bias.

    Arguments:
        n: particles; some times the dimension, for the covariance.
        moves: proposals for each particle at each temperature.
        most: temperatures; a RuntimeError beyond.

    Source: Del Moral, Doucet & Jasra 2006; Neal 2001 (annealed importance sampling); the temperatures as in Jasra et
        al. 2011.
    """
    x = base.sample(n, generator)
    beta, step, evidence, ancestors = 0.0, 0.5, 0.0, torch.arange(n)
    temperatures, acceptance = [0.0], []
    ratio = log_prob(x).detach() - base.log_prob(x)
    while beta < 1:
        if len(temperatures) > most:
            raise RuntimeError(f"annealing needs more than {most} temperatures; it is at {beta:.3g}")
        rise = _rise(ratio, 1 - beta, keep * n)
        weights = rise * ratio
        evidence += float(torch.logsumexp(weights, 0)) - math.log(n)
        chosen = _systematic(weights.softmax(0), generator)
        x, ancestors = x[chosen], ancestors[chosen.cpu()]
        beta = 1.0 if rise >= 1 - beta else beta + rise
        temperatures.append(beta)

        def tempered(y: Tensor, beta: float = beta) -> Tensor:
            return (1 - beta) * base.log_prob(y) + beta * log_prob(y)

        scale, rates = _scale(x), []
        for _ in range(moves):
            x, _, rate = hmc(tempered, x, step, leaps, 1, scale, generator)
            rates.append(float(rate.mean()))
            step *= math.exp(rates[-1] - 0.6)
        acceptance.append(sum(rates) / moves)
        value = log_prob(x).detach()
        ratio = value - base.log_prob(x)
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
