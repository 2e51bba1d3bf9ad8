"""Images <-> logit pixels, and the reproducible noise that makes images continuous."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALPHA = 0.05  # p = ALPHA + (1 - 2 ALPHA) u keeps the logit finite at u = 0 and 1
LEVELS = 256  # grey levels of a uint8 image


def to_logit(
    images: Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Dequantises uint8 images and maps them to logit pixels.

    .. math::
        u = \frac{\text{image} + \text{noise}}{256}, \qquad p = 0.05 + 0.9\,u, \qquad x = \log p - \log(1 - p), \qquad
        \text{ladj} = \sum \bigl(\log 0.9 - \log p - \log(1 - p)\bigr).

    Shapes: images and x (B, C, H, W); ladj (B,), nats, of the map u -> x alone (the factor 256 is the 8 in bits/dim).

    Arguments:
        images: uint8 grey levels.
        noise: (B, C, H, W) in [0, 1); drawn uniformly when None.
        generator: source of the noise.
        dtype: of x; that of the noise, or torch's default, when None.

    Raises:
        TypeError: images are not uint8.
        ValueError: images are not (B, C, H, W), or the noise has another shape (its values are not checked).

    Source: Dinh et al. 2017, sec. 4.1, with alpha = 0.05 as in the code of Hu et al. (arXiv:2010.00029).
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 grey levels, not {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), not {tuple(images.shape)}")
    if noise is None:
        noise = torch.rand(images.shape, generator=generator, dtype=dtype, device=images.device)
    elif noise.shape != images.shape:
        raise ValueError(f"noise must have the shape of the images {tuple(images.shape)}, not {tuple(noise.shape)}")
    u = (images + noise.to(dtype or noise.dtype)) / LEVELS
    p = ALPHA + (1 - 2 * ALPHA) * u
    log_p, log_q = p.log(), torch.log1p(-p)
    ladj = (math.log(1 - 2 * ALPHA) - log_p - log_q).flatten(1).sum(1)
    return log_p - log_q, ladj


def from_logit(x: Tensor) -> Tensor:
    r"""Maps logit pixels back to grey levels: the inverse of `to_logit`, noise dropped.

    .. math:: \text{image} = \bigl\lfloor 256\,(\sigma(x) - 0.05) / 0.9 \bigr\rfloor, \text{ cut to } 0..255.

    Shapes: x (..., H, W), any float dtype; images of the same shape, uint8.

    Raises:
        ValueError: x holds NaN.
    """
    if x.isnan().any():
        raise ValueError("logit pixels hold NaN: they have no grey level")
    u = (x.detach().sigmoid() - ALPHA) / (1 - 2 * ALPHA)
    return (u * LEVELS).floor().clamp(0, LEVELS - 1).to(torch.uint8)


def keyed_noise(
    shape: tuple[int, ...],
    seed: int,
    epoch: int,
    index: Tensor,
    dtype: torch.dtype = torch.float32,
    stream: int = 0,
) -> Tensor:
    """Draws uniform noise that is a pure function of (seed, epoch, image index, stream).

    Every number is the hash of its own key and position (a counter-based generator, the finaliser of splitmix64), so
    the noise of an image depends neither on the batch it is in, nor on its rank or place, nor on the device.

    Shapes: index (B,), int64; the noise (B, *shape) in [0, 1), 24 random bits in float32 and 53 in float64.

    Arguments:
        shape: of the noise of one image.
        stream: separates uses of the same key, such as dequantisation (0) and flips (1).

    Source: Steele, Lea & Flood 2014 (splitmix64); Salmon et al. 2011 for the idea of counter-based noise.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"keyed noise is made in float32 or float64, not {dtype}")
    key = index.to(torch.int64)
    for word in (stream, seed, epoch):
        key = _mix(key ^ _mix(torch.full_like(key, word)))
    counter = torch.arange(math.prod(shape), device=index.device)
    bits = _mix(key[:, None] + (counter + 1) * _GOLDEN)
    kept = 24 if dtype == torch.float32 else 53
    return _shift(bits, 64 - kept).to(dtype).mul_(2.0**-kept).view(-1, *shape)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift(word: Tensor, by: int) -> Tensor:
    return (word >> by) & ((1 << (64 - by)) - 1)  # torch's >> keeps the sign; the mask makes it logical


def _mix(word: Tensor) -> Tensor:
    word = (word ^ _shift(word, 30)) * _MIX_1
    word = (word ^ _shift(word, 27)) * _MIX_2
    return word ^ _shift(word, 31)
