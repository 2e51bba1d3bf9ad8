"""Fits of Gabor functions: known ones are found again, noise is not taken for one, and what is oriented is told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rgflow.gabor import Gabor, fit_gabor

KNOWN = [  # row, column, orientation, frequency, phase, amplitude, along, across
    Gabor(7.3, 8.1, 30, 0.20, 0.4, 2.0, 2.0, 2.6, 1.0, (16, 16)),
    Gabor(6.0, 5.2, 120, 0.12, -1.8, 0.03, 2.4, 1.7, 1.0, (12, 12)),
    Gabor(3.6, 3.4, 75, 0.25, 1.2, 5.0, 1.2, 1.4, 1.0, (8, 8)),
    Gabor(3.5, 6.5, 0, 0.30, 0.0, 1.0, 1.5, 1.5, 1.0, (8, 14)),
]


def drawn(gabor: Gabor) -> np.ndarray:
    rows, columns = np.indices(gabor.shape)
    return gabor(rows, columns)


def by_hand(gabor: Gabor, i: float, j: float) -> float:
    turn = math.radians(gabor.orientation)
    u = (j - gabor.column) * math.cos(turn) + (i - gabor.row) * math.sin(turn)
    v = -(j - gabor.column) * math.sin(turn) + (i - gabor.row) * math.cos(turn)
    envelope = math.exp(-(u**2) / (2 * gabor.along**2) - v**2 / (2 * gabor.across**2))
    return gabor.amplitude * envelope * math.cos(2 * math.pi * gabor.frequency * u + gabor.phase)


def assert_same(found: Gabor, known: Gabor, tolerance: float) -> None:
    turn = abs(found.orientation - known.orientation) % 180
    assert min(turn, 180 - turn) < 60 * tolerance
    flipped = abs(found.orientation - known.orientation) > 90  # 179.99 for 0: the wave runs backwards
    phase = (found.phase * (-1 if flipped else 1) - known.phase + math.pi) % (2 * math.pi) - math.pi
    assert abs(phase) < 3 * tolerance
    for name in ("row", "column", "frequency", "amplitude", "along", "across"):
        assert getattr(found, name) == pytest.approx(getattr(known, name), rel=tolerance, abs=tolerance / 10), name


@pytest.mark.parametrize("known", KNOWN, ids=lambda g: f"{g.orientation} degrees")
def test_a_gabor_function_is_found_again(known: Gabor) -> None:
    patch = drawn(known)
    assert patch[2, 5] == pytest.approx(by_hand(known, 2, 5))
    found = fit_gabor(patch)
    assert found.r2 > 1 - 1e-8 and found.shape == patch.shape
    assert_same(found, known, 1e-3)
    assert found.aspect == pytest.approx(known.across / known.along, rel=1e-2)
    assert np.allclose(drawn(found), patch, atol=1e-3 * known.amplitude)


def test_a_noisy_one_too() -> None:
    known, generator = KNOWN[0], np.random.default_rng(0)
    found = fit_gabor(drawn(known) + generator.normal(0, 0.1, known.shape))
    assert_same(found, known, 0.1)
    assert 0.85 < found.r2 < 1


def test_noise_is_no_gabor() -> None:
    generator = np.random.default_rng(1)
    for edge, most in ((8, 0.5), (16, 0.3)):
        shares = [fit_gabor(generator.normal(size=(edge, edge))).r2 for _ in range(8)]
        assert 0 < min(shares) and max(shares) < most, (edge, shares)


def test_what_is_oriented_and_localised() -> None:
    assert all(gabor.oriented and gabor.localised for gabor in KNOWN[:3])
    rows, columns = np.indices((8, 8))
    blob = fit_gabor(np.exp(-((rows - 3.5) ** 2 + (columns - 3.2) ** 2) / 3))
    assert blob.r2 > 0.99 and not blob.oriented and blob.localised
    edge = fit_gabor((columns - 3.5) * np.exp(-((rows - 3.5) ** 2 + (columns - 3.5) ** 2) / 4))
    assert edge.r2 > 0.98 and edge.oriented and min(edge.orientation, 180 - edge.orientation) < 2
    grating = fit_gabor(np.cos(2 * np.pi * 0.25 * rows))
    assert grating.r2 > 0.95 and grating.oriented and not grating.localised
    assert grating.orientation == pytest.approx(90, abs=2)
    assert not replace(KNOWN[2], row=-3.0).localised and not replace(KNOWN[2], across=3.0).localised


def test_the_turned_response_is_that_of_the_spectrum() -> None:
    gabor = replace(KNOWN[0], orientation=0.0, row=64.0, column=64.0, shape=(128, 128))
    wide = replace(gabor, frequency=0.06, phase=0.5)
    spectrum = np.abs(np.fft.fft2(drawn(wide), (1280, 1280)))
    at = round(0.06 * 1280)
    frequency = replace(wide, frequency=at / 1280)
    spectrum = np.abs(np.fft.fft2(drawn(frequency), (1280, 1280)))
    assert frequency.turned_response == pytest.approx(spectrum[at, 0] / spectrum[0, at], rel=1e-3)


@pytest.mark.parametrize(
    ("patch", "starts", "text"),
    [
        (np.ones((3, 8)), 3, r"both at least 4, not \(3, 8\)"),
        (np.ones(16), 3, r"not \(16,\)"),
        (np.zeros((5, 5)), 3, "largest magnitude is 0"),
        (np.full((5, 5), np.nan), 3, "largest magnitude is nan"),
        (np.eye(5), 0, "at least 1, not 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(patch: np.ndarray, starts: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fit_gabor(patch, starts)
