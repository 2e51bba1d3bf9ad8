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

    Shapes: fill (C, K), logit pixels; path (steps,), log p along the search that found it, nats.

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
) -> list[Mode]:
    """Moves each row of a variable (S, ...) uphill by itself, until all have converged; the best fill of each row.

    A row along which the density has never been finite has a log_prob of -inf.

    Arguments:
        log_prob: fills (S, C, K) -> (S,), nats.
        fills: what is varied -> fills.
        low, high: the variable stays between them.
    """
    variable = variable.detach().clamp(low, high).requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=ascent.lr)
    best = variable.new_full((len(variable),), -math.inf)
    mark, since, best_fills, paths = best.clone(), torch.zeros_like(best), None, []
    for _ in range(ascent.steps):
        with torch.enable_grad():
            tried = fills(variable)
            values = log_prob(tried)
        with torch.no_grad():
            found = values.nan_to_num(-math.inf, -math.inf, -math.inf)
            paths.append(found.clone())
            better, best = found > best, torch.maximum(found, best)
            shown = better.view(-1, *[1] * (tried.ndim - 1))
            best_fills = tried.clone() if best_fills is None else torch.where(shown, tried, best_fills)
            rise = best > mark + ascent.tolerance
            mark, since = torch.where(rise, best, mark), torch.where(rise, 0, since + 1)
        if (since >= ascent.patience).all():
            break
        optimizer.zero_grad()
        (-values[values.isfinite()].sum()).backward()
        variable.grad.nan_to_num_(0, 0, 0)
        optimizer.step()
        with torch.no_grad():
            variable.clamp_(low, high)
    path = torch.stack(paths, 1).double().cpu()
    stopped = ["converged" if done else "steps" for done in (since >= ascent.patience).tolist()]
    return [Mode(*row) for row in zip(best_fills, best.tolist(), path, stopped)]
