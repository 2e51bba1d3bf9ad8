"""Purity of sectors, and the rule that decides the claim of appendix C."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rgflow import pinwheel, purity, synthetic
from rgflow.pinwheel import Ensemble, Job, Recipe
from rgflow.purity import FIXES, NOT_SHOWN, RULE, Measurement
from rgflow.statistics import mean_interval


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_purity_of_a_perfect_map_and_of_shuffled_labels():
    z = torch.randn(20_000, 2, generator=seeded(2))
    legs = torch.tensor([2, 0, 3, 1])[purity.sector(z, 30.0)]  # leg by sector turned by 30 degrees, in some order
    rotations = np.arange(0, 90, 5.0)
    curve = purity.purity_curve(z, legs, rotations)
    assert curve[6] == 1 and curve.argmax() == 6
    # turned by d, a sector keeps 1 - |d| / 90 of its leg, or gets as much of the next one
    away = np.abs(rotations - 30)
    assert curve == pytest.approx(np.maximum(1 - away / 90, away / 90), abs=0.015)
    shuffled = legs[torch.randperm(len(legs), generator=seeded(3))]
    assert purity.purity_curve(z, shuffled, [0.0, 30.0]) == pytest.approx([0.25, 0.25], abs=0.02)


def test_purity_maps_one_to_one():
    # all points on one leg: counting each sector's most frequent leg would give 1
    assert purity.purity(torch.arange(4).repeat(5), torch.zeros(20, dtype=torch.int64)) == 0.25


def test_sectors_are_quadrants_at_zero():
    z = torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    assert purity.sector(z).tolist() == [0, 1, 2, 3]
    assert purity.sector(torch.tensor([[1.0, 0.1], [1.0, -0.1]]), -45.0).tolist() == [0, 0]


def test_measure_reports_the_fit_and_follows_the_turn():
    # an untrained flow is the identity: a leg of the target turned by d fills the sector turned by d
    jobs = [Job("gaussian", 0, turn) for turn in (0.0, 20.0, 40.0)]
    untrained = Ensemble([pinwheel.two_pixel_flow("gaussian", Recipe(layers=2, nhidden=4)) for _ in jobs])
    found = purity.measure(untrained, jobs, 0, n=4000)
    assert found.curves.shape == (3, 90) and found.at(45.0).shape == (3,)
    moved = (found.best - found.best[0] + 45) % 90 - 45
    assert moved == pytest.approx([0, 20, 40], abs=8)
    # mean 0, variance 1: the standard normal's cross entropy is log 2 pi + 1; the target's own entropy is near 1.3 nats
    assert found.kl == pytest.approx([math.log(2 * math.pi) + 1 - 1.3] * 3, abs=0.08)
    assert found.chosen([2]).best.tolist() == [found.best[2]]


def test_measure_fits_each_flow_to_its_own_target():
    jobs = [Job("laplace", 0, turn) for turn in (0.0, 45.0)]
    untrained = Ensemble([pinwheel.two_pixel_flow("laplace", Recipe(layers=1, nhidden=4)) for _ in jobs])
    x = synthetic.pinwheel(20_000, seeded(6))[0]
    straight, turned = (-untrained.priors[0].log_prob(pinwheel.turned(x, a)).sum(1).mean().item() for a in (0.0, 45.0))
    assert straight - turned > 0.3  # by 45 degrees the legs come to lie nearer to the ridges
    found = purity.measure(untrained, jobs, 0, n=4000, step=45)
    assert found.kl[1] - found.kl[0] == pytest.approx(turned - straight, abs=0.06)


def test_jobs_pair_the_priors():
    plain, turned = purity.jobs("seeds", [3, 4]), purity.jobs("turned", [3, 4])
    assert plain == [Job("laplace", 3), Job("laplace", 4), Job("gaussian", 3), Job("gaussian", 4)]
    assert turned[0].turn == turned[2].turn != turned[1].turn and all(0 <= job.turn < 90 for job in turned)
    assert purity.jobs("turned", [4])[0] == turned[1]
    with pytest.raises(ValueError, match="test must be one of seeds, turned, not 'both'"):
        purity.jobs("both", [0])


def fake(best: list[float], kl: float = 0.0, level: float = 0.5) -> Measurement:
    n = len(best)
    curves = level + 1e-3 * np.cos(np.arange(n))[:, None] * np.ones(90)
    return Measurement(np.arange(90.0), curves, np.array(best), np.full(n, kl), np.zeros(n))


def test_the_rule():
    same, spread = fake([44, 46, 45, 43, 47, 45, 44, 46, 45, 89 - 45]), fake([*range(0, 90, 9)])
    assert purity.concentration(same).outcome == "fixes the rotation"
    assert purity.concentration(spread).outcome == "not shown to fix it"
    assert purity.concentration(fake([88, 2, 1, 89, 0, 0, 1, 89, 2, 88])).outcome == "fixes the rotation"
    assert purity.concentration(replace(same, kl=np.full(10, RULE.kl + 0.01))).outcome == "undecided"
    assert purity.concentration(same.chosen(range(9))).outcome == "undecided"
    half = purity.concentration(fake([45, 45, 45, 45, 45, 45, 45, 0, 22, 68]))
    assert half.resultant.value > 0.5 > half.resultant.low and half.outcome == "undecided"
    loose = purity.concentration(fake([45.0] * 13 + [0, 10, 20, 30, 60, 75, 85]))
    assert loose.p < RULE.fixed_p and loose.resultant.low < 0.5 < loose.resultant.value and loose.outcome == "undecided"
    good, bad = ("fixes the rotation", "not shown to fix it"), ("fixes the rotation", "fixes the rotation")
    assert purity.verdict([good, good]) == "reproduced"
    assert purity.verdict([bad, good]) == "partly reproduced"
    assert purity.verdict([bad, bad]) == "not reproduced"
    assert purity.verdict([bad, ("undecided", "not shown to fix it")]) == "undecided"


def test_the_literal_rule():
    best = [0.0] * 10
    assert purity.literal_verdict(fake(best, level=0.8), fake(best, level=0.5))[0] == "reproduced"
    assert purity.literal_verdict(fake(best, level=0.6), fake(best, level=0.5))[0] == "not reproduced"
    assert purity.literal_verdict(fake(best, level=0.8), fake(best, level=0.9))[0] == "not reproduced"


def test_the_literal_rule_is_undecided_with_few_or_bad_flows():
    good, other = fake([0.0] * 10, level=0.8), fake([0.0] * 10, level=0.5)
    bad = replace(other, kl=np.full(10, RULE.kl + 0.01))
    for laplace, gaussian in ((good, bad), (bad, good), (good.chosen(range(9)), other.chosen(range(9)))):
        assert purity.literal_verdict(laplace, gaussian)[0] == "undecided"


def test_the_literal_difference_is_paired_by_seed():
    # seeds differ much, priors by 0.05 in each seed: only a paired interval sees it
    level = np.linspace(0.72, 0.95, 10)
    high, low = (replace(fake([0.0] * 10), curves=(level + d)[:, None] * np.ones(90)) for d in (0.05, 0.0))
    outcome, own, more = purity.literal_verdict(high, low)
    assert outcome == "reproduced" and own == mean_interval(level + 0.05)
    assert more == pytest.approx((0.05, 0.05, 0.05), abs=1e-9)


def test_resultant_difference_draws_the_flows_of_a_seed_together():
    spread = np.arange(0, 90, 9.0)
    same = np.full(10, 45.0)
    assert purity.resultant_difference(same, spread).value == pytest.approx(1, abs=1e-9)
    assert purity.resultant_difference(spread, same).value == pytest.approx(-1, abs=1e-9)
    uneven = spread**2 / 90
    paired = purity.resultant_difference(uneven, (uneven + 20) % 90)  # the same R in every draw
    assert paired == pytest.approx((0, 0, 0), abs=1e-9)


def test_mean_rotation_across_the_seam():
    around = np.array([86.0, 88, 89, 0, 1, 1, 2, 3, 4, 6])
    mean = purity.mean_rotation(around)
    assert mean.value == pytest.approx(1, abs=0.1) and -3 < mean.low < 0 < mean.value < mean.high < 4
    moved = purity.mean_rotation((around + 30) % 90)
    assert moved == pytest.approx(tuple(end + 30 for end in mean), abs=1e-6)


def test_outcome_rates():
    uniform, half, close = (purity.outcome_rates(r, trials=400, generator=seeded(1)) for r in (0, 0.5, 0.9))
    assert uniform.not_shown > 0.85 and uniform.fixes < 0.03 and uniform.rayleigh == pytest.approx(0.01, abs=0.015)
    assert 0.12 < half.interval < 0.28 and half.fixes <= min(half.interval, half.rayleigh)
    assert close.fixes > 0.97 and close.not_shown == 0
    with pytest.raises(ValueError, match=r"the true resultant length must be in \[0, 1\), not 1"):
        purity.outcome_rates(1)


def test_outcome_rates_apply_the_rule():
    turns = []
    for seed in range(12):  # one trial each, drawn again here as there
        rates = purity.outcome_rates(0.6, trials=1, generator=seeded(seed))
        drawn = np.random.default_rng(int(torch.randint(2**31, (1,), generator=seeded(seed))))
        angles = drawn.vonmises(0, 1.5157, (10, 1))[:, 0]  # I1 / I0 = 0.6 there
        said = purity.concentration(fake(list(np.rad2deg(angles) / 4 % 90)))
        assert (rates.fixes, rates.not_shown) == (said.outcome == FIXES, said.outcome == NOT_SHOWN)
        turns.append(said.outcome)
    assert {FIXES, NOT_SHOWN} <= set(turns)
