"""Whether samples are better at mixed temperatures: python benchmarks/temperatures.py --model msds1 --data msds1

Samples of a shipped flow at several temperatures beside test images: how often a classifier tells them apart, Fréchet
distance, precision and recall (`rgflow.twosample`). Each seed has its own samples, test images and folds, the same for
all temperatures; "real images", of the training set, in the place of samples show what is perfect. These numbers decide
claim C13. Faces: --data FILE.npz, as benchmarks/faces.py reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from faces import split
from torch import Tensor

import rgflow
from rgflow import Flow, data, twosample
from rgflow.pixels import from_logit
from rgflow.results import hardware, keep

SCHEMES: dict[str, float | list[float]] = {
    "1": 1.0,
    "0.8": 0.8,
    "0.6": 0.6,
    "mixed": [0.2, 0.6, 0.6, 0.6],
    "0.2 below, 1 above": [0.2, 1.0, 1.0, 1.0],
    "1 below, 0.6 above": [1.0, 0.6, 0.6, 0.6],
}  # mixed: the paper's; then each half of it alone


@dataclass(frozen=True)
class Options:
    """Which flow, and beside which images."""

    model: str = "msds1"
    """A shipped flow of 32 x 32."""
    data: str = "msds1"
    """A set that `rgflow.data.load` knows, or the .npz file of faces."""
    images: int = 1000
    """Samples, and as many test images; fewer where there are fewer."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of samples, choice of test images, and folds."""
    component_images: int = 5000
    """Training images whose principal components are taken: other images than the compared ones, along whose own
    components any others vary less."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/temperatures")
    """Folder for the numbers, as MODEL.json."""


def images_of(options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Training images for the components, others that take the place of samples, and all test images, uint8."""
    if options.data.endswith(".npz"):
        _, train, test, _ = split(Path(options.data), 1)
    else:
        train, test = (data.load(options.data, part) for part in ("train", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    kept = min(options.images, len(test), len(train) // 2)  # of others
    used = order[kept : kept + options.component_images]
    return train.images[used], train.images[order[:kept]], test.images


@torch.no_grad()
def drawn(flow: Flow, n: int, temperature: float | list[float], seed: int) -> Tensor:
    """Samples, uint8 (n, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [flow.sample(min(100, n - first), temperature, generator) for first in range(0, n, 100)]
    return from_logit(torch.cat(parts))


def main(options: Options) -> dict[str, float]:
    """Draws, measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow, (train, others, tests) = rgflow.load(options.model).requires_grad_(False), images_of(options)
    components = twosample.principal_components(train)
    n = min(options.images, len(tests))
    numbers: dict[str, float] = {"images": n}
    for seed in options.seeds:
        real = tests[torch.randperm(len(tests), generator=torch.Generator().manual_seed(seed))[:n]]
        for scheme in ("real images", *SCHEMES):
            samples = others if scheme == "real images" else drawn(flow, n, SCHEMES[scheme], seed)
            precision, recall = twosample.precision_recall(real, samples, components)
            found = {
                "accuracy": twosample.accuracy(real, samples, components, seed=seed).value,
                "Fréchet distance": twosample.frechet_distance(real, samples, components),
                "precision": precision.value,
                "recall": recall.value,
            }
            numbers |= {f"{what}, {scheme}, seed {seed}": value for what, value in found.items()}
            print(seed, f"{scheme:20s}", *(f"{what} {value:.3f}" for what, value in found.items()), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    keep(options.out / f"{options.model}.json", options, numbers)
    print(hardware())
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
