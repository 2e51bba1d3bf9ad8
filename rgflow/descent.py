"""What every kind of training shares: optimizer, averaged weights, looks at what is not finite, state."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from rgflow import guards
from rgflow.flow import Flow
from rgflow.optimizers import Average, make_optimizer
from rgflow.recipes import TrainConfig


class Descent(pl.LightningModule):
    r"""A run that moves the weights of a flow, as a Lightning module; a subclass says by which loss.

    To Lightning the whole run is one endless epoch, and epochs are counted from the step number. So a run can go on
    from any step, without loader states or epoch counters that could disagree.

    Arguments:
        record: what must be the same when a run goes on; written into every checkpoint.
        steps_per_epoch: steps after which an epoch is counted.
    """

    score_type: type[tuple]  # of an evaluation, a NamedTuple
    score_names: Sequence[str]  # what the card of the model calls its numbers

    def __init__(
        self, flow: Flow, recipe: TrainConfig, record: dict[str, dict[str, object]], steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.flow, self.recipe, self.record, self.steps_per_epoch = flow, recipe, record, steps_per_epoch
        self.seconds, self.lr = 0.0, recipe.lr
        self.bits = torch.tensor(math.nan)  # what the log has of the last step, one or several numbers; on the device
        self.average = Average(flow, recipe.ema) if recipe.ema else None
        self.watch = guards.Watch()
        self.finished = False
        self.epoch: int | None = None  # the number of epochs done, right after the last step of one; else None
        self.score: tuple | None = None  # of this step
        self.last_score: tuple | None = None

    @property
    def lazy(self) -> bool:
        """Whether loss and gradient are looked at only now and then: on a GPU each look waits for the device."""
        return self.device.type != "cpu"

    def check(self, ranks: int) -> None:
        """Before any work; a ValueError where the run cannot go as it should on so many devices."""

    def begin(self) -> None:
        """Before the first step, on the clock."""

    def again(self, step: int) -> Tensor:
        """The loss of some step, with its own draws, looked at.

        Raises:
            FloatingPointError: it is not finite.
        """
        raise NotImplementedError

    def named(self, score: tuple) -> dict[str, float | int]:
        """A score as the card of the model has it, without what was not measured."""
        pairs = zip(self.score_names, score, strict=True)
        return {name: number for name, number in pairs if not math.isnan(number)}

    def scored(self) -> contextlib.AbstractContextManager[None]:
        """The flow has the weights inside the block that are scored, shown and kept: the averaged ones, if any."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.flow, self.recipe)

    def optimizer_step(self, *arguments: object) -> None:
        super().optimizer_step(*arguments)
        if self.average:
            self.average.update(self.global_step + 1)  # Lightning counts the step after this

    def check_next_step(self) -> None:
        """Looks at past steps, at the weights, and at the loss of the step that comes next, with its own draws.

        Raises:
            FloatingPointError: a weight or the loss is not finite; of the loss the message is that of the step itself.
        """
        self.check_past_steps()
        guards.check_weights(dict(self.flow.named_parameters()), self.global_step)
        if self.average:
            guards.check_weights(self.average.state_dict(), self.global_step, "averaged weights")
        with torch.no_grad():
            self.again(self.global_step)

    def check_past_steps(self) -> None:
        """Does the first bad step again, if there was one that nobody looked at; it changed no weight.

        Raises:
            FloatingPointError: there was one; the message is that of a look at the step itself.
        """
        step = self.watch.bad_step() if self.lazy else None
        if step is None:
            return
        self.zero_grad()
        with torch.enable_grad():
            self.again(step).backward()
        guards.check_gradient(guards.gradient_norm(self.flow), step, self.flow)
        raise FloatingPointError(f"loss or gradient was not finite at step {step}: on another rank, or by chance")

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        norm = guards.gradient_norm(self.flow)
        if self.lazy:
            self.watch.see(self.global_step, self.bits.sum(), norm, optimizer)
        else:
            guards.check_gradient(norm, self.global_step, self.flow)
        if self.recipe.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(self.flow.parameters(), self.recipe.clip_grad, norm)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        score = list(self.last_score) if self.last_score else None
        checkpoint["rgflow"] = {"seconds": self.seconds, "score": score, "record": json.dumps(self.record)}
        if self.average:
            checkpoint["rgflow"]["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        saved = checkpoint["rgflow"]
        self.seconds = saved["seconds"]
        self.last_score = self.score_type(*saved["score"]) if saved["score"] else None
        if self.average:
            self.average.load_state_dict(saved["average"])


def keyed(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers that depend on these integers and the kind of device only."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)
