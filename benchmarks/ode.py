"""A neural-ODE RG-Flow beside one of affine blocks, and the rest of the family: python benchmarks/ode.py --kind ode

All learn MSDS1 shrunk to 16 x 16 pixels for equal processor time, by one recipe. Scores are of the flow itself, not of
a coarse solver: equations solved with a tolerance of 1e-4, traces estimated with several probes; how much other probes
would change the mean is among the numbers. The curve (.csv) has scores on the way, which are not on the clock; the flow
of seed 0 is kept (.safetensors). --kind coarse: what becomes of it with a solver of two fixed steps.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import tyro

from rgflow import Flow, ODEFlowConfig, RealNVPConfig, RGFlowConfig, build, checkpoints, data
from rgflow.batches import code_lengths, evaluate, spread
from rgflow.callbacks import Budget, seconds_of
from rgflow.files import replacing
from rgflow.ode import signs
from rgflow.pictures import Pictures
from rgflow.recipes import TrainConfig
from rgflow.results import hardware, keep
from rgflow.train import fit
from rgflow.training import Training

BLOCKS = RGFlowConfig(size=16, net="plain", tied=False, nlayers=(4, 3, 2), nhidden=96)  # as the shipped msds1
MODELS = {
    "ode": ODEFlowConfig(size=16, widths=(16, 16), rtol=1e-3, atol=1e-3, prior="laplace"),
    "coarse": ODEFlowConfig(size=16, widths=(16, 16), solver="rk4", nsteps=2, prior="laplace"),
    "rgflow": BLOCKS,
    "spline": replace(BLOCKS, coupling="spline", nhidden=70),
    "autoregressive": RGFlowConfig(size=16, coupling="autoregressive", nlayers=(4, 3, 2), nres=1, nhidden=80),
    "neuralrg": RGFlowConfig(size=16, block=2, net="plain", tied=False, prior="gaussian", nlayers=4, nhidden=86),
    "realnvp": RealNVPConfig(size=16, scales=3, nres=1, nhidden=(13, 27, 53)),
}  # but for the neural ODEs all have about as many weights
TRAINING = {"batch_size": 16, "lr": 4e-3, "schedule": "cosine", "warmup_steps": 100, "ema": 0.999}
FINE = {"solver": "dopri5", "rtol": 1e-4, "atol": 1e-4}


@dataclass(frozen=True)
class Options:
    """Which one to train."""

    kind: Literal["ode", "coarse", "rgflow", "spline", "autoregressive", "neuralrg", "realnvp"] = "ode"
    """Steps that are flows in time, or the same solved in two steps of Runge and Kutta; blocks of affine, spline or
    autoregressive couplings; blocks of 2 x 2 with a Gaussian prior; or no hierarchy of blocks, Real NVP."""
    seed: int = 0
    """Of weights, batches and noise."""
    minutes: float = 12.0
    """Of training, of processor time: other work on the machine does not count."""
    images: int = 1000
    """Test images of the score."""
    probes: int = 4
    """With which the traces of the score are estimated."""
    curve_images: int = 100
    """Test images of the scores on the way, with one probe."""
    moments: int = 24
    """Scores on the way, at equal times."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/ode")
    """Folder, for images-KIND-SEED.json, .csv and .safetensors."""


def small(split: str) -> Pictures:
    """MSDS1 with 16 x 16 pixels: each the mean of four."""
    images = data.load("msds1", split).images
    return Pictures(torch.cat([F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in images.split(10_000)]))


class Scores(pl.Callback):
    """Scores at equal times on the way, for which the clock is stopped: rows of step, seconds of training, bits/dim."""

    def __init__(self, tests: Pictures, images: int, every: float) -> None:
        self.tests, self.indices, self.every = tests, spread(len(tests), images), every
        self.rows: list[tuple[float, ...]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Training, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if module.seconds < self.every * (len(self.rows) + 1) and not module.finished:
            return
        start = seconds_of(module.recipe.clock)
        with module.scored():
            found = evaluate(module.flow, self.tests, indices=self.indices)
        self.rows.append((trainer.global_step, round(module.seconds, 1), round(found.mean, 5)))
        budget = next(callback for callback in trainer.callbacks if isinstance(callback, Budget))
        budget.origin += seconds_of(module.recipe.clock) - start


def scored(flow: Flow, tests: Pictures, images: int, probes: int) -> dict[str, float]:
    """The score of a flow, its standard error over images and, of a neural ODE, its standard deviation over probes."""
    ode = isinstance(flow.config, ODEFlowConfig)
    fine = flow.solved(**FINE, probes=probes) if ode else flow
    start = time.process_time()
    score = evaluate(fine, tests, batch_size=100, indices=spread(len(tests), images))
    numbers = {
        "test bits/dim": score.mean, "standard error": score.standard_error, "test images": score.n,
        "seconds of the score": round(time.process_time() - start, 1),
    }  # fmt: skip
    if not ode:
        return numbers
    indices = spread(len(tests), max(2, images // 10))
    at = {name: code_lengths(f, tests, 100, indices=indices).mean() for name, f in (("fine", fine), ("own", flow))}
    numbers["bits/dim more by the solver of training"] = float(at["own"] - at["fine"])
    means, generator = [], torch.Generator().manual_seed(0)
    for _ in range(5):
        for step in fine.bijector.steps:
            step.probes.copy_(signs(step.probes.shape, generator) if len(step.probes) == probes else step.probes)
        means.append(float(code_lengths(fine, tests, 100, indices=indices).mean()))
    numbers["standard deviation over probes"] = float(np.std(means, ddof=1))
    return numbers


def main(options: Options) -> dict[str, float]:
    """Trains, scores, writes and prints."""
    torch.set_num_threads(options.threads)
    tests = small("test")
    flow = build(MODELS[options.kind], torch.Generator().manual_seed(options.seed))
    recipe = TrainConfig(
        **TRAINING, seed=options.seed, minutes=options.minutes, clock="processor", print_step=0, eval_epoch=0,
        quiet=True, out_dir="",
    )  # fmt: skip
    scores = Scores(tests, options.curve_images, 60 * options.minutes / max(1, options.moments))
    run = fit(flow, small("train"), None, recipe, callbacks=[scores] if options.moments else [])
    numbers = scored(flow, tests, options.images, options.probes) | {
        "steps": run.steps, "seconds": round(run.seconds, 1), "seconds per step": run.seconds / run.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
    }  # fmt: skip
    name = f"images-{options.kind}-{options.seed}"
    options.out.mkdir(parents=True, exist_ok=True)
    with replacing(options.out / f"{name}.csv") as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file).writerows([("step", "seconds", "bits/dim"), *scores.rows])
    if options.seed == 0:
        checkpoints.save(flow, options.out / f"{name}.safetensors", {"source": f"benchmarks/ode.py, {name}"})
    keep(options.out / f"{name}.json", options, numbers)
    print(hardware())
    print(name, *(f"{key} {value:,.6g}" for key, value in numbers.items()), sep="\n  ")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
