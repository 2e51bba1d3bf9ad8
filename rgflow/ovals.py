"""What the ovals of an MSDS picture are: read off its pixels, real or decoded, or taken from its label."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rgflow.mixing import global_colour
from rgflow.synthetic import CELL, GRID, SIZE, stamp

STEP = 2  # degrees between the angles that are tried
WINDOW = CELL + 2
RIM = 0.1  # weight of the pixels around a cell, into which its neighbours may reach
GLOBAL = {"msds1": "global colour", "msds2": "global angle"}  # the factor that the ovals of a picture share
LOCAL = {"msds1": ("angles", "positions"), "msds2": ("positions",)}  # those that are free, and finer than the top level


@dataclass(frozen=True)
class Ovals:
    """The sixteen ovals of N pictures, by grid row and column.

    centre: (N, 4, 4, 2), pixels down and right from the middle of the cell; angle: (N, 4, 4), degrees in [0, 180),
    counter-clockwise; colour: (N, 4, 4, 3), grey levels; share: (N, 4, 4), of the power (sum of squares) around the
    cell that the oval explains, 0 for a black cell.
    """

    centre: Tensor
    angle: Tensor
    colour: Tensor
    share: Tensor


def read(images: Tensor, batch_size: int = 250) -> Ovals:
    r"""Finds in each cell the oval that fits best, among nine shifts and angles two degrees apart.

    .. math::
        t = \arg\max_t \sum_k \frac{\langle x_k, t\rangle^2}{\langle t, t\rangle}, \qquad
        c_k = \frac{\langle x_k, t\rangle}{\langle t, t\rangle}

    over the cell and, with a tenth of the weight, one pixel around it: least squares for one oval of any colour c on
    black. An oval does not turn about its own centre, so all 360 degrees are tried; the angle is then given modulo 180.
    Centres are those of the templates' brightness, and continuous where the label is not: an oval of 180 degrees is one
    of 0 degrees moved by a pixel each way.

    Shapes: images uint8 (N, 3, 32, 32).

    ValueError: another shape or dtype. Source: ours.
    """
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, SIZE, SIZE):
        raise ValueError(f"images must be uint8 (N, 3, {SIZE}, {SIZE}), not {images.dtype} {tuple(images.shape)}")
    templates, angles, centres = _templates()
    weight = _weight()
    power = (weight * templates.square()).sum(1)
    found, colours, shares = [], [], []
    for part in images.split(batch_size):
        windows = functional.pad(part.float(), (1, 1, 1, 1)).unfold(2, WINDOW, CELL).unfold(3, WINDOW, CELL)
        values = windows.permute(0, 2, 3, 1, 4, 5).flatten(4)  # (B, 4, 4, 3, 100)
        overlap = values @ (weight * templates).T  # (B, 4, 4, 3, templates)
        fit, best = (overlap.square().sum(3) / power).max(-1)
        colour = overlap.gather(4, best[..., None, None].expand(*best.shape, 3, 1))[..., 0] / power[best][..., None]
        found.append(best)
        colours.append(colour)
        shares.append(fit / (weight * values.square()).sum((3, 4)).clamp_min(1e-9))
    best = torch.cat(found)
    return Ovals(centres[best], angles[best], torch.cat(colours), torch.cat(shares))


def labelled(labels: dict[str, Tensor]) -> Ovals:
    """The same from the labels of `synthetic.msds1` or `msds2`, where the share is 1."""
    shifts, angles = labels["position"], labels["angle"]
    centre = _centres(stamp(shifts.reshape(-1, 2), angles.reshape(-1))).view(*angles.shape, 2)
    return Ovals(centre.float(), angles % 180, labels["colour"].float(), torch.ones_like(angles))


def factors(images: Tensor) -> dict[str, Tensor]:
    """The factors of `named`, all read off the pictures: uint8 (N, 3, 32, 32) -> name: float64 (N, K)."""
    return named(read(images)) | {"global colour": global_colour(images)}


def known_factors(labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """The factors of `named` from the labels of a set, the global one being that from which the set was drawn."""
    found, shared = named(labelled(labels)), labels["global"].double()
    if shared.ndim == 2:
        return found | {"global colour": shared}
    return found | {"global angle": _doubled(shared[:, None] + 22.5)}  # the mean of the ovals is 22.5 degrees further


def named(ovals: Ovals) -> dict[str, Tensor]:
    r"""Factors of pictures as vectors, so that a mean and a regression make sense, angles by :math:`(\cos 2\theta,
    \sin 2\theta)`.

    "global colour" (N, 3): mean colour; "global angle" (N, 2): mean of the doubled angles, with brightness as weight;
    "own colours" (N, 48): colours less the picture's mean; "angles" (N, 32): doubled angles; "own angles" (N, 16): sine
    of the doubled difference to the global angle; "positions" (N, 32): centres.
    """
    colour, angle = ovals.colour.double(), ovals.angle.double().flatten(1)
    weight = colour.sum(-1).clamp_min(0).flatten(1)
    doubled = _doubled(angle).unflatten(1, (2, GRID * GRID))
    shared = (weight[:, None] * doubled).sum(2) / weight.sum(1, keepdim=True).clamp_min(1e-12)
    own = torch.deg2rad(2 * (angle - degrees(shared)))
    return {
        "global colour": colour.mean((1, 2)),
        "global angle": shared,
        "own colours": (colour - colour.mean((1, 2), keepdim=True)).flatten(1),
        "angles": doubled.flatten(1),
        "own angles": own.sin(),
        "positions": ovals.centre.double().flatten(1),
    }


def degrees(doubled: Tensor) -> Tensor:
    """(cos, sin) of doubled angles (N, 2) -> degrees in [0, 180), (N, 1)."""
    return (torch.rad2deg(torch.atan2(doubled[:, 1:], doubled[:, :1])) / 2) % 180


def _doubled(angle: Tensor) -> Tensor:
    """(N, k) degrees -> (N, 2 k): cosines, then sines."""
    radians = torch.deg2rad(2 * angle.double())
    return torch.cat([radians.cos(), radians.sin()], 1)


def _centres(alpha: Tensor) -> Tensor:
    """(N, 10, 10) -> (N, 2), the centre of brightness down and right of the middle, pixels."""
    axis = torch.arange(WINDOW, dtype=alpha.dtype) - (WINDOW - 1) / 2
    total = alpha.sum((1, 2))
    return torch.stack([(alpha.sum(2) @ axis) / total, (alpha.sum(1) @ axis) / total], 1)


def _weight() -> Tensor:
    """(100,), of the pixels of a window."""
    weight = torch.full((WINDOW, WINDOW), RIM)
    weight[1:-1, 1:-1] = 1
    return weight.flatten()


@functools.cache
def _templates() -> tuple[Tensor, Tensor, Tensor]:
    """All ovals that are tried: (T, 100), with their angles (T,) and centres (T, 2)."""
    shifts = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).to(torch.int8)
    angles = torch.arange(0, 360, STEP, dtype=torch.float64)
    alpha = stamp(shifts.repeat(len(angles), 1), angles.repeat_interleave(len(shifts)))
    return alpha.flatten(1).float(), (angles % 180).repeat_interleave(len(shifts)).float(), _centres(alpha).float()
