"""Mutual information, MIG, DCI and linear readability on latents whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rgflow import disentanglement, information
from rgflow.disentanglement import best_latents, dci, linear_r2, mig
from rgflow.information import mutual_information

RANDOM = np.random.default_rng(0)
FACTORS = RANDOM.uniform(size=(4000, 4))
NOISE = RANDOM.normal(size=(4000, 4))
ROTATED = FACTORS @ np.linalg.qr(RANDOM.normal(size=(4, 4)))[0]


def test_information_of_categories_by_hand() -> None:
    """Two bits, one of which is passed on with one error in four: I = ln 2 - H(1/4)."""
    v = np.repeat([0, 0, 0, 0, 1, 1, 1, 1], 500)
    z = np.tile([0, 0, 0, 1, 1, 1, 1, 0], 500).reshape(500, 8).T.ravel()
    found = mutual_information(z[:, None], v[:, None])
    exact = math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    correction = (1 + 1 - 3) / (2 * 4000)
    assert found[0, 0] == pytest.approx(exact + correction, abs=1e-12)


def test_information_of_correlated_gaussians() -> None:
    rho, n = 0.8, 50_000
    z, noise = np.random.default_rng(1).normal(size=(2, n))
    found = mutual_information(z[:, None], (rho * z + math.sqrt(1 - rho**2) * noise)[:, None], bins=40)[0, 0]
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.02)


def test_independent_columns_have_no_information_on_average() -> None:
    """The plain histogram would say (bins - 1)^2 / 2N = 0.045 nats."""
    a, b = np.random.default_rng(2).normal(size=(2, 4000, 12))
    found = mutual_information(a, b)
    assert abs(found.mean()) < 0.002 and (19**2 / 8000) > 0.04
    assert found.min() < 0 < found.max()


def test_information_does_not_see_a_monotone_map_or_the_cells_of_ties() -> None:
    found = mutual_information(np.exp(3 * FACTORS), FACTORS)
    assert np.array_equal(found, mutual_information(FACTORS, FACTORS))
    tied = np.where(FACTORS[:, :1] < 0.5, 0.0, FACTORS[:, :1])  # half of the numbers are equal: one cell
    counts = np.bincount(information.cells(tied, 20)[:, 0])
    assert counts.max() == (FACTORS[:, 0] < 0.5).sum()


def test_mig_of_the_identity_a_rotation_and_noise() -> None:
    found = mig(FACTORS[:, ::-1], FACTORS)
    assert found.value.value > 0.98 and found.latents.tolist() == [3, 2, 1, 0]
    assert found.value.low <= found.value.value <= found.value.high and found.value.high - found.value.low < 0.03
    assert mig(ROTATED, FACTORS).value.value < 0.35
    assert abs(mig(NOISE, FACTORS).value.value) < 0.01
    assert abs(mig(np.concatenate([FACTORS, FACTORS], 1), FACTORS).value.value) < 1e-12  # two that know the same


def test_mig_divides_by_the_entropy_of_the_factor() -> None:
    """A latent that is the sign of a factor knows one bit of log2(20)."""
    found = mig(np.stack([FACTORS[:, 0] > 0.5, NOISE[:, 0]], 1), FACTORS[:, :1])
    assert found.value.value == pytest.approx(math.log(2) / math.log(20), abs=0.01)
    known = mig(np.stack([FACTORS[:, 0] > 0.5, NOISE[:, 0]], 1), FACTORS[:, :1] > 0.5)  # and all of a bit
    assert known.value.value == pytest.approx(1, abs=0.01)


def test_best_latents_choose_and_measure_on_other_images() -> None:
    found = best_latents(np.concatenate([NOISE, FACTORS], 1), FACTORS)
    assert found.latents.tolist() == [4, 5, 6, 7] and found.share.value == pytest.approx(1, abs=1e-9)
    many = np.random.default_rng(3).normal(size=(1000, 300))
    share = best_latents(many, FACTORS[:1000], bins=10).share
    assert share.low < 0.01 and share.value < 0.02  # the luckiest of 300 would have 0.05


def test_linear_r2_of_what_can_and_cannot_be_read() -> None:
    mixed = np.concatenate([ROTATED, NOISE], 1)[:1000]
    assert linear_r2(mixed, FACTORS[:1000]).value > 0.999
    nothing = linear_r2(NOISE[:1000], FACTORS[:1000])
    assert -0.03 < nothing.low < nothing.value < nothing.high < 0.02
    assert abs(nothing.value - (nothing.low + nothing.high) / 2) < 0.3 * (nothing.high - nothing.low)
    half = linear_r2(FACTORS[:2000, :2], FACTORS[:2000])  # two factors of four
    assert half.value == pytest.approx(0.5, abs=0.01) and half.low < half.value < half.high
    noisy = linear_r2(FACTORS[:2000, :1] + 0.5 * FACTORS[:2000, :1].std() * NOISE[:2000, :1], FACTORS[:2000, :1])
    assert noisy.low < 1 / (1 + 0.25) < noisy.high
    wide = np.random.default_rng(4).normal(size=(200, 400))  # more latents than images: it does not fool itself
    assert linear_r2(wide, FACTORS[:200]).value < 0.05


@pytest.mark.parametrize("model", ["lasso", "forest"])
def test_dci_of_the_identity_a_rotation_and_noise(model: str) -> None:
    n = 4000 if model == "lasso" else 1200
    same = dci(FACTORS[:n, ::-1], FACTORS[:n], model=model, groups=2)
    least = 0.98 if model == "lasso" else 0.9
    assert min(same.disentanglement.value, same.completeness.value, same.informativeness.value) > least
    assert same.importances.argmax(0).tolist() == [3, 2, 1, 0]
    turned = dci(ROTATED[:n], FACTORS[:n], model=model, groups=2)
    assert turned.disentanglement.value < 0.45 and turned.completeness.value < 0.45
    assert turned.informativeness.value > (0.99 if model == "lasso" else 0.8)
    nothing = dci(NOISE[:n], FACTORS[:n], model=model, groups=2)
    assert nothing.disentanglement == nothing.completeness == (0, 0, 0)
    assert -0.15 < nothing.informativeness.value < 0.05  # a forest overfits


def test_dci_by_hand() -> None:
    """One latent shared by two factors, weights 3 and 1; one of a single factor; one that is never used."""
    table = np.array([[3.0, 1.0, 0.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    shared = 1 + (0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(3)
    found = disentanglement._disentanglement_and_completeness(table)
    assert found == pytest.approx((0.5 * shared + 0.5 * 1, 1.0))
    assert disentanglement._disentanglement_and_completeness(table.T)[0] == pytest.approx(1.0)
    assert disentanglement._disentanglement_and_completeness(0 * table) == (0, 0)


def test_intervals_cover() -> None:
    """The MIG of noisy latents in many samples lies in the interval of one about as often as it says."""
    draws = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        v = random.uniform(size=(900, 2))
        draws.append(mig(v + 0.2 * random.normal(size=v.shape), v, bins=10).value)
    centre = np.mean([found.value for found in draws])
    inside = np.mean([found.low < centre < found.high for found in draws])
    assert inside >= 0.85


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mutual_information(NOISE[0], FACTORS), r"latents must have the shape \(images, columns\).*\(4,\)"),
        (lambda: mutual_information(NOISE, FACTORS[:5]), "of the same images, not of 4000 and 5"),
        (lambda: mutual_information(NOISE[:30], FACTORS[:30]), "20 bins need at least 2000 images, not 30"),
        (lambda: mutual_information(NOISE, FACTORS, bins=1), "bins must be at least 2, not 1"),
        (lambda: mutual_information(NOISE / 0, FACTORS), "latents must be finite"),
        (lambda: mig(NOISE[:, :1], FACTORS), "at least two latents, not 1"),
        (lambda: mig(NOISE, 0 * FACTORS), r"constant are columns \[0, 1, 2, 3\]"),
        (lambda: linear_r2(NOISE, FACTORS, folds=1), r"folds must be in 2..4000.* not 1"),
        (lambda: dci(NOISE, FACTORS, model="tree"), "model must be lasso or forest, not 'tree'"),
        (lambda: dci(NOISE, FACTORS[:, :1]), "two latents and two factors at least, not 4 and 1"),
        (lambda: dci(NOISE[:39], FACTORS[:39]), "at least 40 images, not 39"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
