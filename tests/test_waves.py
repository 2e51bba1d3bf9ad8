"""Counts of waves, their controls, and what sparse coding finds in pictures that are made of known edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rgflow import waves
from rgflow.gabor import Gabor, fit_gabor

WAVE = Gabor(3.5, 3.5, 30.0, 0.2, 0.5, 1.0, 1.5, 1.5, 0.95, (8, 8))
BLOB = replace(WAVE, frequency=0.01, phase=0.0)
LONG = replace(WAVE, across=6.0)
POOR = replace(WAVE, r2=0.3)


def drawn(gabor: Gabor) -> np.ndarray:
    return gabor(*np.indices(gabor.shape))


def test_only_good_fits_count_as_waves() -> None:
    assert WAVE.oriented and WAVE.localised and not BLOB.oriented and BLOB.localised and not LONG.localised
    found = waves.tally([WAVE, WAVE, BLOB, LONG, POOR], generator=torch.Generator().manual_seed(0))
    assert found.count == 5 and found.r2.value == 0.95 and found.r2.low <= 0.95
    shares = [getattr(found, name).value for name in ("good", "oriented", "localised", "both")]
    assert shares == pytest.approx([0.8, 0.6, 0.6, 0.4])
    assert 0 < found.both.low < 0.4 < found.both.high < 1
    assert waves.tally([WAVE, POOR], least=0.2).both.value == 1.0
    with pytest.raises(ValueError, match="at least 2 values"):
        waves.tally([WAVE])


def test_controls_keep_magnitudes_and_lose_the_wave() -> None:
    patch = drawn(WAVE)
    generator = torch.Generator().manual_seed(1)
    signs, places = (waves.by_chance(patch, kind, generator) for kind in ("signs", "places"))
    assert np.allclose(abs(signs), abs(patch)) and (signs != patch).mean() > 0.2
    assert np.allclose(np.sort(places.ravel()), np.sort(patch.ravel())) and (places != patch).mean() > 0.8
    assert fit_gabor(patch).r2 > 0.99
    assert fit_gabor(signs).r2 < 0.8 and fit_gabor(places).r2 < 0.6
    again = waves.by_chance(patch, "signs", torch.Generator().manual_seed(1))
    assert np.array_equal(again, signs)


def test_pixels_that_matter() -> None:
    one = np.zeros((4, 4))
    one[1, 2] = -3.0
    assert waves.pixels_that_matter(one) == pytest.approx(1)
    assert waves.pixels_that_matter(np.where(np.arange(16).reshape(4, 4) < 5, -2.0, 0.0)) == pytest.approx(5)


def test_sparse_coding_finds_the_waves_of_which_pictures_are_made() -> None:
    """Each window is a sparse sum of sixteen known patches; all of them must come back, up to sign and scale."""
    draw = np.random.default_rng(0)
    known = draw.normal(size=(15, 4, 4))
    known -= known.mean((1, 2), keepdims=True)
    pictures = np.tensordot(draw.laplace(size=(6000, 15)), known, 1)
    found = waves.independent_components(torch.from_numpy(pictures), 4, 15, 6000)
    assert found.shape == (15, 4, 4)
    unit = [(m / np.linalg.norm(m, axis=1, keepdims=True)) for m in (known.reshape(15, -1), found.reshape(15, -1))]
    assert abs(unit[0] @ unit[1].T).max(1).min() > 0.97
    same = waves.independent_components(torch.from_numpy(pictures), 4, 15, 6000)
    assert np.array_equal(found, same)


def test_windows_are_cut_from_all_over_the_picture() -> None:
    pictures = torch.zeros(3, 9, 6)
    pictures[:, 8, 5] = torch.tensor([1.0, -2.0, 3.0])  # in a corner, seen by windows at the very end only
    pictures += 0.01 * torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0))
    found = waves.independent_components(pictures, 4, 15, 2000, iterations=20)
    assert abs(found[:, 3, 3]).max() > 0.1
    assert waves.independent_components(pictures, 4, 3, 500, iterations=20).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: waves.by_chance(np.eye(4), "colours"), "must be one of signs, places, not 'colours'"),
        (lambda: waves.pixels_that_matter(np.zeros((3, 3))), "zero everywhere"),
        (lambda: waves.independent_components(torch.zeros(3, 4, 8), 5), r"edges at least 5, not \(3, 4, 8\)"),
        (lambda: waves.independent_components(torch.zeros(3, 8, 8), 4, 16), r"in 1..15, not 16"),
        (lambda: waves.independent_components(torch.zeros(4, 8), 4), r"must be \(N, H, W\)"),
    ],
)
def test_what_cannot_be_done_is_refused(call: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
