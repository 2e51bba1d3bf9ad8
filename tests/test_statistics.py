"""Intervals and circular statistics, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rgflow.statistics import (
    bootstrap_interval,
    circular_mean,
    jackknife_intervals,
    mean_interval,
    proportion_interval,
    rayleigh_p,
    resultant_length,
)


def test_mean_interval_by_hand():
    # 1, 2, 3: mean 2, s = 1, t(2, 97.5 %) = 4.30265; half width 4.30265 / sqrt 3
    assert mean_interval([1, 2, 3]) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-5)
    wanted = (2, 2 - 1.68585, 2 + 1.68585)
    assert mean_interval(torch.tensor([1.0, 2.0, 3.0]), level=0.9) == pytest.approx(wanted, abs=1e-4)


def test_mean_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    covered = np.mean([i.low <= 3 <= i.high for i in map(mean_interval, draws)])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_proportion_interval_by_hand():
    # Newcombe 1998, table I: 81 of 263 -> 0.2553..0.3662; 0 of 20 -> 0..0.1611
    assert proportion_interval(81, 263) == pytest.approx((0.30798, 0.2553, 0.3662), abs=1e-4)
    assert proportion_interval(0, 20) == pytest.approx((0, 0, 0.1611), abs=1e-4)
    assert proportion_interval(20, 20).high == 1


def test_bootstrap_interval_of_a_mean_is_near_students():
    values = np.random.default_rng(1).normal(0, 1, 200)
    by_draws = bootstrap_interval(values, np.mean, generator=torch.Generator().manual_seed(0))
    assert by_draws == pytest.approx(mean_interval(values), abs=0.02)
    again = bootstrap_interval(values, np.mean, generator=torch.Generator().manual_seed(0))
    assert by_draws == again


def test_bootstrap_draws_whole_rows():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    ratio = bootstrap_interval(values, lambda v: v[:, 1].sum() / v[:, 0].sum(), n=50)
    assert ratio == pytest.approx((10, 10, 10))


def test_resultant_and_mean_by_hand():
    assert resultant_length([0, 90], 360) == pytest.approx(math.sqrt(0.5))
    assert circular_mean([0, 90], 360) == pytest.approx(45)
    assert resultant_length([0, 180], 360) == pytest.approx(0, abs=1e-12)
    # modulo 90 degrees, 85 and 5 lie on both sides of 0, ten degrees apart
    assert math.sin(math.pi * circular_mean([85, 5], 90) / 90) == pytest.approx(0, abs=1e-9)
    assert resultant_length([85, 5], 90) == pytest.approx(math.cos(math.radians(20)))
    assert 0 <= circular_mean([-1e-18], 90) < 90
    assert resultant_length([10, 100, 190], 90) == pytest.approx(1)


def test_rayleigh_p_against_uniform_angles():
    generator = np.random.default_rng(2)
    p = np.array([rayleigh_p(a, 90) for a in generator.uniform(0, 90, (4000, 10))])
    for level in (0.01, 0.05, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 4000) + 0.002)
    assert rayleigh_p([20.0] * 10, 90) == pytest.approx(math.exp(math.sqrt(41) - 21))
    assert rayleigh_p([0, 45], 90) == pytest.approx(1)


def test_student_and_not_normal_quantiles():
    values = [0.0, 1.0, 4.0]
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert mean_interval(values)[1:] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), "at least 2 values are needed, not 1"),
        (lambda: mean_interval([1.0, math.nan]), "all values must be finite"),
        (lambda: mean_interval([[1.0, 2.0]]), r"one axis, not shape \(1, 2\)"),
        (lambda: mean_interval([1, 2], level=95), "level must be between 0 and 1, not 95"),
        (lambda: bootstrap_interval([1, 2], np.mean, n=0), "n must be at least 1, not 0"),
        (lambda: proportion_interval(3, 2), "successes must be in 0..n with n at least 1, not 3 of 2"),
        (lambda: proportion_interval(0, 0), "not 0 of 0"),
        (lambda: resultant_length([1.0], period=0), "period must be positive, not 0"),
        (lambda: circular_mean([]), "at least 1 values are needed, not 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_jackknife_of_a_mean_is_students_interval_when_every_group_is_one_value() -> None:
    values = np.random.default_rng(0).normal(size=25)
    found = jackknife_intervals(values, lambda v: [v.mean(), 2 * v.mean()], groups=25)
    assert found[0] == pytest.approx(mean_interval(values))
    assert found[1] == pytest.approx([2 * end for end in mean_interval(values)])


def test_jackknife_covers_and_draws_its_groups_by_the_generator() -> None:
    inside = 0
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(size=(80, 2))
        generator = torch.Generator().manual_seed(seed)
        low, high = jackknife_intervals(values, lambda v: [v.prod(1).mean()], generator=generator)[0][1:]
        inside += low < 1 < high
    assert 170 <= inside <= 199
    for groups in (1, 81):
        with pytest.raises(ValueError, match=f"groups must be in 2..80, the number of values, not {groups}"):
            jackknife_intervals(values, np.mean, groups=groups)
