"""What moves the weights: the optimizer of a recipe, and the running average of what it leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rgflow.hierarchy import RGStep
from rgflow.recipes import TrainConfig


def make_optimizer(flow: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of a recipe: AdamW on all weights, fused, so that a tensor `found_inf` of 1 turns a step into
    nothing without the host looking at it (`guards.Watch`).

    The weights of disentanglers are a group of their own where their learning rate is another one; "factor" of a group
    is what the recipe's learning rate is multiplied with.

    Source: Loshchilov & Hutter 2019 (AdamW).
    """
    slow, factor = set(), recipe.disentangler_lr_factor
    if factor != 1:
        steps = [module for module in flow.modules() if isinstance(module, RGStep)]
        slow = {weight for step in steps for weight in step.disentanglers.parameters()}
    groups = [{"params": [weight for weight in flow.parameters() if weight not in slow], "factor": 1.0}]
    if slow:
        groups.append({"params": [weight for weight in flow.parameters() if weight in slow], "factor": factor})
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


class Average:
    r"""The exponential moving average of the weights of a flow, whose first steps forget faster.

    .. math:: \bar w_k = d_k\, \bar w_{k-1} + (1 - d_k)\, w_k, \qquad
        d_k = \min\bigl(\text{decay}, (1 + k) / (10 + k)\bigr), \qquad \bar w_0 = w_0,

    with k = 1 after the first step: a run shorter than 1 / (1 - decay) steps still averages over its last tenth or so
    only, and not over where it came from. Buffers are constants in a flow and are not averaged.

    Arguments:
        decay: 0 <= decay < 1.

    Source: Polyak & Juditsky 1992; the warm-up of the decay is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, flow: nn.Module, decay: float) -> None:
        self.flow, self.decay = flow, decay
        self.restart()

    def restart(self) -> None:
        """The average is the weights of this moment."""
        self.weights = [p.detach().clone() for p in self.flow.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step k (from 1)."""
        current = [p.detach() for p in self.flow.parameters()]
        self.weights = [w.to(p.device) for w, p in zip(self.weights, current, strict=True)]
        get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))(self.weights, current, None)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The flow has the averaged weights inside the block and its own again, to the bit, behind it."""
        own = [p.detach().clone() for p in self.flow.parameters()]
        self.install()
        try:
            yield
        finally:
            _copy(own, self.flow)

    def install(self) -> None:
        """Gives the flow the averaged weights for good."""
        _copy(self.weights, self.flow)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return {name: w for (name, _), w in zip(self.flow.named_parameters(), self.weights, strict=True)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from averaged weights."""
        self.weights = [state[name].detach().clone() for name, _ in self.flow.named_parameters()]


@torch.no_grad()
def _copy(values: list[Tensor], flow: nn.Module) -> None:
    for parameter, value in zip(flow.parameters(), values, strict=True):
        parameter.copy_(value)
