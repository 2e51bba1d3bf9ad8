"""Latents of two images mixed level by level, and how much of the donor's colour comes along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgflow import pixels
from rgflow.flow import Flow
from rgflow.statistics import bootstrap_interval


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


def global_colour(images: Tensor) -> Tensor:
    r"""Mean colour of the lit pixels, each with its brightness as weight.

    .. math:: c_k = \sum_{ij} b_{ij}\, x_{kij} \Big/ \sum_{ij} b_{ij}, \qquad b_{ij} = \sum_k x_{kij}

    Shapes: images (B, C, H, W), uint8; (B, C), grey levels 0..255. A black image has the colour 0.
    """
    values = images.double()
    brightness = values.sum(1, keepdim=True)
    return (brightness * values).sum((2, 3)) / brightness.sum((2, 3)).clamp_min(1e-12)


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


@torch.no_grad()
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
    order = torch.randperm(len(images), generator=generator)
    hosts, donors = order[0::2], order[1::2]
    if len(hosts) != len(donors):
        raise ValueError(f"images are taken in pairs: their number must be even, not {len(images)}")

    def latents(index: Tensor) -> Tensor:
        noise = pixels.keyed_noise(flow.shape, seed, 0, index, flow.dtype).to(flow.device)
        return flow.encode(pixels.to_logit(images[index].to(flow.device), noise)[0])[0]

    decoded = []
    for host, donor in zip(hosts.split(batch_size), donors.split(batch_size)):
        z = swap(flow.levels, latents(host), latents(donor), level)
        decoded.append(pixels.from_logit(flow.decode(z)[0]).cpu())
    colours = [global_colour(torch.cat(decoded)), global_colour(images[donors]), global_colour(images[hosts])]

    def weights(pairs: NDArray) -> NDArray:
        target, donor, host = (pairs - pairs.mean(0)).transpose(1, 0, 2).reshape(3, -1)  # a constant per channel
        return np.linalg.lstsq(np.stack([donor, host], 1), target, rcond=None)[0]

    pairs = torch.stack(colours, 1).numpy()  # (pairs, 3, C)
    interval = bootstrap_interval(pairs, lambda drawn: weights(drawn)[0], generator=generator)
    return DonorWeight(level, *weights(pairs).tolist(), (interval.low, interval.high), len(hosts))
