"""How well four sectors of the latent plane map to the four legs of the pinwheel, and the rule that decides the claim.

Paper, appendix C: the quadrants go to the legs with a Laplace prior, and are mixed with a Gaussian one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import i0e, i1e
from torch import Tensor

from rgflow import synthetic
from rgflow.pinwheel import LEGS, Ensemble, Job, nearest_leg, target_log_prob, turned
from rgflow.statistics import (
    Interval,
    bootstrap_interval,
    circular_mean,
    mean_interval,
    rayleigh_p,
    resultant_length,
)

PERIOD = 90.0  # degrees: four equal sectors turned by 90 are the same four sectors


@dataclass(frozen=True)
class Rule:
    """How the claim of appendix C is decided.

    The rule was written before the first measurement, but both entered the repository in one commit, so its history
    cannot prove it. The literal reading was mended afterwards: a paired interval instead of Welch's, and "undecided".

    Test "seeds": only the seed differs between flows. Test "turned": besides, each flow learns a target turned by its
    own angle, uniform in 0..90 degrees. Each gives one best rotation per flow, modulo 90 degrees. A prior
    - "fixes the rotation" if the resultant length R of the best rotations has a 95 % interval above `resultant` and
      the Rayleigh test of uniformity gives p < `fixed_p`;
    - is "not shown to fix it" if R is at most `resultant` and p > `free_p` (this is no evidence of freedom:
      `outcome_rates` says how often a prior that does fix the rotation ends here);
    - is "undecided" otherwise, or if the mean KL divergence of its flows is above `kl` nats (they have not learned), or
      if there are fewer than `seeds` flows.

    The tests by themselves are "reproduced" if in both of them Laplace fixes the rotation and Gaussian is not shown to
    fix it, "partly reproduced" if in one; else "undecided" if a test left a prior undecided, else "not reproduced". The
    verdict on the claim (`verdicts.quadrants_to_legs`) counts the literal reading as well.
    The literal reading, quadrants at 0 degrees, is "reproduced" if in the test "seeds" the 95 % interval of Laplace's
    mean purity lies above `literal` and that of its difference to Gaussian's, seed by seed, above 0; "undecided" if one
    of the two priors has too few flows or has not learned; else "not reproduced".
    """

    resultant: float = 0.5
    fixed_p: float = 0.01
    free_p: float = 0.05
    kl: float = 0.1
    literal: float = 0.7
    seeds: int = 10


RULE = Rule()
TESTS = ("seeds", "turned")
FIXES, NOT_SHOWN = "fixes the rotation", "not shown to fix it"


def jobs(test: str, seeds: Sequence[int]) -> list[Job]:
    """What to train for one test of the rule: for every seed a Laplace flow, then for every seed a Gaussian one.

    Both flows of a seed get the same first weights, points and turn. ValueError for a test that is not one of `TESTS`.
    """
    if test not in TESTS:
        raise ValueError(f"test must be one of {', '.join(TESTS)}, not {test!r}")
    turns = [0.0] * len(seeds)
    if test == "turned":
        turns = [PERIOD * float(torch.rand(1, generator=torch.Generator().manual_seed(10_000 + s))) for s in seeds]
    return [Job(prior, s, turn) for prior in ("laplace", "gaussian") for s, turn in zip(seeds, turns, strict=True)]


def sector(latents: Tensor, rotation: float = 0.0) -> Tensor:
    """Which of four equal sectors a latent lies in: 0..3 counter-clockwise, sector 0 starting at `rotation`.

    Shapes: latents (..., 2) -> (...), int64; rotation in degrees. At rotation 0 the sectors are the quadrants.
    """
    angle = torch.rad2deg(torch.atan2(latents[..., 1], latents[..., 0]))
    return ((angle - rotation) / PERIOD).floor().long() % 4


def purity(sectors: Tensor, legs: Tensor) -> float:
    """Share of points whose leg is the one given to their sector, under the best one-to-one map of sectors to legs.

    Shapes: both (N,), int64 in 0..3. 1 if each sector fills one leg; about 1/4 if sector and leg are independent.
    """
    table = np.bincount((sectors * LEGS + legs).numpy(), minlength=4 * LEGS).reshape(4, LEGS)
    return float(max(table[range(4), order].sum() for order in itertools.permutations(range(LEGS))) / len(legs))


def purity_curve(latents: Tensor, legs: Tensor, rotations: Sequence[float] | NDArray) -> NDArray:
    """Purity of the four sectors turned by each of the rotations, in degrees; shape that of `rotations`."""
    return np.array([purity(sector(latents, float(rotation)), legs) for rotation in rotations])


@dataclass(frozen=True)
class Measurement:
    """What the flows of one prior did in one test, one entry per seed.

    rotations: (K,), degrees; curves: (S, K), purity at each; best: (S,), degrees, the rotation of highest purity;
    kl: (S,), nats, KL(target | flow); turns: (S,), degrees, by which each target was turned.
    """

    rotations: NDArray
    curves: NDArray
    best: NDArray
    kl: NDArray
    turns: NDArray

    def at(self, rotation: float) -> NDArray:
        """Purity of every flow at the nearest of the rotations, (S,)."""
        return self.curves[:, int(np.abs(self.rotations - rotation).argmin())]

    def chosen(self, which: Sequence[int] | NDArray) -> Measurement:
        """The measurement of some of the seeds."""
        parts = (self.curves, self.best, self.kl, self.turns)
        return Measurement(self.rotations, *(part[np.asarray(which)] for part in parts))


def measure(ensemble: Ensemble, jobs: Sequence[Job], seed: int, n: int = 10_000, step: float = 1.0) -> Measurement:
    """Purity curves and fit of trained flows, on n fresh latents per flow and n fresh points (the same for all flows).

    jobs: those the ensemble was trained for; step: between rotations, degrees.
    """
    generator = torch.Generator().manual_seed(seed)
    turns = torch.tensor([job.turn for job in jobs])
    z = torch.stack([prior.sample((n, 2), generator=generator) for prior in ensemble.priors])
    x = synthetic.pinwheel(n, generator)[0]
    with torch.no_grad():
        images = ensemble.decode(z)[0]
        fitted = ensemble.log_prob(turned(x.expand(len(jobs), -1, -1), turns))
    legs = nearest_leg(turned(images, -turns))
    rotations = np.arange(0, PERIOD, step)
    curves = np.stack([purity_curve(latents, leg, rotations) for latents, leg in zip(z, legs, strict=True)])
    kl = (target_log_prob(x) - fitted.double()).mean(1).numpy()
    return Measurement(rotations, curves, rotations[curves.argmax(1)], kl, turns.numpy())


@dataclass(frozen=True)
class Concentration:
    """Resultant length of best rotations modulo 90 degrees with its interval, Rayleigh's p, and what follows."""

    resultant: Interval
    p: float
    outcome: str


def concentration(measured: Measurement, rule: Rule = RULE) -> Concentration:
    """Applies the rule to one prior in one test: "fixes the rotation", "not shown to fix it" or "undecided"."""

    def resultant(angles: NDArray) -> float:
        return resultant_length(angles, PERIOD)

    length = bootstrap_interval(measured.best, resultant, generator=torch.Generator().manual_seed(0))
    p = rayleigh_p(measured.best, PERIOD)
    outcome = "undecided"
    if _decidable(measured, rule):
        if length.low > rule.resultant and p < rule.fixed_p:
            outcome = FIXES
        elif length.value <= rule.resultant and p > rule.free_p:
            outcome = NOT_SHOWN
    return Concentration(length, p, outcome)


def resultant_difference(laplace: NDArray, gaussian: NDArray) -> Interval:
    """Resultant length R of Laplace's best rotations less that of Gaussian's, with a bootstrap interval over the seeds.

    Shapes: both (S,), degrees, entry k from seed k: the two flows of a seed are drawn together.
    """

    def difference(pairs: NDArray) -> float:
        return resultant_length(pairs[:, 0], PERIOD) - resultant_length(pairs[:, 1], PERIOD)

    pairs = np.stack([laplace, gaussian], 1)
    return bootstrap_interval(pairs, difference, n=10_000, generator=torch.Generator().manual_seed(0))


def mean_rotation(best: NDArray) -> Interval:
    """Circular mean of best rotations (S,), degrees in [0, 90), with a bootstrap interval whose ends may lie outside.

    It says something only where the rotations agree.
    """
    centre = circular_mean(best, PERIOD)

    def near_centre(angles: NDArray) -> float:
        return (circular_mean(angles, PERIOD) - centre + PERIOD / 2) % PERIOD - PERIOD / 2

    spread = bootstrap_interval(best, near_centre, n=10_000, generator=torch.Generator().manual_seed(0))
    return Interval(centre, centre + spread.low, centre + spread.high)


@dataclass(frozen=True)
class Rates:
    """How often the rule gives an outcome, and how often each condition of "fixes the rotation" holds by itself.

    Shares of simulated trials. interval: R's lies above the threshold; rayleigh: p is below the threshold.
    """

    fixes: float
    not_shown: float
    interval: float
    rayleigh: float


def outcome_rates(
    true: float, flows: int = 10, trials: int = 2000, rule: Rule = RULE, generator: torch.Generator | None = None
) -> Rates:
    """What `concentration` says of best rotations whose true resultant length is known, all flows having learned.

    true: of the von Mises distribution they are drawn from, in [0, 1); 0 is uniform. flows: per trial.

    ValueError: `true` outside [0, 1).
    """
    if not 0 <= true < 1:
        raise ValueError(f"the true resultant length must be in [0, 1), not {true}")
    kappa = brentq(lambda k: i1e(k) / i0e(k) - true, 0, 1 / (1 - true) + 2)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    turns = np.exp(1j * np.random.default_rng(seed).vonmises(0, kappa, (flows, trials)))
    # the draws of the bootstrap in `concentration`, for all trials at once
    chosen = torch.randint(flows, (2000, flows), generator=torch.Generator().manual_seed(0)).numpy()
    counts = np.stack([np.bincount(row, minlength=flows) for row in chosen]) / flows
    low, length = np.quantile(np.abs(counts @ turns), 0.025, axis=0), np.abs(turns.mean(0))
    p = np.array([rayleigh_p(column, 2 * math.pi) for column in np.angle(turns).T])
    high, agree = low > rule.resultant, p < rule.fixed_p
    not_shown = (length <= rule.resultant) & (p > rule.free_p)
    return Rates(*(float(share.mean()) for share in (high & agree, not_shown, high, agree)))


def verdict(outcomes: Sequence[tuple[str, str]]) -> str:
    """What the tests give by themselves, from the outcomes (Laplace's, Gaussian's) of each."""
    held = [laplace == FIXES and gaussian == NOT_SHOWN for laplace, gaussian in outcomes]
    if all(held):
        return "reproduced"
    if any(held):
        return "partly reproduced"
    return "undecided" if any("undecided" in pair for pair in outcomes) else "not reproduced"


def literal_verdict(laplace: Measurement, gaussian: Measurement, rule: Rule = RULE) -> tuple[str, Interval, Interval]:
    """The literal reading: its verdict, Laplace's mean purity at 0 degrees, and how much it exceeds Gaussian's.

    Entry k of both measurements must come from seed k: the flows of a seed share their first weights and points, so the
    interval of the difference is that of the differences seed by seed.
    """
    own, more = mean_interval(laplace.at(0)), mean_interval(laplace.at(0) - gaussian.at(0))
    if not (_decidable(laplace, rule) and _decidable(gaussian, rule)):
        return "undecided", own, more
    return ("reproduced" if own.low > rule.literal and more.low > 0 else "not reproduced"), own, more


def _decidable(measured: Measurement, rule: Rule) -> bool:
    """Whether the flows are enough and have, on average, learned their target."""
    return measured.kl.mean() <= rule.kl and len(measured.best) >= rule.seeds
