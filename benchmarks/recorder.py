"""Runs of a fixed number of steps whose levels are recorded on the way; for the benchmarks beside this file."""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from rgflow import RGFlowConfig, build, data
from rgflow.batches import evaluate, spread
from rgflow.callbacks import seconds_of
from rgflow.contributions import bits_by_level
from rgflow.files import replacing
from rgflow.recipes import TrainConfig
from rgflow.results import hardware, keep
from rgflow.train import fit
from rgflow.training import Training


@dataclass(frozen=True, kw_only=True)
class Study:
    """Networks of the paper's kind, and settings of its appendix A but for width and batch."""

    data: str = "msds1"
    """A set that `rgflow.data.load` knows."""
    seed: int = 0
    """Of weights, batches and noise."""
    steps: int
    """Of training."""
    batch_size: int = 16
    """Images in a step."""
    nres: int = 1
    """Residual blocks in a network."""
    nhidden: int
    """Width of a hidden layer."""
    lr: float = 1e-3
    """Learning rate, constant."""
    curve_images: int = 200
    """Test images for the curves."""
    final_images: int = 2000
    """Test images for the last score."""
    threads: int = 1
    """Threads of torch."""
    out: Path
    """Folder for the numbers (.json) and the curves (.csv)."""


class Recorder(pl.Callback):
    """The levels' mean contributions to the bits/dim of some test images, before the first step and after others.

    rows: (step, seconds of training so far, contribution of level 0, of level 1, ...). Recording is not on the clock,
    which is the recipe's.
    """

    def __init__(self, steps: Iterable[int], images: Dataset, indices: list[int], seed: int) -> None:
        self.steps, self.images, self.indices, self.seed = set(steps), images, indices, seed
        self.rows: list[tuple[float, ...]] = []
        self.spent = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:
        self._record(trainer.global_step, module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._record(trainer.global_step, module)

    def _record(self, step: int, module: Training) -> None:
        if step not in self.steps:
            return
        seconds, start = module.seconds - self.spent, seconds_of(module.recipe.clock)
        with module.scored():
            levels = bits_by_level(module.flow, self.images, seed=self.seed, indices=self.indices).mean(0)
        self.rows.append((step, round(seconds, 2), *(round(value, 6) for value in levels.tolist())))
        self.spent += seconds_of(module.recipe.clock) - start


def moments(steps: int) -> list[int]:
    """Steps at which to look: 0, then four to each doubling up to a thirty-second of all, then every thirty-second."""
    early = {round(2 ** (k / 4)) for k in range(int(4 * math.log2(max(2, steps // 32))) + 1)}
    late = {k * steps // 32 for k in range(33)}
    return sorted(step for step in early | late if step <= steps)


def settings(study: Study) -> TrainConfig:
    """How the flows of a study are trained; seconds are of processor time, whatever else the machine does."""
    return TrainConfig(
        seed=study.seed, steps=study.steps, batch_size=study.batch_size, lr=study.lr, clock="processor", out_dir="",
        quiet=True, print_step=0, eval_epoch=0,
    )  # fmt: skip


def record(config: RGFlowConfig, study: Study) -> tuple[dict[str, float], list[tuple[float, ...]]]:
    """Trains a flow; gives its numbers and the rows of its curves."""
    torch.set_num_threads(study.threads)
    images, tests = (data.load(study.data, split) for split in ("train", "test"))
    channels, *size = images[0][0].shape
    config = replace(config, channels=channels, size=tuple(size))
    flow = build(config, torch.Generator().manual_seed(study.seed))
    recorder = Recorder(moments(study.steps), tests, spread(len(tests), study.curve_images), study.seed)
    run = fit(flow, images, None, settings(study), callbacks=[recorder])
    last = evaluate(flow, tests, seed=study.seed, indices=spread(len(tests), study.final_images))
    numbers = {
        "test bits/dim": last.mean, "standard error": last.standard_error, "test images": last.n, "steps": run.steps,
        "seconds": round(recorder.rows[-1][1], 1), "parameters": parameter_count(config),
    }  # fmt: skip
    return numbers, recorder.rows


def write(name: str, study: Study, numbers: dict[str, float], rows: list[tuple[float, ...]]) -> None:
    """Prints the numbers of a run and writes them with their conditions (NAME.json), and its curves (NAME.csv)."""
    study.out.mkdir(parents=True, exist_ok=True)
    with replacing(study.out / f"{name}.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "seconds", *(f"level {h}" for h in range(len(rows[0]) - 2))))
        writer.writerows(rows)
    keep(study.out / f"{name}.json", study, numbers)
    print(hardware())
    print(name, *(f"{key} {value:,.6g}" for key, value in numbers.items()), sep="\n  ")


def parameter_count(config: RGFlowConfig) -> int:
    """Parameters of a flow."""
    return sum(p.numel() for p in build(config).parameters())


def of_size(config: RGFlowConfig, parameters: int) -> RGFlowConfig:
    """The same flow with the width nhidden at which the number of parameters is nearest.

    Raises:
        ValueError: no width comes within 2 %.
    """

    def count(width: int) -> int:
        return parameter_count(replace(config, nhidden=width))

    most = 1
    while count(most) < parameters:
        most *= 2
    high = bisect_left(range(most + 1), parameters, lo=1, key=count)
    best = min((max(1, high - 1), high), key=lambda width: abs(count(width) - parameters))
    if abs(count(best) - parameters) > 0.02 * parameters:
        raise ValueError(f"no nhidden gives {parameters} parameters within 2 %; the nearest is {best}")
    return replace(config, nhidden=best)
