"""Samples of what may fill a hole: annealing from what the flow says of the hole and its rim, then Markov chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rgflow.margins import Copula
from rgflow.samplers import anneal, hmc, start


@dataclass(frozen=True)
class Samples:
    """Fills drawn from p(hole | rest), and what tells whether to believe in them.

    Shapes: fills (n, C, K), logit pixels; log_prob (n,), log p of the image with each of them, nats; log_evidence
    (populations,), each population's estimate of log p(rest), nats, so that log p(hole | rest) is log_prob less it;
    paths (steps, n), log p along the chains that end in the fills, nats.

    Arguments:
        acceptance: mean of the chains.
        effective: effective sample size of log p over all chains, as if none had an ancestor in common.
        rhat: rank-normalised split R-hat of log p over the single chains: near 1 once chains forget where they start.
        rhat_nested: the same for populations: near 1 where they agree, whether chains move or not.
        survivors: of each population, how many of its first particles live on (`samplers.Annealed.effective`).
        temperatures: how many each population took.
    """

    fills: Tensor
    log_prob: Tensor
    log_evidence: Tensor
    paths: Tensor
    acceptance: float
    effective: float
    rhat: float
    rhat_nested: float
    survivors: list[float]
    temperatures: list[int]


def draw(
    log_prob: Callable[[Tensor], Tensor],
    marginal: Tensor,
    known: Tensor,
    n: int = 512,
    steps: int = 20,
    populations: int = 4,
    moves: int = 4,
    leaps: int = 4,
    keep: float = 0.7,
    generator: torch.Generator | None = None,
) -> Samples:
    r"""Samples of the fills of a hole, x, from p(x | rest).

    1. The flow's own samples of the hole and of a rim around it give a `Copula`, and this, given the rim's pixels, a
       density q of the hole: coarse, but near.
    2. `populations` populations go from q to p(x | rest), independently of each other (`samplers.anneal`), in the
       coordinates t of the copula's margins.
    3. All of them go on as Markov chains at p(x | rest) for `steps` proposals each (`samplers.hmc`).

    Whether the populations agree is what `rhat_nested` and the spread of `log_evidence` say. They start from the same
    q: what that does not reach at all, none of them finds, and no number here tells.

    Shapes: fills (S, C, K); marginal (N, C, K + R), samples of the hole and, behind it, its rim; known (C, R), the rim
    of the image; all of them logit pixels. R may be 0.

    Arguments:
        log_prob: fills -> (S,), nats, log p(x) up to a constant.
        n: fills, over all populations.
        steps: of the chains, at least 4.
        moves, leaps, keep: proposals at each temperature, leapfrog steps in each, and the part of the population that
            stays effective from one temperature to the next.

    Raises:
        ValueError: fewer than two populations, n not a multiple of them, or fewer than 4 steps.
        RuntimeError, FloatingPointError: as `samplers.anneal`.

    Source: ours; Del Moral, Doucet & Jasra 2006 (annealing), Margossian et al. 2024 (nested R-hat).
    """
    if populations < 2 or n % populations or n < 2 * populations or steps < 4:
        raise ValueError(
            f"n must be a multiple of the populations, which are at least 2, and there must be 4 steps or more, "
            f"not n {n}, populations {populations}, steps {steps}"
        )
    base = Copula(marginal, known)
    shape = (-1, marginal.shape[1], marginal.shape[2] - known.shape[1])

    def target(t: Tensor) -> Tensor:
        fills, ladj = base.margins.forward(t.view(shape))
        return log_prob(fills) + ladj

    fills, paths, rates, populace = [], [], [], []
    for _ in range(populations):
        there = anneal(target, base, n // populations, moves, leaps, keep, generator=generator)
        at, path = start(target, there.x), []
        for _ in range(steps):
            at = hmc(target, at, there.step, leaps, there.scale, generator)
            x, ladj = base.margins.forward(at.x.view(shape))
            path.append(at.log_prob - ladj)
            rates.append(float(at.acceptance.mean()))
        fills.append(x)
        paths.append(torch.stack(path))
        populace.append(there)
    path = torch.cat(paths, 1)
    return Samples(
        torch.cat(fills),
        path[-1],
        torch.tensor([there.log_evidence for there in populace], dtype=torch.float64),
        path,
        sum(rates) / len(rates),
        *_agreement(path, populations),
        [there.effective for there in populace],
        [len(there.temperatures) - 1 for there in populace],
    )


def _agreement(path: Tensor, populations: int) -> tuple[float, float, float]:
    """Effective sample size, R-hat and nested R-hat of numbers (steps, n), their chains population by population."""
    from arviz_stats.base import array_stats  # here, for it takes a second to import

    chains = path.T.double().cpu().numpy()
    owners = torch.arange(populations).repeat_interleave(len(chains) // populations).numpy()
    nested = array_stats.rhat_nested(chains, owners)
    return float(array_stats.ess(chains, method="bulk")), float(array_stats.rhat(chains)), float(nested)
