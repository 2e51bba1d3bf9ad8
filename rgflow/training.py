"""One training step of a flow on images, as a Lightning module."""

from __future__ import annotations

import logging
import math
import time

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rgflow import guards
from rgflow.batches import BatchStream, Indexed, Score, drawn, loader, shuffled
from rgflow.callbacks import average
from rgflow.descent import Descent, keyed
from rgflow.flow import Flow
from rgflow.penalties import penalised
from rgflow.pixels import to_logit
from rgflow.recipes import TrainConfig

logger = logging.getLogger(__name__)


class Training(Descent):
    r"""The training step of a flow on images.

    .. math:: \text{loss} = \ln 2 \cdot \text{mean bits/dim of the batch} + \text{penalties} / D,

    that is nats per dimension; only some bijectors have penalties (see `penalties`), and what they draw depends on
    (seed, step) only.

    Step k takes batch k of a `BatchStream`.

    Arguments:
        record: what must be the same when a run goes on; written into every checkpoint.
    """

    score_type, score_names = Score, ("test_bits_per_dim", "test_standard_error", "test_images")

    def __init__(self, flow: Flow, images: Indexed, recipe: TrainConfig, record: dict[str, dict[str, object]]) -> None:
        super().__init__(flow, recipe, record, len(images) // recipe.batch_size)
        self.images = images

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

    def check(self, ranks: int) -> None:
        BatchStream(len(self.images), self.recipe.batch_size, self.recipe.seed, ranks=ranks)  # complains

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

    def again(self, step: int) -> Tensor:
        """The loss of some step on this rank, with its own images and noise, looked at."""
        images, index = self.images.__getitems__(next(iter(self._batches(step))))
        with self.trainer.precision_plugin.train_step_context():
            return self._loss(images.to(self.device), index.to(self.device), step, now=True)[0]

    def _loss(self, images: Tensor, index: Tensor, step: int, now: bool) -> tuple[Tensor, Tensor]:
        """The loss of a batch on this rank, and its bits/dim over all; looks whether these are finite now, or never."""
        with penalised(self.flow, keyed(self.recipe.seed, step)) as penalties:
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
