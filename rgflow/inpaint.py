"""Holes in images: what may fill them, how likely each fill is, the best one, and samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rgflow.conditional import Conditional
from rgflow.flow import Flow
from rgflow.hierarchy import whole
from rgflow.local import Encoding, Plan, frozen
from rgflow.pixels import ALPHA

HIGH = math.log((1 - ALPHA) / ALPHA)  # the logit pixel of white
LOW = -HIGH


def plan(flow: Flow, hole: Tensor | Sequence[int]) -> Plan:
    """Which blocks see a hole, for use with many images.

    Arguments:
        hole: (H, W), bool; or a box, (top, left, height, width), that may cross the periodic border.

    Raises:
        TypeError, ValueError: the hole is neither, has another size, or is empty; the flow has no causal cones.
    """
    geometry = flow.geometry
    return Plan(flow, _pixels(hole, (geometry.height, geometry.width)).to(flow.device))


def condition(flow: Flow, x: Tensor, hole: Tensor | Sequence[int] | Plan) -> Conditional | list[Conditional]:
    """Fixes all pixels of an image but those of a hole.

    What is in the hole makes no difference to any density. It may be NaN; where it is finite it is the fill that other
    holes of the image see (`Conditional.at`) until `update` accepts another.

    Shapes: x (C, H, W), logit pixels; of a batch (B, C, H, W) a list comes back.

    Arguments:
        flow: an RG-Flow; its weights are taken as they are now. `local.frozen(flow)` saves the copy when this is called
            many times.
        hole: as in `plan`, or what it gave.

    Raises:
        TypeError, ValueError: as `plan`; x has another shape or dtype, or is not finite outside the hole.
    """
    known = hole if isinstance(hole, Plan) else plan(flow, hole)
    if x.ndim not in (3, 4) or tuple(x.shape[-3:]) != flow.shape:
        raise ValueError(f"x must have the shape {flow.shape} or (B, {', '.join(map(str, flow.shape))}), "
                         f"not {tuple(x.shape)}")  # fmt: skip
    if x.dtype != flow.dtype:
        raise ValueError(f"x must be {flow.dtype}, as the flow is, not {x.dtype}")
    fixed = frozen(flow)
    filled, (row, column) = x.detach().clone(), known.pixels.T
    inside = filled[..., row, column]
    filled[..., row, column] = inside.where(inside.isfinite(), 0)
    if not filled.isfinite().all():
        raise ValueError("x is not finite outside the hole")
    made = [Conditional(fixed, Encoding(fixed, image), known) for image in filled.view(-1, *flow.shape)]
    return made if x.ndim == 4 else made[0]


def _pixels(hole: Tensor | Sequence[int], size: tuple[int, int]) -> Tensor:
    """(K, 2), row-major."""
    if isinstance(hole, Tensor) and hole.dtype == torch.bool:
        if tuple(hole.shape) != size:
            raise ValueError(f"the hole must have the shape {size}, not {tuple(hole.shape)}")
        mask = hole.cpu()
    else:
        if isinstance(hole, Tensor) or len(hole) != 4:
            raise TypeError("the hole must be a bool tensor (H, W) or a box (top, left, height, width)")
        top, left, height, width = (whole(n, v, 0) for n, v in zip(("top", "left", "height", "width"), hole))
        if height > size[0] or width > size[1] or top >= size[0] or left >= size[1]:
            raise ValueError(f"the box {tuple(hole)} does not fit an image of {size[0]} x {size[1]}")
        mask = torch.zeros(size, dtype=torch.bool)
        rows, columns = torch.arange(top, top + height) % size[0], torch.arange(left, left + width) % size[1]
        mask[rows[:, None], columns] = True
    if not mask.any():
        raise ValueError("the hole is empty: it must hold at least one pixel")
    return mask.nonzero()


@dataclass(frozen=True)
class Mode:
    """The best fill that a search found.

    Shapes: fill (C, K), logit pixels; path (steps,), the density log p(x) of the current fill, nats.
    stopped: "converged" (the best value rose by less than the tolerance within the patience) or "steps".
    """

    fill: Tensor
    log_prob: float
    path: Tensor
    stopped: str


def maximise_latents(
    conditional: Conditional,
    starts: int = 200,
    lr: float = 0.05,
    steps: int = 2000,
    tolerance: float = 0.1,
    patience: int = 100,
    generator: torch.Generator | None = None,
) -> Mode:
    r"""The paper's inpainting: the best of random latents of the cone, then ascent along them.

    .. math:: \max_{z_\text{cone}} \log p\bigl(x_\text{rest}, G(z_\text{cone})_\text{hole}\bigr)

    The latents generate the hole's pixels; these are put into the image, known pixels stay as they are.

    A mode is not a typical sample: it is darker, smoother, and far more probable than the truth.

    Source: paper, appendix D (200 draws, then gradient ascent; Adam there and here).
    """
    prior, dtype = conditional.flow.prior, conditional.flow.dtype
    draws = prior.sample((starts, conditional.latents), 1.0, generator, dtype, conditional.flow.device)
    with torch.no_grad():
        values = conditional.cone_log_prob(conditional.decode(draws)).nan_to_num(-torch.inf)
    z = draws[values.argmax()][None].clone().requires_grad_()
    return _ascend(conditional, z, conditional.decode, lr, steps, tolerance, patience)


def maximise_pixels(
    conditional: Conditional,
    fills: Tensor,
    lr: float = 0.05,
    steps: int = 2000,
    tolerance: float = 0.1,
    patience: int = 100,
) -> Mode:
    """Ascent of the exact conditional density in the pixels themselves, from several fills (S, C, K); the best wins.

    Pixels stay within the range that grey levels have, logit(0.05) to logit(0.95).
    """
    x = fills.clone().clamp(LOW, HIGH).requires_grad_()

    def inside(x: Tensor) -> Tensor:
        return x.clamp(LOW, HIGH)

    return _ascend(conditional, x, inside, lr, steps, tolerance, patience)


def _ascend(
    conditional: Conditional,
    variable: Tensor,
    fills_of: Callable[[Tensor], Tensor],
    lr: float,
    steps: int,
    tolerance: float,
    patience: int,
) -> Mode:
    optimizer, path, stopped = torch.optim.Adam([variable], lr=lr), [], "steps"
    best, best_fill, mark, since = -math.inf, None, -math.inf, 0
    for _ in range(steps):
        fills = fills_of(variable)
        values = conditional.cone_log_prob(fills)
        top = int(values.argmax())
        path.append(float(values[top]))
        if path[-1] > best:
            best, best_fill = path[-1], fills[top].detach().clone()
        since += 1
        if best > mark + tolerance:
            mark, since = best, 0
        elif since >= patience:
            stopped = "converged"
            break
        optimizer.zero_grad()
        (-values.sum()).backward()
        optimizer.step()
    if best_fill is None:
        raise FloatingPointError("the density is finite for none of the fills that were tried")
    outside = float(conditional.outside_log_prob())
    return Mode(best_fill, best + outside, torch.tensor(path, dtype=torch.float64) + outside, stopped)
