"""Holes in images: what may fill them, how likely each fill is, the best one, and samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rgflow.conditional import Conditional
from rgflow.flow import Flow
from rgflow.hierarchy import whole
from rgflow.local import Encoding, Plan, frozen

__all__ = ["Conditional", "condition", "plan"]


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
