"""Whether generated faces are copies of faces trained on: python benchmarks/copies.py --data celeba_aligned_32.npz

Of samples of a flow the distance to the nearest training image, mirrored or not, as root mean square of grey levels;
beside it that of the photographs of the people who were held out (as benchmarks/faces.py splits the file), which the
flow has never seen. A copy would be much nearer than these are: nearer than all but one in a hundred of them, to be
exact, since the set has a picture twice under two names, of which one is held out. No photograph is written.

Samples are drawn all at once with the seed, as the figures of the book draw theirs: `counts` are the numbers that
figures show, and one that is large enough for shares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from faces import split
from torch import Tensor

import rgflow
from rgflow.nearest import nearest
from rgflow.pixels import from_logit
from rgflow.results import hardware, keep

QUANTILE = "one in a hundred"
SCHEMES: dict[str, float | list[float]] = {"1": 1.0, "0.7": 0.7, "0.6": 0.6, "mixed": [0.2, 0.6, 0.6, 0.6]}


@dataclass(frozen=True)
class Options:
    """Which flow."""

    data: Path
    """The .npz file."""
    model: str = "faces"
    """Shipped, or a file."""
    counts: tuple[int, ...] = (8, 16, 300)
    """Samples drawn at once; each count has its own."""
    seed: int = 0
    """Of the samples."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/copies")
    """Folder for the numbers, as MODEL.json."""


def summary(distances: Tensor) -> dict[str, float]:
    """The least distance, what one in a hundred is below, and the median."""
    found = {"least": distances.min(), QUANTILE: distances.quantile(0.01), "median": distances.median()}
    return {what: value.item() for what, value in found.items()}


@torch.no_grad()
def main(options: Options) -> dict[str, float]:
    """Draws, searches, writes and prints."""
    torch.set_num_threads(options.threads)
    flow = rgflow.load(options.model)
    train, _, test, _ = split(options.data, 1)
    real = nearest(test.images, train.images, mirrored=True).distance
    numbers: dict[str, float] = {"training images": len(train), "test images": len(test)}
    numbers |= {f"held-out people: {what}": value for what, value in summary(real).items()}
    for scheme, temperature in SCHEMES.items():
        for count in options.counts:
            x = flow.sample(count, temperature, torch.Generator().manual_seed(options.seed))
            found = nearest(from_logit(x), train.images, mirrored=True)
            head = f"temperature {scheme}, {count} samples"
            numbers |= {f"{head}: {what}": value for what, value in summary(found.distance).items()}
            nearer = found.distance < numbers[f"held-out people: {QUANTILE}"]
            numbers[f"{head}: nearer than strangers"] = nearer.double().mean().item()
    name = Path(options.model).stem
    options.out.mkdir(parents=True, exist_ok=True)
    keep(options.out / f"{name}.json", replace(options, model=name), numbers)
    print(hardware())
    print(*(f"{key:50s} {value:,.3f}" for key, value in numbers.items()), sep="\n")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
