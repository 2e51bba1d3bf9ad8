"""Training of a flow with pytorch-lightning: one call, `fit`, that goes on where an interrupted run was."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch.utils.data import Dataset

from rgflow import checkpoints, files
from rgflow.batches import BatchStream, Indexed, Score, digest, evaluate
from rgflow.callbacks import Budget, Checkpoints, Evaluation, Journal, quiet_lightning, read_log
from rgflow.files import check_folder
from rgflow.flow import Flow
from rgflow.recipes import TrainConfig
from rgflow.records import check_same_run, run_card, run_record
from rgflow.training import Training, prepare_flow

__all__ = ["Run", "TrainConfig", "Training", "evaluate", "fit", "prepare_flow"]
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


def fit(
    flow: Flow,
    train_set: Dataset,
    test_set: Dataset | None = None,
    recipe: TrainConfig | None = None,
    data: dict[str, object] | None = None,
    card: dict[str, str | int | float] | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Trains a flow in place, or goes on with the run in `recipe.out_dir`; writes `model.safetensors` there at the end.

    With `ema` the flow and the file have the averaged weights at the end, and these are what is scored and shown on the
    way; a checkpoint holds both (state_dict: the weights that go on training; rgflow, average: the others).

    Noise, flips and the order of the images depend on (seed, epoch, image index) only, so on the CPU a run that was
    killed and started again ends with the very weights of one that was not. (With a `minutes` budget the number of
    steps is not reproducible.)

    One process stops at SIGTERM with a checkpoint. Several ranks stop without one, for they may hear the signal at
    different steps; they go on from the last regular one (`save_epoch`, `save_minutes`).

    Shapes: the sets hold (uint8 (C, H, W), label), with the C, H, W of the flow.

    Arguments:
        data: names the data in error messages and in the card, such as {"data": "celeba32"}.
        card: further entries of the model file's card.
        callbacks: of your own, called after ours at each step; `module.flow` has the weights that go on training, and
            inside `module.scored()` those that would be scored.

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
            callbacks=[
                Budget(),
                Evaluation(tests),
                journal,
                *callbacks,
                Checkpoints(folder / "checkpoints" if folder else None),
            ],
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
            if recipe.ema:
                logger.info("scores, pictures and the model file: of the averaged weights (ema %g)", recipe.ema)
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
    if module.average:
        module.average.install()
    rows = journal.rows or (read_log(folder / "metrics.csv") if folder is not None else [])
    run = Run(steps, steps // module.steps_per_epoch, module.seconds, module.last_score, rows, folder)
    if folder is not None and trainer.is_global_zero:
        card |= {"steps": steps, "epochs": run.epochs, "seconds": round(run.seconds, 1)}
        if run.score:
            names = ("test_bits_per_dim", "test_standard_error", "test_images")
            card |= dict(zip(names, run.score, strict=True))
        checkpoints.save(module.flow, folder / "model.safetensors", card)
    return run
