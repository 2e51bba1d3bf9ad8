"""Receptive fields: how the picture answers, on average, to a small change of one latent; their size on the torus."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rgflow.cones import generation_cone
from rgflow.flow import Flow
from rgflow.hierarchy import Geometry, whole
from rgflow.jacobians import block_derivatives, checked_latents, derivatives

Temperature = float | Tensor | list | tuple


@dataclass(frozen=True)
class ReceptiveFields:
    """Receptive fields of K latents from n draws of z; all on the CPU, in float64."""

    latents: Tensor
    """(K, 3): channel, row and column"""
    levels: Tensor
    """(K,)"""
    mean: Tensor
    """(K, C, H, W): the receptive field, signed (eq. 8); logit pixels per unit of the latent"""
    magnitude: Tensor
    """(K, C, H, W): the mean magnitude E|dx/dz|, another quantity: it does not cancel where the sign varies with z"""
    error: Tensor
    """(K,): L2 norm of the standard error of `mean`"""
    draws: int

    @functools.cached_property
    def strengths(self) -> Tensor:
        r"""The L2 norm of the receptive field over pixels and channels, (K,), without what the noise of n draws adds.

        .. math:: s_l = \sqrt{\max(0,\ |\text{mean}_l|^2 - \text{error}_l^2)}

        since the square of a mean exceeds the square of the expectation by its variance. Logit pixels per unit.

        Source: paper, section 4 and figure 3(c), which do not say which norm; L2 is ours (DESIGN section 3).
        """
        return (self.mean.flatten(1).norm(dim=1).square() - self.error.square()).clamp_min(0).sqrt()

    @functools.cached_property
    def radii(self) -> Tensor:
        """The `radius` of the squared receptive field, (K,), sites."""
        return radius(self.mean.square().sum(1))


def receptive_fields(
    flow: Flow,
    latents: Tensor,
    n: int = 100,
    temperature: Temperature = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> ReceptiveFields:
    r"""Measures the receptive fields of some latents, with exact derivatives, at n draws of z from the prior.

    .. math:: \text{RF}_l = \mathbb{E}_{z \sim p_Z} \frac{\partial G(z)}{\partial z_l}, \qquad
        \text{magnitude}_l = \mathbb{E}_{z \sim p_Z} \left|\frac{\partial G(z)}{\partial z_l}\right|

    All latents meet the same n draws. The derivatives are those of `block_derivatives` where the flow has blocks and
    the latents are more than the features of one, else those of `derivatives`.

    Shapes: latents (K, 3), rows (channel, row, column), as `latents_of` gives them.

    Arguments:
        n: draws of z, at least 2.
        temperature: of the prior, as in `Flow.sample`; the paper's is 1.
        batch_size: pairs of draw and latent that are computed at once.

    Raises:
        ValueError: n below 2, batch_size below 1, or latents as in `derivatives`.

    Source: paper, eq. 8. Its figures 3(b) and 10-14 are called receptive fields, so by eq. 8 they show the signed mean;
        their captions say that each is scaled to strength one, and not how signs are drawn.
    """
    latents, n = checked_latents(flow, latents), whole("n", n, 2)
    z = flow.sample_latents(n, temperature, generator)
    total = torch.zeros(len(latents), *flow.shape, dtype=torch.float64)
    magnitude, squares = torch.zeros_like(total), torch.zeros(len(latents), dtype=torch.float64)
    by_blocks = flow.has_cones and len(latents) > flow.shape[0] * flow.geometry.block**2
    for rows, columns in (_block_columns if by_blocks else _columns)(flow, z, latents, whole("batch_size", batch_size)):
        columns = columns.cpu()
        total[rows] += columns.sum(0)
        magnitude[rows] += columns.abs().sum(0)
        squares[rows] += columns.square().sum((0, 2, 3, 4), dtype=torch.float64)
    mean = total / n
    variance = (squares - n * mean.square().sum((1, 2, 3))).clamp_min(0) / (n - 1)
    levels = flow.levels.cpu()[latents[:, 1], latents[:, 2]]
    return ReceptiveFields(latents, levels, mean, magnitude / n, (variance / n).sqrt(), n)


def pooled(parts: Sequence[ReceptiveFields]) -> ReceptiveFields:
    """One measurement from several of the same latents with draws of their own, as if all had been drawn at once.

    Raises:
        ValueError: no parts, or parts of other latents.
    """
    first = _checked_parts(parts, 1)
    n, counts = sum(part.draws for part in parts), torch.tensor([part.draws for part in parts]).double()
    mean, magnitude = (sum(getattr(p, name) * p.draws for p in parts) / n for name in ("mean", "magnitude"))
    # n (n - 1) error^2 is the sum of squares around the mean, which is that within parts and that between them
    within = (torch.stack([p.error.square() for p in parts]) * (counts * (counts - 1))[:, None]).sum(0)
    between = sum((p.mean - mean).square().sum((1, 2, 3)) * p.draws for p in parts)
    error = ((within + between) / (n * (n - 1))).sqrt()
    return ReceptiveFields(first.latents, first.levels, mean, magnitude, error, n)


def median_of_means(parts: Sequence[ReceptiveFields]) -> Tensor:
    """The receptive field that a few wild draws do not move: of the means of the parts the median, pixel by pixel.

    With an odd number of parts; where a derivative is as often above its mean as below, it estimates the same
    expectation as the mean, eq. 8, else something between the mean and the median.

    Shape: (K, C, H, W), float64.

    Raises:
        ValueError: an even number of parts, fewer than three, or parts of other latents.

    Source: the estimator of Nemirovski & Yudin 1983 for means with heavy tails; for fields ours.
    """
    _checked_parts(parts, 3)
    if len(parts) % 2 == 0:
        raise ValueError(f"the median needs an odd number of parts, not {len(parts)}")
    return torch.stack([part.mean for part in parts]).median(0).values


def _checked_parts(parts: Sequence[ReceptiveFields], least: int) -> ReceptiveFields:
    if len(parts) < least or not all(torch.equal(p.latents, parts[0].latents) for p in parts):
        raise ValueError(f"parts must be {least} or more of the same latents, not {len(parts)} of any")
    return parts[0]


def reach(
    flow: Flow,
    latents: Tensor,
    n: int = 1,
    temperature: Temperature = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Tensor:
    r"""The largest :math:`|\partial x / \partial z_l|` at each site, over channels and n draws of z; exact zeros stay.

    The derivatives are those of `derivatives`, which knows nothing of blocks: outside the generation cone it must be 0
    (paper, section 3), and that is seen here, not put in. `cones_of` gives the cones.

    Shape: (K, H, W), in the flow's dtype, on the CPU. Arguments and errors as in `receptive_fields`, but for n, which
    may be 1.
    """
    latents = checked_latents(flow, latents)
    z = flow.sample_latents(whole("n", n), temperature, generator)
    largest = torch.zeros(len(latents), *flow.shape[1:], dtype=flow.dtype)
    for rows, columns in _columns(flow, z, latents, whole("batch_size", batch_size)):
        largest[rows] = largest[rows].maximum(columns.abs().amax((0, 2)).cpu())
    return largest


def cones_of(geometry: Geometry, latents: Tensor) -> Tensor:
    """The generation cones of some latents, bool (K, H, W); latents (K, 3), of which the channel does not matter."""
    found: dict[tuple[int, ...], Tensor] = {}
    for site in map(tuple, latents[:, 1:].tolist()):
        if site not in found:
            found[site] = generation_cone(geometry, site)
    return torch.stack([found[site] for site in map(tuple, latents[:, 1:].tolist())])


@dataclass(frozen=True)
class Leak:
    """How the derivatives by some latents lie with respect to their cones."""

    outside: float
    """the largest magnitude outside, 0 if every cone is the whole lattice"""
    inside: float
    """the largest magnitude inside"""
    size: float
    """pixels of a cone, median over the latents"""
    filled: float
    """share of the pixels of a cone that are not 0, least of all latents"""


def leak(felt: Tensor, cones: Tensor) -> Leak:
    """Holds magnitudes of derivatives against cones.

    Shapes: felt (K, H, W), as `reach` gives them; cones (K, H, W), bool, as `cones_of` gives them.

    Raises:
        ValueError: other shapes, no latents, or an empty cone.
    """
    if felt.ndim != 3 or not len(felt) or cones.shape != felt.shape or cones.dtype != torch.bool:
        raise ValueError(f"magnitudes (K, H, W), K at least 1, need bool cones of their shape, not "
                         f"{tuple(felt.shape)} and {cones.dtype} {tuple(cones.shape)}")  # fmt: skip
    sizes = cones.sum((1, 2)).double()
    if not sizes.all():
        raise ValueError("a cone is empty: each holds at least the pixels of one block")
    answering = ((felt != 0) & cones).sum((1, 2))
    return Leak(
        felt.masked_fill(cones, 0).max().item(),
        felt.masked_fill(~cones, 0).max().item(),
        sizes.quantile(0.5).item(),
        (answering / sizes).min().item(),
    )


def radius(weights: Tensor) -> Tensor:
    r"""Radius of gyration of a map of weights on the periodic lattice, cut open where that makes it least.

    .. math:: r^2 = \min_k \text{Var}_p[(i - k) \bmod H] + \min_k \text{Var}_p[(j - k) \bmod W], \qquad
        p_{ij} = w_{ij} \Big/ \sum w

    This is the usual radius around the centre of mass for whatever does not reach around the torus, and the mean
    squared distance from the nearest centre there is for the rest. One site has 0, a square of k x k equal ones
    :math:`\sqrt{(k^2 - 1) / 6}`, and the whole lattice is a square.

    Shapes: weights (..., H, W), not negative (the squared receptive field, or a cone); (...), float64, sites.

    Raises:
        ValueError: negative or not finite weights, or a map of zeros, which has no size.

    Source: ours; the intrinsic variance on a circle is that of Hotz & Huckemann 2015.
    """
    w = torch.as_tensor(weights, dtype=torch.float64)
    if w.ndim < 2 or not (w.isfinite().all() and (w >= 0).all()):
        raise ValueError(f"weights must be finite, not negative and (..., H, W), not {tuple(w.shape)} from {w.min()}")
    total = w.sum((-2, -1), keepdim=True)
    if not (total > 0).all():
        raise ValueError("weights are zero everywhere in at least one map: it has no radius")
    p = w / total
    return (_circular_variance(p.sum(-1)) + _circular_variance(p.sum(-2))).sqrt()


def crops(maps: Tensor, cones: Tensor) -> list[Tensor]:
    """Each map cut down to the rows and columns that its cone touches, in one piece even where it reaches around.

    Shapes: maps (K, H, W); cones (K, H, W), bool, none empty; a list of (h, w).
    """
    found = []
    for grey, cone in zip(maps, cones, strict=True):
        for axis in (0, 1):
            touched = cone.any(1 - axis)
            starts = (touched & ~touched.roll(1)).nonzero()  # none where all are touched
            turn = -int(starts[0]) if len(starts) else 0
            grey = grey.roll(turn, axis).narrow(axis, 0, int(touched.sum()))
        found.append(grey)
    return found


def principal(fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""The best product of one colour and one grey map for each field: what a figure in one colour scale can show.

    .. math:: \text{field}_{cij} \approx u_c\, g_{ij}, \qquad |u| = 1, \qquad
        \text{share} = |g|^2 / |\text{field}|^2

    by the first singular vectors; signs such that the channels of u sum to no less than 0: g above 0 is brighter.

    Shapes: fields (K, C, H, W); g (K, H, W), u (K, C), share (K,), 1 for one channel.

    Source: ours.
    """
    u, s, v = torch.linalg.svd(fields.flatten(2), full_matrices=False)
    sign = torch.where(u[:, :, 0].sum(1) < 0, -1.0, 1.0).to(fields.dtype)[:, None]
    grey = (sign * s[:, :1] * v[:, 0]).unflatten(1, fields.shape[2:])
    squares = s.square()
    return grey, sign * u[:, :, 0], squares[:, 0] / squares.sum(1).clamp_min(torch.finfo(s.dtype).tiny)


def _columns(flow: Flow, z: Tensor, latents: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `derivatives`: rows of `latents` (b,), and theirs at some of the draws (n', b, C, H, W)."""
    for rows in torch.arange(len(latents)).split(batch_size):
        for draws in z.split(max(1, batch_size // len(rows))):
            yield rows, derivatives(flow, draws, latents[rows])


def _block_columns(flow: Flow, z: Tensor, latents: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same from `block_derivatives`."""
    for point in z.split(1):
        columns = block_derivatives(flow, point, latents)
        for rows in torch.arange(len(latents)).split(batch_size):
            yield rows, columns[:, rows]


def _circular_variance(p: Tensor) -> Tensor:
    """Probabilities on a ring (..., L) -> the least variance over all places to cut it, (...)."""
    edge = p.shape[-1]
    place = torch.arange(edge, dtype=p.dtype)
    cut = torch.stack([p.roll(-k, -1) for k in range(edge)], -2)  # (..., cut, place)
    mean = (cut * place).sum(-1, keepdim=True)
    return (cut * (place - mean).square()).sum(-1).amin(-1)
