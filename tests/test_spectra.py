"""Power spectra: single waves, white noise, known slopes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rgflow.spectra import frequencies, power_spectra, slope


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("k", [3, 7])
def test_a_wave_has_its_power_in_its_ring(k: int) -> None:
    wave = 128 + 100 * torch.cos(2 * torch.pi * k * torch.arange(32) / 32)
    for image in (wave.expand(32, 32), wave[:, None].expand(32, 32)):
        spectrum = power_spectra(image.round().to(torch.uint8)[None, None])[0]
        assert spectrum.shape == frequencies(32).shape == (15,)
        assert spectrum.argmax() == k - 1 and frequencies(32)[k - 1] == k / 32
        assert spectrum[k - 2 : k + 1].sum() > 0.99 * spectrum.sum(), "the window leaks to the neighbours alone"


def test_white_noise_has_its_variance_everywhere() -> None:
    noise = torch.randint(0, 256, (400, 1, 32, 32), generator=generator(), dtype=torch.uint8)
    spectra = power_spectra(noise)
    variance = (256**2 - 1) / 12 / 255**2
    np.testing.assert_allclose(spectra.mean(0)[1:], variance, rtol=0.1)
    assert abs(slope(spectra)) < 0.1


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("exponent", [-2.0, -1.0])
def test_slope_of_images_made_with_it(size: int, exponent: float) -> None:
    """Pieces of a larger periodic noise with power f^a: borders and the window must not spoil the slope."""
    axis = torch.fft.fftfreq(4 * size)
    radius = torch.hypot(axis[:, None], axis)
    radius[0, 0] = torch.inf
    white = torch.randn(30, 4 * size, 4 * size, generator=generator())
    pink = torch.fft.ifft2(torch.fft.fft2(white) * radius ** (exponent / 2)).real
    pink = pink / pink.std()
    images = (128 + 32 * pink[:, None, :size, :size]).clamp(0, 255).round().to(torch.uint8)
    assert slope(power_spectra(images)) == pytest.approx(exponent, abs=0.2)


def test_brightness_does_not_count() -> None:
    noise = torch.randint(0, 100, (3, 3, 16, 16), generator=generator(), dtype=torch.uint8)
    np.testing.assert_allclose(power_spectra(noise + 100), power_spectra(noise), rtol=1e-9)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be square, of 8 pixels or more, not \(1, 3, 16, 8\)"):
        power_spectra(torch.zeros(1, 3, 16, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no power"):
        slope(power_spectra(torch.full((2, 1, 32, 32), 9, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="has 1 rings"):
        slope(np.ones((2, 15)), (0.1, 0.14))
