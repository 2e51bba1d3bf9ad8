"""Latents of two images mixed level by level, and how much of what either picture has comes along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rgflow import pixels
from rgflow.flow import Flow
from rgflow.shares import Triple, Weights, separation, weights
from rgflow.statistics import Interval


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


def bands(images: Tensor, most: int | None = 128) -> dict[str, Tensor]:
    r"""What pictures show at each scale: grey means of blocks, less those of the blocks twice as wide around them.

    .. math:: b_k = M_k - \uparrow M_{k+1}, \qquad \sum_k \uparrow b_k = \text{the picture in grey}

    with :math:`M_k` the means over blocks of :math:`2^k` pixels and :math:`\uparrow` each value repeated. Blocks are
    doubled while both edges are even; the last band holds the means of the widest blocks themselves.

    Shapes: images (N, C, H, W), uint8; "1 px", "2 px", ... by width of the blocks: float64 (N, K).

    Arguments:
        most: of a band with more components as many are taken, at places drawn once and for all; None for all of them.
            A regular choice would favour the sites of some level.

    Source: ours, after the Laplacian pyramid of Burt and Adelson (1983), with means of blocks for its smoothing.
    """
    means, found, width = images.double().mean(1, keepdim=True), {}, 1
    while min(means.shape[2:]) > 1 and not (means.shape[2] % 2 or means.shape[3] % 2):
        wider = functional.avg_pool2d(means, 2)
        found[f"{width} px"] = (means - wider.repeat_interleave(2, 2).repeat_interleave(2, 3)).flatten(1)
        means, width = wider, 2 * width
    found[f"{width} px"] = means.flatten(1)
    places = {
        name: torch.randperm(band.shape[1], generator=torch.Generator().manual_seed(0))[:most].sort().values
        for name, band in found.items()
    }
    return {name: band[:, places[name]] for name, band in found.items()}


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


@dataclass(frozen=True)
class MixtureScore:
    """What a kind of mixture takes from A (`first`) and from B (`second`), factor by factor.

    separation: A's weight in the coarse factor less that in the fine one; excess: that less the separation of the
    control, latents averaged.
    """

    name: str
    weights: dict[str, Weights]
    separation: Interval
    excess: Interval


def scores(
    flow: Flow,
    images: Tensor,
    read: Callable[[Tensor], dict[str, Tensor]],
    coarse: str,
    fine: str,
    cuts: Sequence[int],
    seed: int = 0,
    batch_size: int = 250,
    draws: int = 1000,
) -> list[MixtureScore]:
    """Mixes random pairs at every cut, and by averaging latents and pixels, and scores each kind of mixture.

    Returns one score per cut ("cut 3", A above), then "latents averaged" and "pixels averaged"; all of the same pairs.

    Arguments:
        images: uint8 (N, C, H, W), N even; the pairing and the noise are fixed by `seed`.
        read: gives the factors of pictures by name, (N, K) each, such as `ovals.factors`; sources and mixtures are read
            alike.
        coarse, fine: names of the factors for the separation.
        draws: of the bootstrap, for each interval.

    Raises:
        ValueError: an odd number of images, fewer than three pairs, or a factor that `read` does not give.

    Source: ours; it puts numbers to the paper's figure 5. The control is the mixture the paper calls conventional.
    """
    images = images.cpu()
    first, second = pairs_of(len(images), torch.Generator().manual_seed(seed))
    z, sources, levels = encoded(flow, images, seed, batch_size), read(images), flow.levels.cpu()
    for name in (coarse, fine):
        if name not in sources:
            raise ValueError(f"{name!r} is not among the factors that are read: {', '.join(sources)}")
    made = {f"cut {cut}": decoded(flow, mix(levels, z[first], z[second], cut), batch_size) for cut in cuts}
    made["latents averaged"] = decoded(flow, interpolate(z[first], z[second], 0.5), batch_size)
    made["pixels averaged"] = interpolate(images[first], images[second], 0.5)
    triples = {}
    for kind, pictures in made.items():
        found = read(pictures)
        triples[kind] = {name: Triple(found[name], source[first], source[second]) for name, source in sources.items()}

    def apart(kind: str, control: tuple[Triple, Triple] | None = None) -> Interval:
        of = triples[kind]
        return separation(of[coarse], of[fine], control, torch.Generator().manual_seed(seed), draws)

    control = triples["latents averaged"][coarse], triples["latents averaged"][fine]
    return [
        MixtureScore(
            kind,
            {name: weights(triple, torch.Generator().manual_seed(seed), draws) for name, triple in of.items()},
            apart(kind),
            apart(kind, control),
        )
        for kind, of in triples.items()
    ]


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
