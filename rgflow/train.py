"""Training of a flow with pytorch-lightning: one call, `fit` or `fit_energy`, that goes on where an interrupted run
was."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch.utils.data import Dataset

from rgflow import checkpoints, files
from rgflow.batches import Indexed, Score, digest, evaluate
from rgflow.callbacks import Budget, Checkpoints, Evaluation, Journal, read_log
from rgflow.descent import Descent
from rgflow.energies import Energy
from rgflow.files import check_folder
from rgflow.flow import Flow
from rgflow.recipes import TrainConfig
from rgflow.records import check_same_run, run_card, run_record
from rgflow.training import Training, prepare_flow
from rgflow.variational import EnergyEvaluation, EnergyJournal, EnergyScore, EnergyTraining
from rgflow.variations import Variation

__all__ = [
    "EnergyTraining", "Run", "TrainConfig", "Training", "Variation", "evaluate", "fit", "fit_energy", "prepare_flow",
]  # fmt: skip
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a training run came to.

    Arguments:
        steps, seconds: over all restarts.
        epochs: complete ones.
        score: the last evaluation, of images or of an energy; None without a test set.
        rows: the log, one dict per row (columns as in metrics.csv).
        folder: of the run; None when nothing was written.
    """

    steps: int
    epochs: int
    seconds: float
    score: Score | EnergyScore | None
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
    _prepare(flow, recipe)
    data = {**(data or {}), **({"test_digest": digest(test_set)} if tests else {})}
    of_images = {"images": len(images), "digest of 16 images": digest(images.source, 16)}
    module = Training(flow, images, recipe, run_record(flow, recipe, {**data, **of_images}))
    card = {**run_card(recipe, {**data, "train_images": len(images)}), **(card or {})}
    return _run(module, Evaluation(tests), Journal(recipe.folder), callbacks, f"{len(images)} images", card)


def fit_energy(
    flow: Flow,
    energy: Energy,
    recipe: TrainConfig | None = None,
    variation: Variation | None = None,
    card: dict[str, str | int | float] | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Trains a flow in place on an energy, or goes on with the run in `recipe.out_dir`; see `EnergyTraining`.

    As `fit`, but that draws take the place of images: `batch_size` of them a step, `eval_images` in an evaluation, and
    an epoch is 100 steps. The model file holds the flow; its card names the symmetry over which it is to be averaged
    (`symmetry.Symmetrised`).

    Raises:
        ValueError: fields that do not fit the flow, a setting that is for images only, several devices, or as `fit`.
        OSError, FloatingPointError: as `fit`.
    """
    recipe, variation = recipe or TrainConfig(), variation or Variation()
    if tuple(energy.shape) != tuple(flow.shape):
        raise ValueError(f"the fields of the energy are {tuple(energy.shape)}, the flow has {tuple(flow.shape)}")
    if recipe.batch_size < 2 or recipe.eval_images < 2:
        raise ValueError("batch_size and eval_images must be at least 2 for an energy")
    if (variation.forward or variation.hmc) and not isinstance(energy, Energy):
        raise ValueError(f"forward and hmc need an energy of rgflow.energies, not {type(energy).__name__}")
    if recipe.compile or getattr(flow.config, "linear", None):
        raise ValueError("compile and linear are for training on images")
    _prepare(flow, recipe)
    target = {**energy.settings, **dataclasses.asdict(variation)}
    module = EnergyTraining(flow, energy, recipe, run_record(flow, recipe, target), variation)
    exact = {} if energy.log_z is None else {"exact_log_z": energy.log_z}
    card = {**run_card(recipe, target), **exact, **(card or {})}
    return _run(module, EnergyEvaluation(), EnergyJournal(recipe.folder), callbacks, str(energy.settings), card)


def _prepare(flow: Flow, recipe: TrainConfig) -> None:
    """Weights of the recipe's type, and the folders of the run; whatever is missing is found out here."""
    if recipe.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator gpu: no GPU is available here; use --accelerator cpu")
    flow.to(torch.float64 if recipe.dtype == "float64" else torch.float32)
    check_folder(recipe.folder)
    for part in ("checkpoints", "samples") if recipe.folder else ():
        (recipe.folder / part).mkdir(parents=True, exist_ok=True)


def _run(
    module: Descent,
    evaluation: Evaluation,
    journal: Journal,
    callbacks: Sequence[pl.Callback],
    about: str,
    card: dict[str, str | int | float],
) -> Run:
    """Trains a flow on what it is `about`, or goes on."""
    flow, recipe, folder = module.flow, module.recipe, module.recipe.folder
    if folder:
        checkpoints.check(flow, card)
    last = folder / "checkpoints" / "last.ckpt" if folder else None
    resume = last if last is not None and last.exists() else None
    done = check_same_run(resume, module.record) if resume is not None else None
    with _quiet_lightning():
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
                evaluation,
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
        module.check(trainer.world_size)
        if trainer.is_global_zero:
            count = sum(p.numel() for p in flow.parameters())
            logger.info("training %d parameters on %s, %d threads", count, about, torch.get_num_threads())
            if resume is not None:
                logger.info("going on from %s", resume)
            if recipe.ema:
                logger.info("scores, pictures and the model file: of the averaged weights (ema %g)", recipe.ema)
        flow.train()
        with _alone(folder if trainer.is_global_zero else None):
            trainer.fit(module, ckpt_path=resume, weights_only=True)
            return _finish(trainer, module, journal, card)


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


def _finish(trainer: pl.Trainer, module: Descent, journal: Journal, card: dict[str, str | int | float]) -> Run:
    steps, folder = trainer.global_step, journal.folder
    if module.average:
        module.average.install()
    rows = journal.rows or (read_log(folder / "metrics.csv") if folder is not None else [])
    run = Run(steps, steps // module.steps_per_epoch, module.seconds, module.last_score, rows, folder)
    if folder is not None and trainer.is_global_zero:
        card |= {"steps": steps, "epochs": run.epochs, "seconds": round(run.seconds, 1)}
        if run.score:
            card |= module.named(run.score)
        checkpoints.save(module.flow, folder / "model.safetensors", card)
    return run


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning without its advert and the notes that do not concern our use of it."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
    loggers = [logging.getLogger(n) for n in (*names, "pytorch_lightning.utilities.rank_zero", "torch.distributed")]
    levels = [part.level for part in loggers]
    for part in loggers:
        part.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in ("LeafSpec", "does not have many workers", "GPU available but not used", "treespec"):
                warnings.filterwarnings("ignore", message=f".*{re.escape(message)}.*")
            yield
    finally:
        for part, level in zip(loggers, levels, strict=True):
            part.setLevel(level)
