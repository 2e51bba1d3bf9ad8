"""RG-Flow beside Real NVP, of one size and trained for one time: python benchmarks/pairs.py --kind rgflow --seed 0

Trains one of the two, with as many parameters as the other to 2 %, on the same batches with the same optimizer,
schedule and averaging of weights, and scores it on test images. These numbers decide claim C11; a pair are the two
kinds of one seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from recorder import parameter_count

from rgflow import Flow, RGFlowConfig, build, data
from rgflow.batches import evaluate, spread
from rgflow.realnvp import RealNVPConfig
from rgflow.recipes import TrainConfig
from rgflow.results import hardware, keep
from rgflow.train import fit
from rgflow.widths import matched_width

MODEL = RGFlowConfig(net="plain", tied=False, nlayers=(4, 3, 2, 2), nhidden=96)  # as the shipped msds1
TRAINING = {"batch_size": 16, "lr": 4e-3, "schedule": "cosine", "warmup_steps": 100, "ema": 0.999}


@dataclass(frozen=True)
class Options:
    """Which one to train."""

    kind: Literal["rgflow", "realnvp"] = "rgflow"
    """Which of the two."""
    data: str = "msds1"
    """A set that `rgflow.data.load` knows."""
    seed: int = 0
    """Of weights, batches and noise."""
    minutes: float = 12.0
    """Of training, of processor time: other work on the machine does not count."""
    threads: int = 1
    """Threads of torch."""
    images: int = 10_000
    """Test images."""
    out: Path = Path("results/runs/pairs")
    """Folder for the numbers, as SET-KIND-SEED.json."""


def untrained(kind: str, shape: tuple[int, int, int], seed: int) -> Flow:
    """RG-Flow, or Real NVP of the width that has as many parameters."""
    generator = torch.Generator().manual_seed(seed)
    model = replace(MODEL, channels=shape[0], size=shape[1:])
    if kind == "rgflow":
        return build(model, generator)
    baseline = RealNVPConfig(channels=shape[0], size=shape[1:], nres=1)
    return build(matched_width(parameter_count(model), baseline), generator)


def main(options: Options) -> dict[str, float]:
    """Trains, scores, writes and prints."""
    torch.set_num_threads(options.threads)
    images, tests = (data.load(options.data, split) for split in ("train", "test"))
    flow = untrained(options.kind, tuple(images[0][0].shape), options.seed)
    recipe = TrainConfig(
        **TRAINING, seed=options.seed, minutes=options.minutes, clock="processor", print_step=0, eval_epoch=0,
        quiet=True, out_dir="",
    )  # fmt: skip
    run = fit(flow, images, None, recipe)
    score = evaluate(flow, tests, batch_size=250, indices=spread(len(tests), options.images))
    numbers = {
        "test bits/dim": score.mean, "standard error": score.standard_error, "test images": score.n,
        "steps": run.steps, "seconds": run.seconds, "parameters": parameter_count(flow.config),
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.data}-{options.kind}-{options.seed}"
    keep(options.out / f"{name}.json", options, numbers)
    print(hardware())
    print(name, *(f"{key:20s} {value:,.6g}" for key, value in numbers.items()), sep="\n  ")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
