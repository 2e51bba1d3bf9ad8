"""Images <-> logit pixels, and keyed noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from rgflow import pixels


def test_logit_by_hand(double) -> None:
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    x, ladj = pixels.to_logit(images, torch.tensor([0.0, 0.5, 0.25]).view(1, 1, 1, 3))
    p = [0.05 + 0.9 * u / 256 for u in (0, 128.5, 255.25)]
    assert_close(x.flatten(), torch.tensor([math.log(v / (1 - v)) for v in p]), rtol=0, atol=1e-12)
    assert_close(
        ladj, torch.tensor([sum(math.log(0.9) - math.log(v) - math.log(1 - v) for v in p)]), rtol=0, atol=1e-12
    )


def test_ladj_is_that_of_autograd(double) -> None:
    images = torch.randint(0, 256, (1, 2, 3, 3), dtype=torch.uint8)
    noise = torch.rand(1, 2, 3, 3, requires_grad=True)
    x, ladj = pixels.to_logit(images, noise)
    (slope,) = torch.autograd.grad(x.sum(), noise)  # dx/du = 256 dx/dnoise, elementwise
    assert_close(ladj.item(), (256 * slope).log().sum().item(), rtol=0, atol=1e-10)


@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_images_come_back(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8, generator=generator)
    noise = 0.01 + 0.98 * torch.rand(images.shape, generator=generator, dtype=dtype)
    before = images.clone()
    x, _ = pixels.to_logit(images, noise)
    assert x.dtype == dtype and torch.equal(images, before)
    assert torch.equal(pixels.from_logit(x), images)


def test_from_logit_is_cut_to_grey_levels() -> None:
    assert pixels.from_logit(torch.tensor([[-50.0, 50.0]])).tolist() == [[0, 255]]


def test_nan_has_no_grey_level() -> None:
    with pytest.raises(ValueError, match="logit pixels hold NaN"):
        pixels.from_logit(torch.tensor([[0.0, torch.nan]]))


def test_noise_is_drawn_from_the_generator() -> None:
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    a, b = (pixels.to_logit(images, generator=torch.Generator().manual_seed(3))[0] for _ in "ab")
    assert torch.equal(a, b) and a[0].ne(a[1]).any()


def _splitmix(word: int) -> int:
    """The same hash in plain integers."""
    full = (1 << 64) - 1
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & full
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & full
    return word ^ (word >> 31)


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6), index=st.integers(0, 10**9), stream=st.integers(0, 3))
def test_keyed_noise_equals_plain_integers(seed: int, epoch: int, index: int, stream: int) -> None:
    key = index
    for word in (stream, seed, epoch):
        key = _splitmix(key ^ _splitmix(word))
    expected = [_splitmix((key + (k + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 40 for k in range(6)]
    noise = pixels.keyed_noise((2, 3), seed, epoch, torch.tensor([index]), stream=stream)
    assert (noise.flatten() * 2**24).tolist() == expected


def test_keyed_noise_depends_on_its_key_alone() -> None:
    index = torch.tensor([5, 2, 9])
    noise = pixels.keyed_noise((3, 4, 4), 1, 7, index)
    assert torch.equal(noise[1], pixels.keyed_noise((3, 4, 4), 1, 7, torch.tensor([2]))[0])
    others = [pixels.keyed_noise((3, 4, 4), *key) for key in [(2, 7, index), (1, 8, index), (1, 7, index + 1)]]
    others.append(pixels.keyed_noise((3, 4, 4), 1, 7, index, stream=1))
    assert all((noise - other).abs().max() > 0.1 for other in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keyed_noise_is_uniform_and_uncorrelated(dtype: torch.dtype) -> None:
    noise = pixels.keyed_noise((1000,), 0, 0, torch.arange(200), dtype)
    assert noise.dtype == dtype and noise.min() >= 0 and noise.max() < 1
    counts = torch.histc(noise.float(), 50, 0, 1)
    chi2 = ((counts - 4000) ** 2 / 4000).sum()
    assert 20 < chi2 < 90  # 49 degrees of freedom; both bounds are beyond 99.9 %
    corr = np.corrcoef(noise[:20].double().numpy())
    assert np.abs(corr - np.eye(20)).max() < 0.16  # 5 sigma at 1000 draws


def test_bad_images_are_refused() -> None:
    with pytest.raises(TypeError, match="uint8 grey levels, not torch.float32"):
        pixels.to_logit(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), not \(2, 2\)"):
        pixels.to_logit(torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape of the images \(1, 1, 2, 2\), not \(2, 2\)"):
        pixels.to_logit(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="float32 or float64, not torch.float16"):
        pixels.keyed_noise((1,), 0, 0, torch.tensor([0]), torch.float16)
