"""What single latents do to an image: ranked by effect, walked along, moved together, correlated, swapped by level."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rgflow.flow import Flow
from rgflow.mixing import decoded, encoded, pairs_of
from rgflow.pixels import ALPHA, LEVELS
from rgflow.priors import temperature_map
from rgflow.shares import Triple, Weights, weights
from rgflow.statistics import Interval, jackknife_intervals

Read = Callable[[Tensor], dict[str, Tensor]]  # uint8 images (N, C, H, W) -> factors by name, (N, K) each


class Latent(NamedTuple):
    """One latent, by its place on the lattice."""

    channel: int
    row: int
    column: int


def latents_of(flow: Flow, level: int) -> list[Latent]:
    """All latents of a level, in the order of the columns of `of_level`.

    ValueError: no such level.
    """
    sites = _sites(flow.levels, level).tolist()
    return [Latent(channel, row, column) for channel in range(flow.shape[0]) for row, column in sites]


def of_level(z: Tensor, levels: Tensor, level: int) -> Tensor:
    """The latents of one level as columns: (N, C, H, W) -> (N, C x sites), channel by channel, row by row.

    ValueError: no such level.
    """
    _sites(levels, level)
    return z[:, :, (levels == level).to(z.device)].flatten(1)


def walk_reach(level: int, top: int) -> float:
    """How far the paper walks along a latent, from 0: 1.5 on the two highest levels, 6 below.

    ValueError: no such level. Source: paper, appendix B (its four levels: low is 0 and 1).
    """
    if not 0 <= level <= top:
        raise ValueError(f"level must be one of 0..{top}, not {level}")
    return 1.5 if level >= top - 1 else 6.0


def walk(flow: Flow, z: Tensor, latent: Latent, values: Sequence[float]) -> Tensor:
    """Decodes latents with one of them set to each of the values, the others as they are.

    Shapes: z (B, C, H, W); uint8 (values, B, C, H, W).

    ValueError: no values, or a latent outside the lattice. Source: paper, figure 4 and appendix B.
    """
    if not len(values):
        raise ValueError("a walk needs at least one value")
    steps = torch.stack([_with(flow, z, latent, value) for value in values])
    return decoded(flow, steps.flatten(0, 1)).view(len(values), *z.shape)


@torch.no_grad()
def effects(
    flow: Flow,
    latents: Sequence[Latent],
    reach: float,
    draws: int = 8,
    temperature: float | list | tuple = 0.6,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
    region: Tensor | None = None,
) -> Tensor:
    r"""How strongly each latent changes the picture when it walks from 0 to `reach`, in grey levels.

    .. math:: E_l = \sqrt{\mathbb{E}_z \frac{1}{CHW} \sum_{kij}
        \bigl(v_{kij}(z;\, z_l = a) - v_{kij}(z;\, z_l = 0)\bigr)^2}, \qquad v = 256\,\frac{\sigma(G(z)) - 0.05}{0.9}
        \text{ cut to } 0..256

    a root mean square over pixels, channels and `draws` latents z from the prior at a temperature, the same for all l.
    It sees what the eye sees: a change of logit pixels that are black before and after counts nothing.

    Returns: (len(latents),), float64.

    Arguments:
        region: bool (H, W), the pixels that count; all when None.

    ValueError: no latents, one outside the lattice, fewer than one draw, a reach that is not positive, or a region that
    is not of the picture or empty.

    Source: ours; the paper ranks by the strength of receptive fields (section 4), which is linear and signed.
    """
    if not latents or draws < 1 or not reach > 0:
        raise ValueError(f"needs latents, draws >= 1 and reach > 0, not {len(latents)}, {draws} and {reach}")
    counted = torch.ones(flow.shape[1:], dtype=torch.bool) if region is None else region
    if counted.dtype != torch.bool or counted.shape != flow.shape[1:] or not counted.any():
        raise ValueError(f"region must be bool {tuple(flow.shape[1:])} and not empty, not {tuple(counted.shape)}")
    z = flow.sample_latents(draws, temperature, generator)
    squares = torch.zeros(len(latents), dtype=torch.float64)
    for first in range(0, len(latents), max(1, batch_size // draws)):
        part = latents[first : first + max(1, batch_size // draws)]
        low, high = (
            _grey(flow.decode(torch.cat([_with(flow, z, latent, value) for latent in part]))[0]) for value in (0, reach)
        )
        change = (high - low).square()[..., counted.to(low.device)].flatten(1).mean(1)
        squares[first : first + len(part)] = change.view(len(part), draws).mean(1).double().cpu()
    return squares.sqrt()


@torch.no_grad()
def response(flow: Flow, z: Tensor, latent: Latent, reach: float) -> Tensor:
    """How pictures change when one latent goes from 0 to `reach`: grey levels, not rounded, float64, (B, C, H, W).

    Shapes: z (B, C, H, W), of which the latent's own values do not matter.

    ValueError: a latent outside the lattice.
    """
    low, high = (_grey(flow.decode(_with(flow, z, latent, value))[0]) for value in (0, reach))
    return (high.double() - low.double()).cpu()


def ranked(latents: Sequence[Latent], strengths: Tensor) -> list[tuple[Latent, float]]:
    """Latents with their effects, the strongest first.

    ValueError: different numbers of both.
    """
    if len(latents) != len(strengths):
        raise ValueError(f"{len(latents)} latents need as many strengths, not {len(strengths)}")
    order = torch.argsort(strengths, descending=True, stable=True).tolist()
    return [(latents[k], float(strengths[k])) for k in order]


def random_loop(
    flow: Flow,
    z: Tensor,
    level: int,
    frames: int = 24,
    temperature: float | list | tuple = 0.6,
    latents: Collection[Latent] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Latents that wander at random on one level and come back, all others fixed.

    .. math:: z_l(t) = F^{-1}\bigl(\Phi(y_l(t))\bigr), \qquad y_l(t) = g_l \cos 2\pi t + h_l \sin 2\pi t, \quad
        g_l, h_l \sim N(0, 1)

    F is the distribution function of the prior at the temperature, :math:`\Phi` the normal one: so every frame is a
    draw of the prior, and the last frame leads to the first.

    Shapes: z (1, C, H, W), what stays fixed; returns (frames, C, H, W).

    Arguments:
        latents: those of the level that move; all when None.

    ValueError: no such level, fewer than two frames, another shape of z, or latents that are not of the level.

    Source: ours; the authors animate single factors.
    """
    if frames < 2 or tuple(z.shape) != (1, *flow.shape):
        raise ValueError(f"needs frames >= 2 and z of shape {(1, *flow.shape)}, not {frames} and {tuple(z.shape)}")
    moving = torch.zeros(flow.shape, dtype=torch.bool)
    everyone = latents_of(flow, level)
    for latent in everyone if latents is None else latents:
        if latent not in everyone:
            raise ValueError(f"{latent} is not of level {level}")
        moving[latent] = True
    first, second = (torch.randn(flow.shape, generator=generator, dtype=torch.float64) for _ in "gh")
    angle = 2 * math.pi * torch.arange(frames, dtype=torch.float64)[:, None, None, None] / frames
    heat = temperature_map(temperature, flow.levels.cpu())
    values = _quantiles(flow, first * angle.cos() + second * angle.sin(), heat)
    return torch.where(moving, values.to(flow.dtype), z.cpu())


def correlation(latents: ArrayLike) -> NDArray:
    """Correlation matrix of latents over images, (N, D) -> (D, D).

    ValueError: fewer than three images, or a latent that is constant.

    Source: `test_latent_corr.py` of the original program, for the top level.
    """
    z = _table(latents)
    return np.atleast_2d(np.corrcoef(z, rowvar=False))


def mean_square_correlation(latents: ArrayLike, groups: int = 10, seed: int = 0) -> Interval:
    r"""Mean squared correlation of different latents, less what chance makes of independent ones.

    .. math:: \frac{1}{D(D-1)} \sum_{i \ne j} r_{ij}^2 - \frac{1}{N - 1}

    0 on average for independent latents, 1 (nearly) if all are the same. The interval is a jackknife over groups of
    images. ValueError: as `correlation`, or fewer than two latents.
    """
    z = _table(latents)
    if z.shape[1] < 2:
        raise ValueError(f"correlations need at least two latents, not {z.shape[1]}")

    def excess(rows: NDArray) -> list[float]:
        r = np.corrcoef(rows, rowvar=False)
        return [float((r**2).sum() - len(r)) / (len(r) * (len(r) - 1)) - 1 / (len(rows) - 1)]

    return jackknife_intervals(z, excess, groups=groups, generator=torch.Generator().manual_seed(seed))[0]


def swap_weights(
    flow: Flow, images: Tensor, read: Read, swaps: Sequence[Collection[int]], seed: int = 0, batch_size: int = 250
) -> list[dict[str, Weights]]:
    r"""Swaps levels between random pairs of images and regresses every factor of the decoded picture on its sources.

    .. math:: f(\text{decoded}) = w_\text{donor} f(\text{donor}) + w_\text{host} f(\text{host}) + \text{constant}

    `first` of the weights is the donor's, `second` the host's.

    Arguments:
        images: uint8 (N, C, H, W), N even; the pairing and the noise are fixed by `seed`.
        read: gives the factors of pictures, such as `ovals.factors`; sources and decoded pictures are read alike.
        swaps: which levels come from the donor; one entry per result.

    ValueError: an odd number of images, or no such level.

    Source: ours; `mixing.donor_weight` for any factor and any levels.
    """
    for level in {level for swap in swaps for level in swap}:
        _sites(flow.levels, level)
    images = images.cpu()
    hosts, donors = pairs_of(len(images), torch.Generator().manual_seed(seed))
    z, sources = encoded(flow, images, seed, batch_size), read(images)
    found = []
    for swap in swaps:
        donated = torch.isin(flow.levels.cpu(), torch.tensor(sorted(swap), dtype=torch.long))
        made = read(decoded(flow, torch.where(donated, z[donors], z[hosts]), batch_size))
        generator = torch.Generator().manual_seed(seed)
        triples = {name: Triple(made[name], source[donors], source[hosts]) for name, source in sources.items()}
        found.append({name: weights(triple, generator) for name, triple in triples.items()})
    return found


def _with(flow: Flow, z: Tensor, latent: Latent, value: float) -> Tensor:
    """A copy of z in which one latent has a value."""
    if any(not 0 <= place < size for place, size in zip(latent, flow.shape, strict=True)):
        raise ValueError(f"a latent of this flow lies inside {flow.shape}, not at {tuple(latent)}")
    changed = z.clone()
    changed[:, latent[0], latent[1], latent[2]] = value
    return changed


def _grey(x: Tensor) -> Tensor:
    """Grey levels of logit pixels before they are rounded down."""
    return ((x.sigmoid() - ALPHA) / (1 - 2 * ALPHA) * LEVELS).clamp(0, LEVELS)


def _quantiles(flow: Flow, y: Tensor, heat: float | Tensor) -> Tensor:
    """Normal numbers (..., C, H, W) -> latents of the prior at a temperature, with the same quantiles."""
    name = type(flow.prior).__name__
    if name == "Gaussian":
        return y * heat**0.5
    if name != "Laplace":
        raise ValueError(f"the prior must be Laplace or Gaussian, not {name}")
    return -y.sign() * flow.prior.scale * heat * (math.log(2) + torch.special.log_ndtr(-y.abs()))


def _sites(levels: Tensor, level: int) -> Tensor:
    """(sites, 2), the rows and columns of a level."""
    top = int(levels.max())
    if not 0 <= level <= top:
        raise ValueError(f"level must be one of 0..{top}, not {level}")
    return (levels == level).nonzero()


def _table(latents: ArrayLike) -> NDArray:
    z = np.asarray(latents, dtype=float)
    if z.ndim != 2 or len(z) < 3:
        raise ValueError(f"latents must be (images, latents) with three images at least, not {z.shape}")
    constant = np.flatnonzero(np.ptp(z, 0) == 0)
    if len(constant):
        raise ValueError(f"every latent must vary; constant are columns {constant.tolist()}")
    return z
