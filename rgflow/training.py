"""One training step of a flow, as a Lightning module: its loss, the looks at what is not finite, its state."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rgflow import guards
from rgflow.batches import BatchStream, Indexed, Score, drawn, loader, shuffled
from rgflow.callbacks import average
from rgflow.flow import Flow
from rgflow.optimizers import Average, make_optimizer
from rgflow.penalties import penalised
from rgflow.pixels import to_logit
from rgflow.recipes import TrainConfig

logger = logging.getLogger(__name__)


class Training(pl.LightningModule):
    r"""The training step of a flow.

    .. math:: \text{loss} = \ln 2 \cdot \text{mean bits/dim of the batch} + \text{penalties} / D,

    that is nats per dimension; only some bijectors have penalties (see `penalties`).

    To Lightning the whole run is one endless epoch: step k takes batch k of a `BatchStream`, and epochs are counted
    from the step number. So a run can go on from any step, without loader states or epoch counters that could disagree.

    Arguments:
        record: what must be the same when a run goes on; written into every checkpoint.
    """

    def __init__(self, flow: Flow, images: Indexed, recipe: TrainConfig, record: dict[str, dict[str, object]]) -> None:
        super().__init__()
        self.flow, self.images, self.recipe, self.record = flow, images, recipe, record
        self.steps_per_epoch = len(images) // recipe.batch_size
        self.seconds, self.lr = 0.0, recipe.lr
        self.bits = torch.tensor(math.nan)  # of the last step, over all ranks; on the device
        self.average = Average(flow, recipe.ema) if recipe.ema else None
        self.watch = guards.Watch()
        self.finished = False
        self.epoch: int | None = None  # the number of epochs done, right after the last step of one; else None
        self.score: Score | None = None  # of this step
        self.last_score: Score | None = None

    @property
    def lazy(self) -> bool:
        """Whether loss and gradient are looked at only now and then: on a GPU each look waits for the device."""
        return self.device.type != "cpu"

    def begin(self) -> None:
        """Before the first step, on the clock: a fresh run fits what starts from the data; compiles if asked."""
        recipe, ranks = self.recipe, self.trainer.world_size
        if self.global_step == 0:
            if prepare_flow(self.flow, self.images, recipe) and ranks > 1:
                for tensor in self.flow.state_dict().values():  # the very same bits on machines of another make
                    torch.distributed.broadcast(tensor, src=0)
            if self.average:
                self.average.restart()
        if recipe.compile:
            from rgflow.compiling import compile_flow  # here, for others do without

            with self.trainer.precision_plugin.train_step_context():
                compile_flow(self.flow, recipe.batch_size // ranks)  # logs its time, or why it failed

    def scored(self) -> contextlib.AbstractContextManager[None]:
        """The flow has the weights inside the block that are scored, shown and kept: the averaged ones, if any."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.flow, self.recipe)

    def _batches(self, start: int) -> BatchStream:
        trainer, recipe = self.trainer, self.recipe
        rank, ranks = trainer.global_rank, trainer.world_size
        return BatchStream(len(self.images), recipe.batch_size, recipe.seed, start, rank, ranks)

    def train_dataloader(self) -> DataLoader:
        batches = self._batches(self.trainer.global_step)
        return loader(self.images, batches, self.recipe.workers, pin=self.device.type == "cuda")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss, self.bits = self._loss(*batch, self.global_step, now=not self.lazy)
        return loss

    def optimizer_step(self, *arguments: object) -> None:
        super().optimizer_step(*arguments)
        if self.average:
            self.average.update(self.global_step + 1)  # Lightning counts the step after this

    def check_next_step(self) -> None:
        """Looks at past steps, at the weights, and at the loss of the step that comes next, with its own images and
        noise.

        Raises:
            FloatingPointError: a weight or the loss is not finite; of the loss the message is that of the step itself.
        """
        self.check_past_steps()
        guards.check_weights(dict(self.flow.named_parameters()), self.global_step)
        if self.average:
            guards.check_weights(self.average.state_dict(), self.global_step, "averaged weights")
        with torch.no_grad():
            self._again(self.global_step)

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
            self._again(step).backward()
        guards.check_gradient(guards.gradient_norm(self.flow), step, self.flow)
        raise FloatingPointError(f"loss or gradient was not finite at step {step}: on another rank, or by chance")

    def _again(self, step: int) -> Tensor:
        """The loss of some step on this rank, with its own images and noise, looked at."""
        images, index = self.images.__getitems__(next(iter(self._batches(step))))
        with self.trainer.precision_plugin.train_step_context():
            return self._loss(images.to(self.device), index.to(self.device), step, now=True)[0]

    def _loss(self, images: Tensor, index: Tensor, step: int, now: bool) -> tuple[Tensor, Tensor]:
        """The loss of a batch on this rank, and its bits/dim over all; looks whether these are finite now, or never."""
        with penalised(self.flow, self._generator(step)) as penalties:
            bits, mean = self._bits(images, index, step, now)
        return bits * math.log(2) + penalties.mean() / math.prod(self.flow.shape), mean

    def _bits(self, images: Tensor, index: Tensor, step: int, now: bool) -> tuple[Tensor, Tensor]:
        """Bits/dim of a batch on this rank, and over all ranks; looks whether they are finite now, or never."""
        seed, epoch = self.recipe.seed, step // self.steps_per_epoch
        images, draw = drawn(self.images, images, index, seed, epoch, self.flow.dtype)
        bits = self.flow.bits_per_dim(images, draw).mean()
        mean = average(bits.detach(), self.trainer)
        if now:
            guards.check_loss(mean, step, self.flow, images, draw)
        return bits, mean

    def _generator(self, step: int) -> torch.Generator:
        """What bijectors may draw from in a step: numbers that depend on (seed, step) only, on any device."""
        key = np.random.SeedSequence((self.recipe.seed, step)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(key[0]) >> 1)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        norm = guards.gradient_norm(self.flow)
        if self.lazy:
            self.watch.see(self.global_step, self.bits, norm, optimizer)
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
        self.last_score = Score(*saved["score"]) if saved["score"] else None
        if self.average:
            self.average.load_state_dict(saved["average"])


def prepare_flow(flow: Flow, images: Indexed, recipe: TrainConfig) -> bool:
    """Fits the linear maps of a flow with linear="whitened" to `fit_images` training images, chosen by seed.

    Other flows stay as they are. The images are those with which epoch 0 begins, with the noise and the flips of that
    epoch, so the same call gives the same weights.

    Returns whether anything was fitted.
    """
    if getattr(flow.config, "linear", None) != "whitened":
        return False
    from rgflow.whitening import whiten  # here, for other flows do without

    start = time.monotonic()
    chosen = shuffled(len(images), recipe.seed, 0)[: recipe.fit_images]
    pixels, index = (part.to(flow.device) for part in images.__getitems__(chosen))
    pixels, draw = drawn(images, pixels, index, recipe.seed, 0, flow.dtype)
    whiten(flow, to_logit(pixels, draw, dtype=flow.dtype)[0])
    logger.info("fitted the linear maps to %d images in %.1f s", len(chosen), time.monotonic() - start)
    return True
