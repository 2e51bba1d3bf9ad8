"""Power spectra of images and their slopes: the second-order part of scale invariance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rgflow.pictures import to_channels

BAND = (
    1 / 16,
    0.35,
)  # cycles per pixel: two bins off zero at 32 pixels, below the corner effects of the square lattice


def frequencies(size: int) -> NDArray:
    """The middle of each ring of `power_spectra`, (size // 2 - 1,), cycles per pixel: 1 / size, 2 / size, ..."""
    return np.arange(1, size // 2) / size


def power_spectra(images: Tensor) -> NDArray:
    r"""Power of the grey levels at each spatial frequency, mean over directions.

    .. math:: P(k) = \mathop{\text{mean}}_{|q| \in [k - 1/2, k + 1/2)} \Bigl|\sum_{ij} w_i w_j (g_{ij} - \bar g)
              e^{-2 \pi i (q_1 i + q_2 j) / L}\Bigr|^2 \Big/ \sum_{ij} w_i^2 w_j^2

    with grey levels g between 0 and 1 (ITU-R 601), their mean under the window taken off, and the periodic Hann window
    w, for images do not go on around their border.

    Shapes: uint8 (N, 1 or 3, L, L) -> (N, L // 2 - 1), rings as in `frequencies`.

    Raises:
        ValueError: images that are not square, or smaller than 8 pixels.
    """
    size = images.shape[-1]
    if images.ndim != 4 or images.shape[-2] != size or size < 8:
        raise ValueError(f"images must be square, of 8 pixels or more, not {tuple(images.shape)}")
    grey = to_channels(images, 1)[:, 0].double().numpy() / 255
    line = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    window = line[:, None] * line
    grey = grey - (grey * window).sum((1, 2), keepdims=True) / window.sum()
    power = np.abs(np.fft.fft2(grey * window)) ** 2 / (window**2).sum()
    axis = np.fft.fftfreq(size) * size
    ring = np.floor(np.hypot(axis[:, None], axis) + 0.5).astype(int).ravel()
    count = np.bincount(ring)
    sums = np.stack([np.bincount(ring, one.ravel()) for one in power])
    return (sums / count)[:, 1 : size // 2]


def slope(spectra: NDArray, band: tuple[float, float] = BAND) -> float:
    r"""The exponent a of :math:`\bar P(f) \propto f^a`, by least squares of the logarithm of the mean spectrum.

    About -2 for photographs (Field 1987; Ruderman and Bialek 1994), 0 for white noise. If a distribution of images is
    scale-invariant, the slope does not depend on the scale at which one looks.

    Arguments:
        spectra: (N, L // 2 - 1) of `power_spectra`.
        band: lowest and highest frequency, cycles per pixel.

    Raises:
        ValueError: fewer than three rings in the band, or no power there.
    """
    f = frequencies(2 * spectra.shape[1] + 2)
    inside = (f >= band[0]) & (f <= band[1])
    mean = spectra.mean(0)[inside]
    if inside.sum() < 3:
        raise ValueError(f"the band {band} has {inside.sum()} rings of these spectra; a slope needs at least 3")
    if not (mean > 0).all():
        raise ValueError("the images have no power at some frequency: they are all of one colour")
    return float(np.polynomial.Polynomial.fit(np.log(f[inside]), np.log(mean), 1).convert().coef[1])
