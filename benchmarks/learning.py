"""How fast a flow learns: test bits/dim against seconds, from a cold start: python benchmarks/learning.py --recipe fast

The clock starts when the images are in memory and everything is imported; building the flow, fitting its linear maps
and, where asked for, compiling it are on the clock. Scores are not: copies of the weights (averaged ones, where the
recipe averages) are kept at given times and scored afterwards.
"""

from __future__ import annotations

import copy
import csv
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
import tyro
from torch import Tensor
from torch.utils.data import Dataset

from rgflow import RGFlowConfig, build, data
from rgflow.batches import evaluate, spread
from rgflow.compiling import no_kept_kernels
from rgflow.files import replacing
from rgflow.pixels import from_logit
from rgflow.recipes import PRESETS, TrainConfig, divided
from rgflow.results import commit, hardware
from rgflow.train import fit
from rgflow.training import Training

FAST, ORIGINAL = PRESETS["fast"], {**PRESETS["small"], **PRESETS["authors"]}
PLAIN = {**ORIGINAL, **{"net": "plain", "tied": False}}


def part(*names: str) -> dict[str, object]:
    """Settings of the preset `fast`."""
    return {name: FAST[name] for name in names}


RECIPES: dict[str, dict[str, object]] = {
    "original": ORIGINAL,
    "plain": PLAIN,
    "whitened": {**ORIGINAL, **part("linear")},
    "spline": {**PLAIN, **part("coupling")},
    "batch": {**ORIGINAL, **part("batch_size")},
    "schedule": {**ORIGINAL, **part("lr", "schedule", "warmup_steps", "ema")},
    "fast": FAST,
}  # the settings of the original program at the widths of `small`; each ingredient of `fast` alone, except that splines
# need plain networks, and that slower disentanglers are for what is fitted; all together


@dataclass(frozen=True)
class Options:
    """What to train."""

    recipe: Literal["original", "plain", "whitened", "spline", "batch", "schedule", "fast"] = "fast"
    """Settings; all at the same widths and numbers of layers."""
    seed: int = 0
    """Of weights, batches and noise."""
    minutes: float = 12.0
    """Of training."""
    compile: bool = False
    """Compile first, on the clock."""
    threads: int = 1
    """Threads of torch."""
    data: str = "msds1"
    """A set that `rgflow.data.load` knows."""
    curve_images: int = 500
    """Test images for a point of the curve."""
    final_images: int = 10_000
    """Test images for the last point."""
    samples: int = 0
    """Pictures drawn at each point of the curve, at temperature 0.7 and with the same random numbers each time; kept
    as RECIPE-SEED.npz."""
    out: Path = Path("results/runs/learning")
    """Folder for the curve (RECIPE-SEED.csv) and its conditions (.json)."""


class Snapshots(pl.Callback):
    """Keeps a copy of the weights that would be scored, at the first step after each of some times (seconds)."""

    def __init__(self, times: list[float]) -> None:
        self.times, self.kept = list(times), []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.times and module.seconds >= self.times[0]:
            while self.times and module.seconds >= self.times[0]:
                self.times.pop(0)
            with module.scored():
                state = copy.deepcopy(module.flow.state_dict())
            self.kept.append((module.seconds, trainer.global_step, state))


def moments(minutes: float) -> list[float]:
    """Seconds at which to look: 0, 5, 10, 15, 20, 30, 45, 60, then six to each doubling, up to the end."""
    early = [0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0]
    late = [60 * 2 ** (k / 6) for k in range(1, 6 * max(1, math.ceil(math.log2(max(1.0, minutes)))) + 1)]
    return [t for t in early + late if t < 60 * minutes]


def train(
    settings: dict[str, object], options: Options, images: Dataset, tests: Dataset
) -> tuple[list[tuple], dict[str, object], Tensor]:
    """Trains once; gives the curve, (seconds, step, bits/dim) in rows, the last score with its conditions, and samples
    (rows, n, C, H, W)."""
    of_model, of_training = divided(settings)
    snapshots = Snapshots(moments(options.minutes))
    start = time.monotonic()
    torch.manual_seed(options.seed)
    channels, *size = images[0][0].shape
    config = RGFlowConfig(channels, tuple(size), **of_model)
    flow = build(config)
    before = time.monotonic() - start
    recipe = TrainConfig(
        **of_training,
        seed=options.seed,
        minutes=options.minutes - before / 60,
        compile=options.compile,
        print_step=0,
        eval_epoch=0,
        quiet=True,
        out_dir="",
    )
    with no_kept_kernels():
        run = fit(flow, images, None, recipe, callbacks=[snapshots])
    last, plain = evaluate(flow, tests, indices=spread(len(tests), options.final_images)), build(config)
    some = spread(len(tests), options.curve_images)
    rows, pictures = [], []
    for seconds, step, state in snapshots.kept:
        plain.load_state_dict(state)
        rows.append((round(seconds + before, 2), step, round(evaluate(plain, tests, indices=some).mean, 5)))
        with torch.no_grad():
            drawn = plain.sample(options.samples, 0.7, torch.Generator().manual_seed(options.seed))
        pictures.append(from_logit(drawn))
    conditions = {
        "recipe": options.recipe, "seed": options.seed, "minutes": options.minutes, "compiled": options.compile,
        "steps": run.steps, "seconds": round(run.seconds + before, 2), "test_bits_per_dim": last.mean,
        "standard_error": last.standard_error, "test_images": last.n, "curve_images": len(some),
        "data": options.data, "training_images": len(images), "hardware": hardware(), "commit": commit(),
        "flow": asdict(config), "training": asdict(recipe),
    }  # fmt: skip
    return rows, conditions, torch.stack(pictures)


def main(options: Options) -> dict:
    """Trains, prints the curve and writes it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    images, tests = (data.load(options.data, split) for split in ("train", "test"))
    rows, conditions, pictures = train(RECIPES[options.recipe], options, images, tests)
    rows.append((conditions["seconds"], conditions["steps"], round(conditions["test_bits_per_dim"], 5)))
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.recipe}{'-compiled' if options.compile else ''}-{options.seed}"
    with replacing(options.out / f"{name}.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seconds", "step", "test_bits_per_dim"))
        writer.writerows(rows)
    with replacing(options.out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(conditions, indent=1) + "\n")
    if options.samples:
        with replacing(options.out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, seconds=[row[0] for row in rows[:-1]], images=pictures.numpy())
    print(conditions["hardware"])
    for seconds, step, bits in rows:
        print(f"{seconds:8.1f} s  step {step:6d}  {bits:.4f} bits/dim")
    print(f"last: {conditions['test_bits_per_dim']:.4f} +- {conditions['standard_error']:.4f}, {name}")
    return conditions


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
