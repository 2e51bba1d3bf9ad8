"""What the latents of a flow say of known factors: python benchmarks/factors.py --data msds1 --prior laplace --seed 0

Trains a flow, or reads one, and measures on test images of MSDS1 or MSDS2: what single latents and whole levels know
of the factors from which the pictures were drawn (linear R^2, mutual information, MIG, DCI), how far the latents of the
top level are correlated, and what a picture has of which source when levels are swapped or mixed. These numbers decide
claims C6, C8 and C9: chapters 04 and 05 hand them to the ledger. All intervals are 95 %; a number NAME has its ends in
"NAME low" and "NAME high".

All flows have the settings of the preset `fast` without its fitted linear maps, which would favour one prior.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

from rgflow import Flow, RGFlowConfig, build, checkpoints, data, disentanglement, factors, mixing, ovals
from rgflow.batches import evaluate, spread
from rgflow.recipes import PRESETS, TrainConfig, divided
from rgflow.results import keep
from rgflow.statistics import Interval
from rgflow.train import fit

SETTINGS: dict[str, object] = {**PRESETS["fast"], "linear": None, "disentangler_lr_factor": 1.0}
CARD = {"licence": "generated data, MIT"}


@dataclass(frozen=True)
class Options:
    """Which flow, and how much to measure."""

    data: Literal["msds1", "msds2"] = "msds1"
    """The set."""
    prior: Literal["laplace", "gaussian"] = "laplace"
    """The prior of the latents."""
    seed: int = 0
    """Of weights, batches and noise, and of what is measured."""
    minutes: float = 12.0
    """Of training, of processor time: other work on the machine does not count."""
    model: Path | None = None
    """A model file to measure in place of training."""
    threads: int = 1
    """Threads of torch."""
    images: int = 5000
    """Test images for mutual information, MIG, DCI and correlations."""
    linear_images: int = 2000
    """Test images for linear R^2."""
    pairs: int = 1000
    """Pairs of test images for swaps and mixtures."""
    bins: int = disentanglement.BINS
    """Cells per latent and factor for mutual information; needs 10 bins^2 images."""
    groups: int = 5
    """Of images, for the intervals of DCI."""
    score_images: int = 10_000
    """Test images for bits/dim."""
    save: Path | None = None
    """Folder for the trained model."""
    out: Path = Path("results/runs/factors")
    """Folder for the numbers, as SET-PRIOR-SEED.json."""


def trained(options: Options) -> tuple[Flow, dict[str, float]]:
    """The flow of these options, and what its training was."""
    if options.model is not None:
        flow = checkpoints.load(options.model)
        if flow.config.prior != options.prior:
            raise ValueError(f"{options.model} has the prior {flow.config.prior}, not {options.prior}")
        return flow, {}
    images = data.load(options.data, "train")
    of_model, of_training = divided({**SETTINGS, "prior": options.prior})
    channels, *size = images[0][0].shape
    config = RGFlowConfig(**{**of_model, "channels": channels, "size": tuple(size)})
    flow = build(config, torch.Generator().manual_seed(options.seed))
    recipe = TrainConfig(
        **of_training, seed=options.seed, minutes=options.minutes, clock="processor", print_step=0, eval_epoch=0,
        quiet=True, out_dir="",
    )  # fmt: skip
    run = fit(flow, images, None, recipe)
    return flow, {"steps": run.steps, "seconds": run.seconds}


def put(numbers: dict[str, float], name: str, found: Interval) -> None:
    """Adds a number and the ends of its interval."""
    numbers |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def known(flow: Flow, z: Tensor, true: dict[str, Tensor], options: Options) -> dict[str, float]:
    """What levels and single latents know of the factors the images were drawn from."""
    numbers: dict[str, float] = {}
    top, shared = int(flow.levels.max()), ovals.GLOBAL[options.data]
    angle = shared == "global angle"
    single = {name: true[name] for name in (shared, *ovals.LOCAL[options.data])}
    categories = {**single, **({shared: ovals.degrees(true[shared])} if angle else {})}  # one number, not two
    some = slice(options.linear_images)
    for level in range(top + 1):
        table = factors.of_level(z, flow.levels, level).numpy()
        for name, values in single.items():
            found = disentanglement.linear_r2(table[some], values[some], seed=options.seed)
            put(numbers, f"R2 {name}, level {level}", found)
        for name, values in categories.items():
            best = disentanglement.best_latents(table, values, options.bins, seed=options.seed)
            put(numbers, f"best latent {name}, level {level}", best.share)
    gap = disentanglement.mig(table, categories[shared], options.bins, seed=options.seed)
    put(numbers, "MIG, top", gap.value)
    both = torch.cat([true[shared], true["own colours"]], 1)
    scores = disentanglement.dci(table, both, "lasso", options.groups, options.seed)
    for name in ("disentanglement", "completeness", "informativeness"):
        put(numbers, f"DCI {name}, top", getattr(scores, name))
    put(numbers, "mean squared correlation, top", factors.mean_square_correlation(table, seed=options.seed))
    return numbers


def swapped(flow: Flow, images: Tensor, options: Options) -> dict[str, float]:
    """What a donor brings to a host, level by level, and all levels below the top."""
    numbers: dict[str, float] = {}
    top = int(flow.levels.max())
    swaps = {f"swapped {level}": [level] for level in range(top + 1)} | {f"swapped below {top}": list(range(top))}
    found = factors.swap_weights(flow, images, ovals.factors, list(swaps.values()), options.seed)
    for swap, of in zip(swaps, found, strict=True):
        for name, weight in of.items():
            put(numbers, f"donor {name}, {swap}", weight.first)
            put(numbers, f"host {name}, {swap}", weight.second)
    return numbers


def mixed(flow: Flow, images: Tensor, options: Options) -> dict[str, float]:
    """What mixtures take from A and from B."""
    numbers: dict[str, float] = {}
    fine = ovals.LOCAL[options.data][0]
    cuts = range(int(flow.levels.max()) + 2)
    for score in mixing.scores(flow, images, ovals.factors, ovals.GLOBAL[options.data], fine, cuts, options.seed):
        for name, weight in score.weights.items():
            put(numbers, f"A {name}, {score.name}", weight.first)
            put(numbers, f"B {name}, {score.name}", weight.second)
        put(numbers, f"separation, {score.name}", score.separation)
        put(numbers, f"excess separation, {score.name}", score.excess)
    return numbers


def table(numbers: dict[str, float]) -> Iterable[str]:
    """Lines to print: every number with its interval."""
    for name, value in numbers.items():
        if name.endswith((" low", " high")):
            continue
        ends = f"  ({numbers[f'{name} low']:.4f} to {numbers[f'{name} high']:.4f})" if f"{name} low" in numbers else ""
        yield f"{name:55s} {value:,.4f}{ends}"


def main(options: Options) -> dict[str, float]:
    """Trains or reads, measures, prints and keeps the numbers."""
    torch.set_num_threads(options.threads)
    flow, numbers = trained(options)
    name = f"{options.data}-{options.prior}-{options.seed}"
    if options.save is not None:
        options.save.mkdir(parents=True, exist_ok=True)
        checkpoints.save(flow, options.save / f"{name}.safetensors", {**CARD, "data": options.data, **numbers})
    tests = data.load(options.data, "test")
    score = evaluate(flow, tests, batch_size=250, indices=spread(len(tests), options.score_images))
    half = 1.96 * score.standard_error
    put(numbers, "test bits/dim", Interval(score.mean, score.mean - half, score.mean + half))
    numbers["parameters"] = sum(p.numel() for p in flow.parameters())
    images = tests.images[: options.images]
    true = ovals.known_factors({key: label[: options.images] for key, label in tests.labels.items()})
    numbers |= known(flow, mixing.encoded(flow, images, options.seed), true, options)
    pictures = tests.images[: 2 * options.pairs]
    numbers |= swapped(flow, pictures, options) | mixed(flow, pictures, options)
    print("\n".join(table(numbers)))
    keep(options.out / f"{name}.json", options, numbers)
    return numbers


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(tyro.cli(Options, description=__doc__))
