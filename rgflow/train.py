"""Training of a flow with pytorch-lightning: one call, `fit`, that goes on where an interrupted run was."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rgflow import checkpoints, files
from rgflow.batches import BatchStream, Indexed, Score, digest, evaluate, flipped, loader, noise
from rgflow.callbacks import Budget, Checkpoints, Evaluation, Journal, average, quiet_lightning, read_log
from rgflow.flow import Flow
from rgflow.pixels import to_logit
from rgflow.recipes import TrainConfig, check_folder
from rgflow.records import check_same_run, run_card, run_record

__all__ = ["Run", "TrainConfig", "Training", "evaluate", "fit"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a training run came to.

    Arguments:
        steps, seconds: over all restarts.
        epochs: complete ones.
        score: the last evaluation; None without a test set.
        rows: the log, one dict per row (columns as in metrics.csv).
        folder: of the run; None when nothing was written.
    """

    steps: int
    epochs: int
    seconds: float
    score: Score | None
    rows: list[dict[str, float | int | str]]
    folder: Path | None


class Training(pl.LightningModule):
    r"""The training step of a flow.

    .. math:: \text{loss} = \ln 2 \cdot \text{mean bits/dim of the batch}, \text{ that is nats per dimension.}

    To Lightning the whole run is one endless epoch: step k takes batch k of a `BatchStream`, and epochs are counted
    from the step number. So a run can go on from any step, without loader states or epoch counters that could disagree.

    Arguments:
        record: what must be the same when a run goes on; written into every checkpoint.
    """

    def __init__(self, flow: Flow, images: Indexed, recipe: TrainConfig, record: dict[str, dict[str, object]]) -> None:
        super().__init__()
        self.flow, self.images, self.recipe, self.record = flow, images, recipe, record
        self.steps_per_epoch = len(images) // recipe.batch_size
        self.seconds, self.lr, self.bits = 0.0, recipe.lr, math.nan
        self.finished = False
        self.epoch: int | None = None  # the number of epochs done, right after the last step of one; else None
        self.score: Score | None = None  # of this step
        self.last_score: Score | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return torch.optim.AdamW(self.flow.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)

    def train_dataloader(self) -> DataLoader:
        trainer, recipe = self.trainer, self.recipe
        rank, ranks = trainer.global_rank, trainer.world_size
        batches = BatchStream(len(self.images), recipe.batch_size, recipe.seed, trainer.global_step, rank, ranks)
        return loader(self.images, batches, recipe.workers, pin=self.device.type == "cuda")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        bits, self.bits = self._bits(*batch)
        return bits * math.log(2)

    def check_next_step(self) -> None:
        """Looks at the weights, and at the loss of the step that comes next, with its own images and noise.

        Raises:
            FloatingPointError: a weight or the loss is not finite; of the loss the message is that of the step itself.
        """
        for name, parameter in self.flow.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise FloatingPointError(f"the weights are not finite after step {self.global_step}: in {name}")
        trainer, recipe = self.trainer, self.recipe
        rank, ranks = trainer.global_rank, trainer.world_size
        batches = BatchStream(len(self.images), recipe.batch_size, recipe.seed, trainer.global_step, rank, ranks)
        images, index = self.images.__getitems__(next(iter(batches)))
        with torch.no_grad(), trainer.precision_plugin.train_step_context():
            self._bits(images.to(self.device), index.to(self.device))

    def _bits(self, images: Tensor, index: Tensor) -> tuple[Tensor, float]:
        """Bits/dim of a batch on this rank, and over all ranks."""
        seed, epoch = self.recipe.seed, self.global_step // self.steps_per_epoch
        if self.images.flip:
            images = flipped(images, seed, epoch, index)
        draw = noise(images, seed, epoch, index, self.flow.dtype)
        bits = self.flow.bits_per_dim(images, draw).mean()
        mean = float(average(bits.detach(), self.trainer))
        if not math.isfinite(mean):
            where = f"a {type(self.flow.bijector).__name__} does not tell the level"
            if self._by_level is not None:
                with torch.no_grad():
                    level = self._by_level(to_logit(images, draw, dtype=self.flow.dtype)[0])
                where = "in the latents' density or on another rank" if level is None else f"first at level {level}"
            raise FloatingPointError(f"the loss is not finite at step {self.global_step}: {where}")
        return bits, mean

    @property
    def _by_level(self) -> Callable[[Tensor], int | None] | None:
        """What finds the first level that is not finite; None for a bijector whose levels are no steps (Real NVP)."""
        return getattr(self.flow.bijector, "nonfinite_level", None)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        parameters = list(self.flow.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not bool(norm.isfinite()):
            names = (n for n, p in self.flow.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
            name = next(names, "their common norm")
            shared = self._by_level is None or getattr(self.flow.config, "share_levels", False)
            level = None if shared else re.search(r"steps\.(\d+)\.", name)
            where = f"first at level {level[1]} ({name})" if level else f"in {name}"
            raise FloatingPointError(f"the gradient is not finite at step {self.global_step}: {where}")
        if self.recipe.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_grad, norm)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        score = list(self.last_score) if self.last_score else None
        checkpoint["rgflow"] = {"seconds": self.seconds, "score": score, "record": json.dumps(self.record)}

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        saved = checkpoint["rgflow"]
        self.seconds = saved["seconds"]
        self.last_score = Score(*saved["score"]) if saved["score"] else None


def fit(
    flow: Flow,
    train_set: Dataset,
    test_set: Dataset | None = None,
    recipe: TrainConfig | None = None,
    data: dict[str, object] | None = None,
    card: dict[str, str | int | float] | None = None,
) -> Run:
    """Trains a flow in place, or goes on with the run in `recipe.out_dir`; writes `model.safetensors` there at the end.

    Noise, flips and the order of the images depend on (seed, epoch, image index) only, so on the CPU a run that was
    killed and started again ends with the very weights of one that was not. (With a `minutes` budget the number of
    steps is not reproducible.)

    One process stops at SIGTERM with a checkpoint. Several ranks stop without one, for they may hear the signal at
    different steps; they go on from the last regular one (`save_epoch`, `save_minutes`).

    Shapes: the sets hold (uint8 (C, H, W), label), with the C, H, W of the flow.

    Arguments:
        data: names the data in error messages and in the card, such as {"data": "celeba32"}.
        card: further entries of the model file's card.

    Raises:
        ValueError: fewer images than the batch, images that do not fit the flow, devices that are not there, a folder
            that holds another run (the differences are named), or one in which another process trains.
        OSError: the folder cannot be written; found out before training.
        FloatingPointError: loss, gradient or test score is not finite (the level is named where there is one). The
            last checkpoint stays; it is one from which the next loss was finite, see `callbacks.Checkpoints`.
    """
    recipe = recipe or TrainConfig()
    images = Indexed(train_set)
    tests = Indexed(test_set) if test_set is not None and len(test_set) else None
    for name, part in (("training", images), ("test", tests)):
        if part is not None and len(part) and tuple(part[0][0].shape) != tuple(flow.shape):
            raise ValueError(f"the {name} images are {tuple(part[0][0].shape)}, the flow takes {tuple(flow.shape)}")
    if recipe.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator gpu: no GPU is available here; use --accelerator cpu")
    flow.to(torch.float64 if recipe.dtype == "float64" else torch.float32)
    check_folder(recipe.folder)
    folder = recipe.folder
    for part in ("checkpoints", "samples") if folder else ():
        (folder / part).mkdir(parents=True, exist_ok=True)
    data = {**(data or {}), **({"test_digest": digest(test_set)} if tests else {})}
    record = run_record(flow, images, recipe, data)
    last = folder / "checkpoints" / "last.ckpt" if folder else None
    resume = last if last is not None and last.exists() else None
    done = check_same_run(resume, record) if resume is not None else None
    with quiet_lightning():
        module = Training(flow, images, recipe, record)
        journal = Journal(folder)
        total = recipe.total_steps(module.steps_per_epoch) if module.steps_per_epoch else None
        if done and recipe.progress(*done, module.steps_per_epoch) >= 1:
            total = done[0]  # nothing is left to do but to read the weights
        trainer = pl.Trainer(
            accelerator=recipe.accelerator,
            devices=recipe.device_list,
            num_nodes=recipe.num_nodes,
            strategy=recipe.strategy,
            precision={"32": "32-true", "64": "64-true"}.get(recipe.precision, recipe.precision),
            max_steps=-1 if total is None else total,
            max_epochs=-1,
            callbacks=[Budget(), Evaluation(tests), journal, Checkpoints(folder / "checkpoints" if folder else None)],
            default_root_dir=folder,
            plugins=_environment(),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        BatchStream(len(images), recipe.batch_size, recipe.seed, ranks=trainer.world_size)  # complains before any work
        if trainer.is_global_zero:
            count = sum(p.numel() for p in flow.parameters())
            logger.info("training %d parameters on %d images, %d threads", count, len(images), torch.get_num_threads())
            if resume is not None:
                logger.info("going on from %s", resume)
        flow.train()
        with _alone(folder if trainer.is_global_zero else None):
            trainer.fit(module, ckpt_path=resume, weights_only=True)
            return _finish(trainer, module, journal, folder, {**run_card(recipe, data, len(images)), **(card or {})})


def _environment() -> list[SLURMEnvironment] | None:
    """SLURM without Lightning's requeueing, for we resume by ourselves; torchrun inside a SLURM job goes first."""
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return None
    return [SLURMEnvironment(auto_requeue=False)]


@contextlib.contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Keeps other runs out of the folder, and removes what a killed one left half-written."""
    if folder is None:
        yield
        return
    with files.locked(folder):
        files.sweep([folder, folder / "checkpoints", folder / "samples"])
        yield


def _finish(
    trainer: pl.Trainer, module: Training, journal: Journal, folder: Path | None, card: dict[str, str | int | float]
) -> Run:
    steps = trainer.global_step
    rows = journal.rows or (read_log(folder / "metrics.csv") if folder is not None else [])
    run = Run(steps, steps // module.steps_per_epoch, module.seconds, module.last_score, rows, folder)
    if folder is not None and trainer.is_global_zero:
        card |= {"steps": steps, "epochs": run.epochs, "seconds": round(run.seconds, 1)}
        if run.score:
            names = ("test_bits_per_dim", "test_standard_error", "test_images")
            card |= dict(zip(names, run.score, strict=True))
        checkpoints.save(module.flow, folder / "model.safetensors", card)
    return run
