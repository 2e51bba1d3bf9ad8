"""Latents of two images mixed level by level, and how much of what either picture has comes along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgflow import pixels
from rgflow.flow import Flow
from rgflow.statistics import Interval, bootstrap_interval


def mix(levels: Tensor, z_a: Tensor, z_b: Tensor, cut: float) -> Tensor:
    r"""Takes the levels from `cut` upwards of a, and those below of b.

    .. math::
        z^{(h)} = \Theta_h(\lambda)\, z_A^{(h)} + (1 - \Theta_h(\lambda))\, z_B^{(h)}, \qquad
        \Theta_h = [h \ge \lambda]

    Shapes: levels (H, W); z (B, C, H, W).

    Source: paper, eq. 9.
    """
    return torch.where(levels >= cut, z_a, z_b)


def swap(levels: Tensor, z_host: Tensor, z_donor: Tensor, level: int) -> Tensor:
    """Takes one level of the donor, and all others of the host; shapes as in `mix`.

    Raises:
        ValueError: no such level.
    """
    top = int(levels.max())
    if not 0 <= level <= top:
        raise ValueError(f"level must be one of 0..{top}, not {level}")
    return torch.where(levels == level, z_donor, z_host)


def interpolate(a: Tensor, b: Tensor, weight: float) -> Tensor:
    r"""The usual mixture, :math:`\lambda a + (1 - \lambda) b`, of latents or of uint8 images (rounded).

    Source: paper, section 4 "Face mixing in scaling direction".

    Raises:
        ValueError: a weight outside 0..1, or two shapes.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be in 0..1, not {weight}")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, not {tuple(a.shape)} and {tuple(b.shape)}")
    if a.dtype == torch.uint8:
        return (weight * a.double() + (1 - weight) * b.double()).round().to(torch.uint8)
    return weight * a + (1 - weight) * b


def global_colour(images: Tensor) -> Tensor:
    r"""Mean colour of the lit pixels, each with its brightness as weight.

    .. math:: c_k = \sum_{ij} b_{ij}\, x_{kij} \Big/ \sum_{ij} b_{ij}, \qquad b_{ij} = \sum_k x_{kij}

    Shapes: images (B, C, H, W), uint8; (B, C), grey levels 0..255. A black image has the colour 0.
    """
    values = images.double()
    brightness = values.sum(1, keepdim=True)
    return (brightness * values).sum((2, 3)) / brightness.sum((2, 3)).clamp_min(1e-12)


@torch.no_grad()
def encoded(flow: Flow, images: Tensor, seed: int = 0, batch_size: int = 250) -> Tensor:
    """Latents of uint8 images (N, C, H, W), on the CPU, with noise keyed by (seed, index)."""
    latents = [torch.empty(0, *flow.shape, dtype=flow.dtype)]
    for index in torch.arange(len(images)).split(batch_size):
        noise = pixels.keyed_noise(flow.shape, seed, 0, index, flow.dtype).to(flow.device)
        latents.append(flow.encode(pixels.to_logit(images[index].to(flow.device), noise)[0])[0].cpu())
    return torch.cat(latents)


@torch.no_grad()
def decoded(flow: Flow, z: Tensor, batch_size: int = 250) -> Tensor:
    """Images of latents (N, C, H, W), uint8, on the CPU."""
    images = [torch.empty(0, *flow.shape, dtype=torch.uint8)]
    for part in z.split(batch_size):
        images.append(pixels.from_logit(flow.decode(part.to(flow.device))[0]).cpu())
    return torch.cat(images)


def gallery(flow: Flow, z_a: Tensor, z_b: Tensor) -> Tensor:
    """Mixtures of two images at every cut 0..n + 1, n the top level: first row with A above the cut, second with B.

    In the first row the first picture is A and the last B. Shapes: z (1, C, H, W); uint8 (2, n + 2, C, H, W).

    Raises:
        ValueError: more than one image on a side.

    Source: paper, figure 5 (a) and (b).
    """
    if len(z_a) != 1 or len(z_b) != 1:
        raise ValueError(f"a gallery is of one image on each side, not of {len(z_a)} and {len(z_b)}")
    levels = flow.levels.to(z_a.device)
    cuts = range(int(levels.max()) + 2)
    rows = [[mix(levels, *pair, cut) for cut in cuts] for pair in ((z_a, z_b), (z_b, z_a))]
    return decoded(flow, torch.cat(rows[0] + rows[1])).view(2, len(cuts), *flow.shape)


def pairs_of(count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Random pairs of `count` images, each used once: two lists of indices (count / 2,).

    Raises:
        ValueError: an odd number of images.
    """
    if count % 2:
        raise ValueError(f"images are taken in pairs: their number must be even, not {count}")
    order = torch.randperm(count, generator=generator)
    return order[0::2], order[1::2]


class Triple(NamedTuple):
    """One factor of pictures made of two others, and of these: three tensors (pairs, K)."""

    made: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Weights:
    """How much of each source's factor a made picture has, 95 % bootstrap intervals over pairs."""

    first: Interval
    second: Interval
    pairs: int


def weights(triple: Triple, generator: torch.Generator | None = None, draws: int = 1000) -> Weights:
    r"""Regresses a factor of made pictures on that of their sources.

    .. math:: f(\text{made}) = w_1 f(\text{first}) + w_2 f(\text{second}) + \text{constant}

    by least squares over all pairs and the K components together, each component with its own constant.

    Raises:
        ValueError: other shapes, or fewer than three pairs.
    """
    moments, count = _moments(triple)
    found = (
        bootstrap_interval(moments, lambda m, i=i: _fit(m, count)[i], n=draws, generator=generator) for i in (0, 1)
    )
    return Weights(*found, len(moments))


def separation(
    coarse: Triple,
    fine: Triple,
    control: tuple[Triple, Triple] | None = None,
    generator: torch.Generator | None = None,
    draws: int = 1000,
) -> Interval:
    r"""The first source's weight in a coarse factor less its weight in a fine one.

    .. math:: S = w_1(\text{coarse}) - w_1(\text{fine})

    1 for a mixture with the coarse factor of A and the fine one of B, 0 for one that treats both alike, such as pixels
    that are averaged. With a control (coarse and fine, of the same pairs) S less that of the control. The interval is a
    bootstrap over pairs.

    Raises:
        ValueError: as `weights`, or factors of different numbers of pairs. Source: ours.
    """
    parts = [_moments(triple) for triple in (coarse, fine, *(control or ()))]
    if len({len(moments) for moments, _ in parts}) > 1:
        raise ValueError(f"all factors must be of the same pairs, not of {[len(moments) for moments, _ in parts]}")
    ends = np.cumsum([moments.shape[1] for moments, _ in parts])

    def difference(rows: NDArray) -> float:
        split = np.split(rows, ends[:-1], 1)
        first = [_fit(moments, count)[0] for moments, (_, count) in zip(split, parts, strict=True)]
        return sum(sign * weight for sign, weight in zip((1, -1, -1, 1), first))

    return bootstrap_interval(np.concatenate([m for m, _ in parts], 1), difference, n=draws, generator=generator)


def _moments(triple: Triple) -> tuple[NDArray, int]:
    """What the regression needs of each pair, (pairs, 5 + 3 K): products summed over components, then all values; and
    K. The regression sees means of these alone, so a bootstrap need not draw the factors themselves."""
    shapes = [tuple(part.shape) for part in triple]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1 or shapes[0][0] < 3:
        raise ValueError(f"factors must be three of one shape (pairs, K), with three pairs at least, not {shapes}")
    made, first, second = (part.double().numpy() for part in triple)
    products = [(a * b).sum(1) for a, b in ((first, first), (first, second), (second, second), (first, made))]
    products.append((second * made).sum(1))
    return np.concatenate([np.stack(products, 1), first, second, made], 1), made.shape[1]


def _fit(moments: NDArray, count: int) -> NDArray:
    """The two weights."""
    mean = moments.mean(0)
    first, second, made = mean[5:].reshape(3, count)
    pairs = ((first, first), (first, second), (second, second), (first, made), (second, made))
    aa, ab, bb, at, bt = mean[:5] - [a @ b for a, b in pairs]
    return np.linalg.lstsq(np.array([[aa, ab], [ab, bb]]), np.array([at, bt]), rcond=None)[0]


@dataclass(frozen=True)
class DonorWeight:
    """How much of the donor's colour a swapped level brings: 0 nothing, 1 all of it."""

    level: int
    donor: float
    """regression weight of the donor's colour"""
    host: float
    """regression weight of the host's colour"""
    interval: tuple[float, float]
    """of the donor's weight, 95 %, bootstrap over pairs"""
    pairs: int


def donor_weight(flow: Flow, images: Tensor, level: int, seed: int = 0, batch_size: int = 250) -> DonorWeight:
    r"""Swaps one level between random pairs of images and regresses the decoded global colour on donor's and host's.

    .. math:: c(\text{decoded}) = w_\text{donor}\, c(\text{donor}) + w_\text{host}\, c(\text{host}) + \text{constant}

    by least squares over all pairs and channels, each channel with its own constant.

    Arguments:
        flow: a trained flow.
        images: uint8 (N, C, H, W), N even; the pairing and the noise are fixed by `seed`.
        level: the level that is swapped.

    Source: ours; it puts a number to "levels separate scales" (paper, sec. 1 and figure 5).
    """
    images, generator = images.cpu(), torch.Generator().manual_seed(seed)
    hosts, donors = pairs_of(len(images), generator)
    z = encoded(flow, images, seed, batch_size)
    made = decoded(flow, swap(flow.levels.cpu(), z[hosts], z[donors], level), batch_size)
    found = weights(Triple(*(global_colour(part) for part in (made, images[donors], images[hosts]))), generator, 2000)
    return DonorWeight(level, found.first.value, found.second.value, (found.first.low, found.first.high), found.pairs)
