"""The two examples of the ODE RG-Flow's notebook: python benchmarks/peaks.py --example peaks --points 10000 --seed 0

Trains a neural ODE on one site, from draws of two peaks or from the energy of a bell (`rgflow.targets`), with the
network, penalties and tolerance of the original notebook, and measures by quadrature, with a tolerance of 1e-6, how far
its density is from the true one. The notebook has 100 points; it does not say how many steps it took. From an energy
the flow learns by `rgflow.train.fit_energy`, without any points but its own draws.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from rgflow import Flow, ODEFlowConfig, build, checkpoints
from rgflow.recipes import TrainConfig
from rgflow.results import hardware, keep
from rgflow.targets import BELL, PEAKS, divergence, learn
from rgflow.train import fit_energy

MODEL = ODEFlowConfig(
    channels=1, size=(1,), widths=(16, 8), kernel=3, boundary="zeros", activation="tanh", nhyper=16, rtol=1e-3,
    atol=1e-3, kinetic=0.01, jacobian=0.01,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What to learn, and from how many draws."""

    example: Literal["peaks", "bell"] = "peaks"
    """Two peaks, from draws, or a bell, from its energy."""
    points: int = 10_000
    """Draws of the two peaks to learn from."""
    seed: int = 0
    """Of draws, weights and batches."""
    steps: int = 400
    """Of Adam."""
    batch_size: int = 500
    """Draws in a step; all of them if there are no more. From an energy, so many of the flow's own."""
    lr: float = 1e-2
    """At the start; it falls to 0 as a cosine."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/ode")
    """Folder, for peaks-POINTS-SEED.json or bell-SEED.json, and the flow (.safetensors)."""


def trained(options: Options) -> tuple[Flow, float]:
    """The flow, and the processor time that it took, seconds."""
    generator = torch.Generator().manual_seed(options.seed)
    draws = PEAKS.sample(options.points, generator)
    flow, start = build(MODEL, generator), time.process_time()
    if options.example == "peaks":
        learn(flow, draws, options.steps, options.batch_size, options.lr, generator)
    else:
        recipe = TrainConfig(
            seed=options.seed, steps=options.steps, batch_size=options.batch_size, lr=options.lr, schedule="cosine",
            weight_decay=0.0, clip_grad=0.0, eval_epoch=0, eval_images=2, quiet=True, out_dir="",
        )  # fmt: skip
        fit_energy(flow, BELL, recipe)
    return flow, time.process_time() - start


def main(options: Options) -> dict[str, float]:
    """Trains, measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow, seconds = trained(options)
    target = {"peaks": PEAKS, "bell": BELL}[options.example]
    found = divergence(target, flow.solved(rtol=1e-6, atol=1e-6))
    coarse = divergence(target, flow)
    numbers = {
        "KL": found.value, "error of the quadrature": found.error, "total probability": found.total,
        "KL at the tolerance of training": coarse.value, "seconds": round(seconds, 1), "steps": options.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
    }  # fmt: skip
    name = f"peaks-{options.points}-{options.seed}" if options.example == "peaks" else f"bell-{options.seed}"
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoints.save(flow, options.out / f"{name}.safetensors", {"source": f"benchmarks/peaks.py, {name}"})
    keep(options.out / f"{name}.json", options, numbers)
    print(hardware())
    print(name, *(f"{key} {value:,.6g}" for key, value in numbers.items()), sep="\n  ")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
