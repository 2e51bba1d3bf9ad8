"""How well four sectors of the latent plane map to the four legs of the pinwheel, and the rule that decides the claim.

Paper, appendix C: the quadrants go to the legs with a Laplace prior, and are mixed with a Gaussian one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgflow import synthetic
from rgflow.pinwheel import LEGS, Ensemble, Job, nearest_leg, target_log_prob, turned
from rgflow.statistics import (
    Interval,
    bootstrap_interval,
    difference_interval,
    mean_interval,
    rayleigh_p,
    resultant_length,
)

PERIOD = 90.0  # degrees: four equal sectors turned by 90 are the same four sectors


@dataclass(frozen=True)
class Rule:
    """How the claim of appendix C is decided; written before the first measurement.

    Test "seeds": only the seed differs between flows. Test "turned": besides, each flow learns a target turned by its
    own angle, uniform in 0..90 degrees. Each gives one best rotation per flow, modulo 90 degrees. A prior
    - "fixes the rotation" if the resultant length R of the best rotations has a 95 % interval above `resultant` and
      the Rayleigh test of uniformity gives p < `fixed_p`;
    - "leaves it free" if R is at most `resultant` and p > `free_p`;
    - is "undecided" otherwise, or if the mean KL divergence of its flows is above `kl` nats (they have not learned), or
      if there are fewer than `seeds` flows.

    The claim is "reproduced" if in both tests Laplace fixes the rotation and Gaussian leaves it free, "partly
    reproduced" if in one of them; else "undecided" if a test left a prior undecided, else "not reproduced".
    The literal reading, quadrants at 0 degrees, is "reproduced" if in the test "seeds" the 95 % interval of Laplace's
    mean purity lies above `literal` and that of its difference to Gaussian's (Welch) above 0.
    """

    resultant: float = 0.5
    fixed_p: float = 0.01
    free_p: float = 0.05
    kl: float = 0.1
    literal: float = 0.7
    seeds: int = 10


RULE = Rule()
TESTS = ("seeds", "turned")


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
    """Applies the rule to one prior in one test: "fixes the rotation", "leaves it free" or "undecided"."""

    def resultant(angles: NDArray) -> float:
        return resultant_length(angles, PERIOD)

    length = bootstrap_interval(measured.best, resultant, generator=torch.Generator().manual_seed(0))
    p = rayleigh_p(measured.best, PERIOD)
    outcome = "undecided"
    if measured.kl.mean() <= rule.kl and len(measured.best) >= rule.seeds:
        if length.low > rule.resultant and p < rule.fixed_p:
            outcome = "fixes the rotation"
        elif length.value <= rule.resultant and p > rule.free_p:
            outcome = "leaves it free"
    return Concentration(length, p, outcome)


def verdict(outcomes: Sequence[tuple[str, str]]) -> str:
    """The rule's verdict from the outcomes (Laplace's, Gaussian's) of each test."""
    held = [laplace == "fixes the rotation" and gaussian == "leaves it free" for laplace, gaussian in outcomes]
    if all(held):
        return "reproduced"
    if any(held):
        return "partly reproduced"
    return "undecided" if any("undecided" in pair for pair in outcomes) else "not reproduced"


def literal_verdict(laplace: Measurement, gaussian: Measurement, rule: Rule = RULE) -> tuple[str, Interval, Interval]:
    """The literal reading: its verdict, Laplace's mean purity at 0 degrees, and how much it exceeds Gaussian's."""
    own, more = mean_interval(laplace.at(0)), difference_interval(laplace.at(0), gaussian.at(0))
    return ("reproduced" if own.low > rule.literal and more.low > 0 else "not reproduced"), own, more
