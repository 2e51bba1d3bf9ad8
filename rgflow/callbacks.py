"""What happens around the training steps: clock, evaluations, log, pictures and checkpoints, as Lightning callbacks."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import logging
import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from tqdm.auto import tqdm

from rgflow.batches import Indexed, Score, code_lengths, score, spread
from rgflow.files import replacing
from rgflow.grids import sample_images, write_grid

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from rgflow.training import Training

logger = logging.getLogger(__name__)
COLUMNS = ("step", "epoch", "seconds", "lr", "train_bits_per_dim", "test_bits_per_dim")
SAMPLES = 64  # images in a picture of samples


class Budget(Callback):
    """Keeps the training time, sets the learning rate of each step, and ends the run when the first budget is used up.

    What is done before the first step, a fit to the data or a compilation, counts too.

    The clock is that of `recipe.clock`. Rank 0's counts for all, so that every rank has the same learning rate and
    stops at the same step.
    """

    def on_train_start(self, trainer: Trainer, module: Training) -> None:
        self.origin = seconds_of(module.recipe.clock) - module.seconds
        if trainer.world_size > 1:  # over gloo, for a number read from a GPU would wait for the step
            self.group = torch.distributed.new_group(backend="gloo")
        module.begin()

    def on_train_batch_start(self, trainer: Trainer, module: Training, batch: object, batch_idx: int) -> None:
        self._tick(trainer, module)
        progress = module.recipe.progress(trainer.global_step, module.seconds, module.steps_per_epoch)
        module.lr = module.recipe.learning_rate(trainer.global_step, progress)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = module.lr * group.get("factor", 1.0)  # older checkpoints have no factor

    def on_train_batch_end(
        self, trainer: Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._tick(trainer, module)
        step = trainer.global_step
        module.finished = module.recipe.progress(step, module.seconds, module.steps_per_epoch) >= 1
        module.epoch = step // module.steps_per_epoch if step % module.steps_per_epoch == 0 else None
        trainer.should_stop = trainer.should_stop or module.finished

    def _tick(self, trainer: Trainer, module: Training) -> None:
        seconds = torch.tensor([seconds_of(module.recipe.clock) - self.origin], dtype=torch.float64)
        if trainer.world_size > 1:
            torch.distributed.broadcast(seconds, src=0, group=self.group)
        module.seconds = float(seconds)


class Evaluation(Callback):
    """Measures bits/dim of test images every `eval_epoch` epochs, every `eval_minutes` and at the end; the ranks share
    the images.

    With `ema` it is the averaged weights that are measured. Another kind of score is a subclass's business.
    """

    unit = "test bits/dim"

    def __init__(self, images: Indexed | None) -> None:
        self.images, self.wanted = images, images is not None

    def measured(self, trainer: Trainer, module: Training) -> Score:
        """The score of the flow as it is."""
        chosen = spread(len(self.images), module.recipe.eval_images)
        mine = chosen[trainer.global_rank :: trainer.world_size]
        lengths = code_lengths(module.flow, self.images, module.recipe.batch_size, module.recipe.seed, mine)
        sums = torch.stack([lengths.sum(), lengths.square().sum()])
        if trainer.world_size > 1:
            sums = sums.to(trainer.strategy.root_device)
            torch.distributed.all_reduce(sums)
        return score(sums[0], sums[1], len(chosen))

    def on_train_start(self, trainer: Trainer, module: Training) -> None:
        self.seconds = module.seconds

    def on_train_batch_end(
        self, trainer: Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        module.score, recipe = None, module.recipe
        before, self.seconds = self.seconds, module.seconds
        every = 60 * recipe.eval_minutes
        late = bool(every) and before // every < self.seconds // every
        if self.wanted and (module.finished or late or _due(module.epoch, recipe.eval_epoch)):
            module.check_past_steps()
            with module.scored():
                found = self.measured(trainer, module)
            if not math.isfinite(found.mean):
                raise FloatingPointError(f"the {self.unit} are not finite after step {trainer.global_step}")
            module.score = module.last_score = found


class Journal(Callback):
    """Writes the log: metrics.csv, TensorBoard where it is installed, and a progress bar; and pictures of samples.

    A row has the mean training bits/dim since the last row. On a restart the rows after the checkpoint are dropped, so
    that the file reads as if the run had never been interrupted. What else a row has is a subclass's business.
    """

    columns = COLUMNS

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.rows: list[dict[str, float | int | str]] = []
        self.sum: Tensor | float = 0.0  # stays on the device until a row is due
        self.count = 0
        self.bar: tqdm | None = None
        self.board = None

    def measured(self, mean: Tensor, module: Training) -> list[float | str]:
        """The numbers of a row after the fourth: of the mean over its steps, and of an evaluation or ""."""
        return [float(mean), module.score.mean if module.score else ""]

    def said(self, module: Training) -> str:
        """What the progress bar says."""
        test = f"{module.last_score.mean:.4f}" if module.last_score else "-"
        return f"bits/dim {self.rows[-1]['train_bits_per_dim']:.4f}, test {test}"

    def pictures(self, module: Training) -> Tensor:
        """Images to be shown, uint8."""
        return sample_images(module.flow, SAMPLES, seed=module.recipe.seed)

    def state_dict(self) -> dict[str, float | int]:
        return {"sum": float(self.sum), "count": self.count}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        self.sum, self.count = state["sum"], state["count"]

    def on_train_start(self, trainer: Trainer, module: Training) -> None:
        if not trainer.is_global_zero:
            return
        step, channels = trainer.global_step, module.flow.shape[0]
        self.visible = self.folder is not None and channels in (1, 3)
        if self.folder is not None and not self.visible and module.recipe.plot_epoch:
            logger.warning("images of %d channels cannot be shown: no pictures of samples", channels)
        if self.folder is not None:
            self.rows = [row for row in read_log(self.folder / "metrics.csv") if row["step"] <= step] if step else []
            with replacing(self.folder / "metrics.csv") as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(self.rows)
            self.board = tensorboard(self.folder / "tensorboard", step)
        if not module.recipe.quiet and module.recipe.print_step:
            total = module.recipe.total_steps(module.steps_per_epoch)
            self.bar = tqdm(initial=step, total=total, unit="step", dynamic_ncols=True, mininterval=0.5)

    def on_train_batch_end(
        self, trainer: Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.sum, self.count = self.sum + module.bits.double(), self.count + 1
        step, every = trainer.global_step, module.recipe.print_step
        if not (module.score or module.finished or (every and step % every == 0)):
            return
        module.check_past_steps()
        mean, self.sum, self.count = self.sum / self.count, 0.0, 0
        if not trainer.is_global_zero:
            return
        first = (step, step // module.steps_per_epoch, round(module.seconds, 3), module.lr)
        row = dict(zip(self.columns, (*first, *self.measured(mean, module)), strict=True))
        self.rows.append(row)
        if self.folder is not None:
            with open(self.folder / "metrics.csv", "a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        if self.board is not None:
            for key in self.columns[3:]:
                if row[key] != "":
                    self.board.add_scalar(key, row[key], step)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            which = " (averaged weights)" if module.average else ""
            self.bar.set_postfix_str(f"{self.said(module)}{which}")
        if self.visible and _due(module.epoch, module.recipe.plot_epoch):
            with module.scored():
                images = self.pictures(module)
            write_grid(images, self.folder / "samples" / f"epoch_{module.epoch:05d}.png", scale=2)

    def teardown(self, trainer: Trainer, module: Training, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()


class Checkpoints(Callback):
    """Saves the state of the run, atomically: `last.ckpt`, `best.ckpt` (by test bits/dim), kept `epoch_N.ckpt`.

    Nothing is saved unless the weights, the test score and the loss of the very next step are finite; the latter is
    computed first. So a run that goes on from a checkpoint gets through the forward pass with which it starts, and has
    the same weights there as the run that wrote it. (The gradient of that step, and later steps, can still fail.)
    `last.ckpt` is replaced after the copies: a kill between loses none of them, for the run makes them again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.best = math.inf
        self.saved = 0.0  # training seconds at the last save

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best = state["best"]

    def on_train_start(self, trainer: Trainer, module: Training) -> None:
        self.saved = module.seconds

    def on_train_batch_end(
        self, trainer: Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.folder is None:
            return
        recipe, copies = module.recipe, []
        if _due(module.epoch, recipe.keep_epoch):
            copies.append(f"epoch_{module.epoch:05d}.ckpt")
        if module.score and module.score.mean < self.best:
            self.best = module.score.mean
            copies.append("best.ckpt")
        late = bool(recipe.save_minutes) and module.seconds - self.saved >= 60 * recipe.save_minutes
        asked = trainer.received_sigterm and trainer.world_size == 1  # ranks may hear the signal at different steps
        if copies or late or asked or module.finished or _due(module.epoch, recipe.save_epoch):
            module.check_next_step()
            self._save(trainer, copies)
            self.saved = module.seconds

    def _save(self, trainer: Trainer, copies: list[str]) -> None:
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.folder / "last.ckpt")  # the others only take part; rank 0 writes
            return
        with replacing(self.folder / "last.ckpt") as last:
            trainer.save_checkpoint(last)
            for name in copies:
                with replacing(self.folder / name) as copy:
                    try:
                        os.link(last, copy)  # a second name; the next last.ckpt is a new file
                    except OSError:  # a file system without hard links
                        shutil.copyfile(last, copy)


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float | int | str]]:
    """Rows of a metrics.csv: numbers, or "" for none; [] without the file. Half-written rows are left out."""
    rows = []
    with contextlib.suppress(FileNotFoundError), open(path, newline="") as file:
        for row in csv.DictReader(file):
            with contextlib.suppress(TypeError, ValueError):
                counts = {k: int(row.pop(k)) for k in COLUMNS[:2]}
                rows.append(counts | {k: v if v == "" else float(v) for k, v in row.items()})
    return rows


def seconds_of(clock: str) -> float:
    """What a clock of `recipes.CLOCKS` shows, in seconds from an arbitrary zero."""
    return time.process_time() / torch.get_num_threads() if clock == "processor" else time.monotonic()


def tensorboard(folder: Path, step: int) -> SummaryWriter | None:
    """A TensorBoard log that goes on after this step; None where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # here, for it takes seconds to import

    return SummaryWriter(str(folder), purge_step=step + 1)


def _due(epoch: int | None, every: int) -> bool:
    return epoch is not None and every > 0 and epoch % every == 0


def average(value: Tensor, trainer: Trainer) -> Tensor:
    """The mean of a number over the ranks."""
    if trainer.world_size > 1:
        value = value.detach().clone()
        torch.distributed.all_reduce(value)
        value /= trainer.world_size
    return value
