"""Guards against numbers that are not finite: they stop a run, name the level, and never let a bad step be taken."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from rgflow.flow import Flow
from rgflow.pixels import to_logit


class Watch:
    """Looks at loss and gradient on the device, so that the host need not wait for it at every step.

    The first step whose loss or gradient is not finite is kept, and from it on `found_inf` makes a fused optimizer
    leave the weights and its own state as they are: whenever the host asks, the bad step can be done over again.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None  # the first bad step, on the device; -1: none so far

    def see(self, step: int, bits: Tensor, norm: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Takes note of the mean bits/dim and the gradient's norm of a step, before the optimizer acts on it."""
        if self.first is None:
            self.first = torch.full((), -1, dtype=torch.int64, device=norm.device)
        bad = ~(bits.isfinite() & norm.isfinite()) & (self.first < 0)
        self.first = torch.where(bad, step, self.first)
        optimizer.found_inf = (self.first >= 0).to(norm.dtype)

    def bad_step(self) -> int | None:
        """The first bad step, or None; waits for the device."""
        step = -1 if self.first is None else int(self.first)
        return step if step >= 0 else None


def check_loss(bits: Tensor, step: int, flow: Flow, images: Tensor, noise: Tensor) -> None:
    """Raises a FloatingPointError that names the first level that fails for these images, if the mean bits/dim over all
    ranks are not finite."""
    if math.isfinite(float(bits)):
        return
    where = f"a {type(flow.bijector).__name__} does not tell the level"
    if hasattr(flow.bijector, "nonfinite_level"):  # a bijector whose levels are steps
        with torch.no_grad():
            level = flow.bijector.nonfinite_level(to_logit(images, noise, dtype=flow.dtype)[0])
        where = "in the latents' density or on another rank" if level is None else f"first at level {level}"
    raise FloatingPointError(f"the loss is not finite at step {step}: {where}")


def check_gradient(norm: Tensor, step: int, flow: Flow) -> None:
    """Raises a FloatingPointError that names the first parameter, and its level where it has one, if the norm of the
    gradient is not finite."""
    if bool(norm.isfinite()):
        return
    names = (n for n, p in flow.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
    name = next(names, "their common norm")
    shared = not hasattr(flow.bijector, "nonfinite_level") or getattr(flow.config, "share_levels", False)
    level = None if shared else re.search(r"steps\.(\d+)\.", name)
    where = f"first at level {level[1]} ({name})" if level else f"in {name}"
    raise FloatingPointError(f"the gradient is not finite at step {step}: {where}")


def check_weights(weights: dict[str, Tensor], step: int, kind: str = "weights") -> None:
    """Raises a FloatingPointError that names the first of these tensors that is not finite."""
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise FloatingPointError(f"the {kind} are not finite after step {step}: in {name}")


def gradient_norm(flow: Flow) -> Tensor:
    """The norm of the gradient over all parameters, a number on the device."""
    return torch.nn.utils.get_total_norm([p.grad for p in flow.parameters() if p.grad is not None])
