"""What each level of a hierarchy contributes to log p, and when it has converged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rgflow.batches import Indexed, noise
from rgflow.flow import Flow
from rgflow.pixels import to_logit


@torch.no_grad()
def bits_by_level(
    flow: Flow, images: Dataset, batch_size: int = 64, seed: int = 0, indices: Sequence[int] | None = None
) -> Tensor:
    r"""Contributions of the levels to bits/dim of single images, :math:`-\ell_h / (D \ln 2)` with D = C H W; see
    `Flow.log_prob_by_level`.

    Their sum over levels is `batches.code_lengths` less the part of the pixels' logarithms, which no weight changes:
    :math:`8 - \text{ladj} / (D \ln 2)`. The noise is that of `batches.code_lengths`.

    Shapes: (n, levels), float64 on the CPU, lowest first.

    Raises:
        ValueError: no images, or a flow without RG steps.
    """
    source = images if isinstance(images, Indexed) else Indexed(images)
    chosen = list(range(len(source))) if indices is None else list(indices)
    dimensions = math.prod(flow.shape) * math.log(2)
    rows = []
    for first in range(0, len(chosen), batch_size):
        batch, index = (part.to(flow.device) for part in source.__getitems__(chosen[first : first + batch_size]))
        x, _ = to_logit(batch, noise(batch, seed, 0, index, flow.dtype), dtype=flow.dtype)
        rows.append(-flow.log_prob_by_level(x).double().cpu() / dimensions)
    if not rows:
        raise ValueError("there are no images to evaluate")
    return torch.cat(rows)


def smoothed(curve: Sequence[float]) -> tuple[NDArray, float]:
    """A recorded curve without its noise, and where it ends: the running median of five values (fewer at the ends), and
    the mean of the last four.

    Single values of a noisy curve leave any band now and then, so what is asked of `converged` is not asked of them.
    """
    values = np.asarray(curve, float)
    around = [values[max(0, k - 2) : k + 3] for k in range(len(values))]
    return np.array([np.median(window) for window in around]), float(values[-4:].mean())


def converged(steps: Sequence[int], curve: Sequence[float], tolerance: float = 0.05) -> int:
    r"""The first recorded step from which on a curve stays near its end.

    Near: :math:`|\tilde c_k - c_\text{end}| \le \epsilon\, (\max_j \tilde c_j - \min_j \tilde c_j)`, with the running
    median and the end of `smoothed`. The range, not the distance from first to last: a level may go up and come back. A
    curve that is not near at the last step counts as converged there.

    Arguments:
        steps: (K,), rising.
        curve: (K,), a value for each.
        tolerance: :math:`\epsilon`, in (0, 1).

    Raises:
        ValueError: other shapes, fewer than two points, steps that do not rise, a value that is not finite, or a
            tolerance outside (0, 1).
    """
    at, values = _checked(steps, curve)
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, not {tolerance}")
    smooth, end = smoothed(values)
    far = (np.abs(smooth - end) > tolerance * np.ptp(smooth)).nonzero()[0]
    return int(at[min(far[-1] + 1, len(at) - 1)]) if len(far) else int(at[0])


def still_moving(steps: Sequence[int], curve: Sequence[float]) -> float:
    """The share of a curve's range that it still covers in the last quarter of the steps, of the running median of
    `smoothed`: large, if training has ended before the curve has.

    Shapes and errors as in `converged`.
    """
    at, values = _checked(steps, curve)
    smooth, _ = smoothed(values)
    return float(np.ptp(smooth[at >= 0.75 * at[-1]]) / np.ptp(smooth)) if np.ptp(smooth) > 0 else 0.0


def _checked(steps: Sequence[int], curve: Sequence[float]) -> tuple[NDArray, NDArray]:
    at, values = np.asarray(steps), np.asarray(curve, float)
    if at.ndim != 1 or at.shape != values.shape or len(at) < 2 or not (np.diff(at) > 0).all():
        raise ValueError(f"steps must rise and go with the curve, at least two of each, not {at.shape}, {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("all values of the curve must be finite")
    return at, values


def lag(steps: Sequence[int]) -> float:
    """How many doublings of the training the lowest level has converged after the last of the others; negative: before.

    Arguments:
        steps: at which each level has converged, lowest first; 0 counts as 1.

    Raises:
        ValueError: fewer than two levels, or a negative step.
    """
    if len(steps) < 2 or min(steps) < 0:
        raise ValueError(f"steps must be of two levels or more, none negative, not {list(steps)}")
    return math.log2(max(1, steps[0]) / max(1, *steps[1:]))
