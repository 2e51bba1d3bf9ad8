"""The highest point of a density: ascent by gradients, and what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ascent:
    """How to climb: Adam, until the best value rises by less than `tolerance` in `patience` steps.

    Arguments:
        lr: Adam's step, in the units of what is varied (latents, logit pixels).
        steps: at most so many.
        tolerance: nats.
        patience: steps.

    Raises:
        ValueError: one of them is not above 0.
    """

    lr: float = 0.05
    steps: int = 2000
    tolerance: float = 0.1
    patience: int = 100

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "tolerance", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class Mode:
    """The best fill of a hole that a search found.

    Shapes: fill (C, K), logit pixels; path (steps,), log p of the best start's fill at each step, nats.

    Arguments:
        log_prob: log p of the image with this fill, nats.
        stopped: "converged", or "steps" where these were used up.
    """

    fill: Tensor
    log_prob: float
    path: Tensor
    stopped: str


def climb(
    log_prob: Callable[[Tensor], Tensor],
    fills: Callable[[Tensor], Tensor],
    variable: Tensor,
    ascent: Ascent,
    low: float = -math.inf,
    high: float = math.inf,
) -> Mode:
    """Moves each row of a variable (S, ...) uphill by itself, and gives the best fill that any of them has been at.

    Arguments:
        log_prob: fills (S, C, K) -> (S,), nats.
        fills: what is varied -> fills.
        low, high: the variable stays between them.

    Raises:
        FloatingPointError: the density is finite nowhere that was tried.
    """
    variable = variable.detach().clamp(low, high).requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=ascent.lr)
    best, best_fill, path, mark, since = -math.inf, None, [], -math.inf, 0
    for _ in range(ascent.steps):
        tried = fills(variable)
        values = log_prob(tried)
        top = values.detach().nan_to_num(-math.inf).argmax()
        path.append(float(values[top]))
        if path[-1] > best:
            best, best_fill = path[-1], tried[top].detach().clone()
        if best > mark + ascent.tolerance:
            mark, since = best, 0
        since += 1
        if since > ascent.patience:
            break
        optimizer.zero_grad()
        (-values[values.isfinite()].sum()).backward()
        variable.grad.nan_to_num_(0, 0, 0)
        optimizer.step()
        with torch.no_grad():
            variable.clamp_(low, high)
    if best_fill is None:
        raise FloatingPointError("the density is not finite at any of the fills that were tried")
    stopped = "converged" if since > ascent.patience else "steps"
    return Mode(best_fill, best, torch.tensor(path, dtype=torch.float64), stopped)
