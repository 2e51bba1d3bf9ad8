r"""The linear maps of a flow fitted to images: a wavelet step learned from data, one scale after the other.

A step of the RG keeps block spins and leaves details behind. `whiten` starts each decimator as the linear version of
that. The block spins are Kadanoff's, the averages over cells of 2 x 2 sites, so that every level sees an image again.
The details play the part of wavelet coefficients: what is left of a block when the best linear guess from its block
spins is taken away, decorrelated, and in units of the prior. So at its own scale a latent shares no second-order
information with the other latents of its block or with what is passed on: linearly, the flow starts at the small
mutual information in the bulk that its factorised prior asks for (paper, sec. 3 "Sparse prior distribution"; the minBMI
principle of Hu et al. 2020). The couplings learn the rest.

Source: ours, after the prototype of this project (DESIGN section 5). What it builds on: the wavelets of Haar and the
multiresolution of Mallat 1989, here with details fitted to the data; entanglement renormalisation as a wavelet
transform (Evenbly & White 2016); models of images and fields scale by scale in a wavelet basis (Wavelet Flow, Yu et al.
2020; the wavelet conditional renormalisation group, Marchand et al. 2022); independent components of images (Bell &
Sejnowski 1997); fitting a flow layer by layer without gradients (Gaussianization: Chen & Gopinath 2000, Laparra et al.
2011); data-dependent initialisation (Salimans & Kingma 2016).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rgflow.blocks import Blocks
from rgflow.flow import Flow
from rgflow.pixels import ALPHA, LEVELS

# Half the standard deviation of the dequantisation noise in logit pixels, at the grey level where it is least: images
# that are dequantised have no direction with less.
NOISE = 2 * (1 - 2 * ALPHA) / (LEVELS * math.sqrt(12))
SMALLEST = 1e-9  # variance of a direction, of the largest in the patch: below, float32 has no digits left
SPARSEST = 0.05  # least size of a whitened detail that is brought to the prior's (a detail that is nearly always zero)
ROTATION_PATCHES, ROTATION_STEPS = 8192, 40  # half a second a level; more of either brings 0.01 bits/dim at most


@torch.no_grad()
def whiten(flow: Flow, x: Tensor) -> None:
    r"""Fits the linear maps of the flow's decimators to images, in place, level by level from the finest.

    Of each block of the lattice that reaches a decimator, with mean c and covariance S,

    .. math:: z_\text{coarse} = A\,(x - c) / \sigma, \qquad z_\text{fine} = D\,R\,Q\,S^{-1/2}\,(x - c)

    A averages 2 x 2 sites, channel by channel, with weights 1/2; :math:`\sigma` is one number for the level. Q has
    orthonormal rows, orthogonal to those of :math:`A S^{1/2}` (the details are uncorrelated with the coarse sites and
    with each other) and, among those, nearest to the fine sites themselves (each detail lives around the site it is
    left on). With a Laplace prior the rotation R makes details sparse, see `sparse_rotation`. D gives each detail the
    scale at which the prior makes it most likely: E|z| = 1/sqrt 2 for Laplace, variance 1 for Gaussian. The top level
    has no coarse sites. Couplings, trained or fresh, are run as they are; what was trained of a linear map is lost.

    Of several decimators in a step (`repeat`) only the last is fitted: it is the one that leaves sites behind.

    Shapes: x (n, C, H, W), logit pixels; a few thousand images. 2,000 of 32 x 32 x 3 take seconds. The same flow and
    images give the same maps.

    Raises:
        ValueError: the flow has no such maps; x has another shape or dtype, is not finite, or has too few images: there
            must be twice as many patches as a patch has numbers at each level.
    """
    if getattr(flow.config, "linear", None) != "whitened":
        raise ValueError('only a flow built with linear="whitened" has linear maps to fit')
    _check(flow, x)
    noise = NOISE
    steps = flow.bijector.steps
    for level, step in enumerate(steps):
        *before, decimator = step.blocks
        for half in before:
            x = half.join(_run(half.bijector, half.cut(x), len(x)), x.shape)
        linear, couplings = decimator.bijector.layers
        patches = decimator.cut(x)
        cells = coarse_cells(decimator) if level + 1 < len(steps) else None
        matrix, centre, scale = linear_map(patches, cells, noise, sparse=flow.config.prior == "laplace")
        linear.fit(matrix, centre)
        x = decimator.join(_run(couplings, linear(patches)[0], len(x)), x.shape)[:, :, ::2, ::2]
        noise /= scale


def linear_map(patches: Tensor, cells: Tensor | None, noise: float, sparse: bool) -> tuple[Tensor, Tensor, float]:
    r"""Fits the map of one level, as `whiten` has it.

    Shapes: patches (N, d); returns the matrix (d, d) and the centre (d,), float64, and :math:`\sigma`.

    Arguments:
        cells: (d,), for each feature the coarse feature that averages over it, as `coarse_cells` gives; None at the top
            level, where all features are details.
        noise: standard deviation below which no direction is taken to vary (constant or single-colour images).
        sparse: details as a Laplace prior likes them, else a Gaussian.
    """
    size = patches.shape[1]
    mean, covariance = _moments(patches)
    variance, directions = torch.linalg.eigh(covariance)
    variance = variance.clamp_min(max(noise**2, SMALLEST * variance[-1].item()))
    root, whitener = ((directions * variance**power) @ directions.T for power in (0.5, -0.5))
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    matrix, scale, fine, rest = torch.zeros_like(identity), 1.0, torch.arange(size), identity
    if cells is not None:
        coarse = cells.unique()
        fine = torch.tensor(sorted(set(range(size)) - set(coarse.tolist())))
        average = (cells == coarse[:, None]).to(identity) / 2
        amplitudes = average @ root
        scale = amplitudes.square().sum(1).mean().sqrt().item()
        matrix[coarse] = average / scale
        rest = torch.linalg.qr(amplitudes.T, mode="complete").Q.T[len(coarse) :]  # orthogonal to the coarse
    details = _orthogonal(rest[:, fine].T) @ rest @ whitener
    values = (patches - mean.to(patches)) @ details.T.to(patches)
    if sparse:
        some = torch.randint(len(values), (ROTATION_PATCHES,), generator=torch.Generator().manual_seed(0))
        rotation = sparse_rotation(values[some.to(values.device)])
        values, details = values @ rotation.T, rotation.to(details) @ details
    deviations = values.square().mean(0).sqrt()  # 1, or less where the noise was put in the place of the variance:
    sizes = values.abs().mean(0) * math.sqrt(2) if sparse else deviations
    sizes = sizes + (1 - deviations).clamp_min(0)  # there the noise is the unit
    matrix[fine] = details / sizes.clamp_min(SPARSEST)[:, None].to(details)
    return matrix, mean, scale


def sparse_rotation(y: Tensor) -> Tensor:
    r"""Rotation R that makes whitened features as likely as can be under a Laplace prior of any scale for each.

    .. math:: \min_R \sum_i \log \langle |s_i| \rangle, \qquad s = R\,y

    Descent on the rotations from the identity, along the gradient brought back to it by the matrix exponential:
    :math:`R \leftarrow e^{-\eta (G - G^T)} R` with :math:`G_{ij} = \langle \text{sgn}(s_i)\, s_j \rangle /
    \langle |s_i| \rangle`. It stays near where it starts, so that details stay on their sites.

    Shapes: y (N, k), R (k, k).

    Source: independent component analysis by maximum likelihood (Bell & Sejnowski 1995, there without the constraint).
    """
    rotation, step = torch.eye(y.shape[1], dtype=y.dtype, device=y.device), 0.5
    s, sizes = y, _mean_sizes(y)
    for _ in range(ROTATION_STEPS):
        gradient = s.sign().T @ s / len(s) / sizes[:, None]
        while step > 1e-3:  # halved until the step does some good
            turn = torch.linalg.matrix_exp(step * (gradient.T - gradient))
            turned = s @ turn.T
            if _mean_sizes(turned).log().sum() < sizes.log().sum():
                break
            step /= 2
        else:
            break
        s, sizes, rotation, step = turned, _mean_sizes(turned), turn @ rotation, 1.5 * step
    return _orthogonal(rotation)


def coarse_cells(blocks: Blocks) -> Tensor:
    """For each feature of a patch, which feature stands for its cell of 2 x 2 sites: the one on the site of the cell
    that is passed on, that is with even coordinates on the lattice; of the same channel. Shape (d,), int64.

    A shift by an odd number of sites (m = 2 in the authors' order) moves that site within the cell.
    """
    rows, columns = blocks.block
    channel, row, column = blocks.order // (rows * columns), blocks.order // columns % rows, blocks.order % columns
    inside = blocks.shift % 2
    site = (channel * rows + row // 2 * 2 + inside) * columns + column // 2 * 2 + inside
    return blocks.inverse_order[site]


def _mean_sizes(s: Tensor) -> Tensor:
    return s.abs().mean(0).clamp_min(SPARSEST / 10)


def _moments(patches: Tensor, chunk: int = 1 << 14) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) in float64: variances differ by factors of 10^5."""
    mean = torch.stack([part.double().sum(0) for part in patches.split(chunk)]).sum(0) / len(patches)
    covariance = torch.zeros(len(mean), len(mean), dtype=mean.dtype, device=mean.device)
    for part in patches.split(chunk):
        part = part.double() - mean
        covariance += part.T @ part
    return mean, covariance / len(patches)


def _orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal matrix nearest to a square one (Procrustes)."""
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def _run(bijector: nn.Module, patches: Tensor, images: int, chunk: int = 1 << 14) -> Tensor:
    """Patches (N, d) of some images data to latent, a few images at a time, for networks may know a patch's place;
    fresh couplings are the identity and not worth the time."""
    each = len(patches) // images
    some = patches.unflatten(0, (images, each))[:: max(1, images * each // 64)].flatten(0, 1)
    if torch.allclose(bijector(some)[0], some, rtol=0, atol=1e-4):  # a spline is the identity to rounding
        return patches
    return torch.cat([bijector(part)[0] for part in patches.split(max(1, chunk // each) * each)])


def _check(flow: Flow, x: Tensor) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != flow.shape or x.dtype != flow.dtype:
        given, allowed = f"{tuple(x.shape)} of {x.dtype}", f"(n, {', '.join(map(str, flow.shape))}) of {flow.dtype}"
        raise ValueError(f"x must be {allowed}, not {given}")
    block, size = flow.config.block**2, math.prod(flow.shape[1:])
    blocks = size // block >> 2 * flow.geometry.depth  # of the top level, in an image
    least = math.ceil(2 * flow.shape[0] * block / blocks)
    if len(x) < least:
        raise ValueError(f"whitening this flow takes at least {least} images, not {len(x)}")
    if not x.isfinite().all():
        raise ValueError("x holds numbers that are not finite")
