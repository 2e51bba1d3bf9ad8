"""RG-Flow and Real NVP on the same faces: python benchmarks/faces_pair.py --data celeba_aligned_32.npz

Bits/dim of the two shipped flows of faces on the pictures of the 20 people who were held out (as benchmarks/faces.py
splits the file), with the same noise, and their difference; intervals are a bootstrap over people. Part of claim C11.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from faces import by_person, split

import rgflow
from rgflow.batches import code_lengths
from rgflow.results import hardware, keep
from rgflow.statistics import bootstrap_interval


@dataclass(frozen=True)
class Options:
    """Which flows."""

    data: Path
    """The .npz file."""
    models: tuple[str, str] = ("faces", "faces-realnvp")
    """RG-Flow and Real NVP, shipped or files."""
    seed: int = 0
    """Of the noise."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/pairs/faces-shipped.json")
    """File for the numbers and their conditions."""


def main(options: Options) -> dict[str, float]:
    """Scores both, writes and prints."""
    torch.set_num_threads(options.threads)
    _, _, test, person = split(options.data, 1)
    bits = [code_lengths(rgflow.load(model), test, seed=options.seed) for model in options.models]
    numbers: dict[str, float] = {"people": len(person.unique()), "test images": len(person)}
    for name, each in zip(("RG-Flow", "Real NVP", "RG-Flow less Real NVP"), (*bits, bits[0] - bits[1]), strict=True):
        found = bootstrap_interval(by_person(each, person), np.mean, generator=torch.Generator().manual_seed(0))
        numbers |= {name: found.value, f"{name} low": found.low, f"{name} high": found.high}
    keep(options.out, options, numbers)
    print(hardware())
    print(*(f"{name:30s} {value:,.4f}" for name, value in numbers.items()), sep="\n")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
