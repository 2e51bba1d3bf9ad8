"""Synthetic images per second, beside Pillow drawing the same pictures one by one: python benchmarks/data.py"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw

from rgflow import synthetic
from rgflow.results import hardware


@dataclass(frozen=True)
class Options:
    """What to time."""

    images: int = 20_000
    """Images in one draw of ours."""
    pillow: int = 300
    """Images that Pillow draws."""
    rounds: int = 5
    """Rounds, the first of which is not counted."""


def pillow(labels: dict[str, torch.Tensor], count: int) -> np.ndarray:
    """The same pictures by Pillow: ellipse, rotate, paste, cell by cell; (count, 32, 32, 3)."""
    position, angle, colour = (labels[key].numpy() for key in ("position", "angle", "colour"))
    pictures = []
    for n in range(count):
        picture = Image.new("RGB", (32, 32))
        for column in range(4):
            for row in range(4):
                oval = Image.new("L", (8, 8))
                ImageDraw.Draw(oval).ellipse((1, 3, 7, 5), fill=255)
                oval = oval.rotate(float(angle[n, row, column]), Image.Resampling.BICUBIC)
                down, right = map(int, position[n, row, column])
                picture.paste(tuple(map(int, colour[n, row, column])), (8 * column + right, 8 * row + down), oval)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def main(options: Options) -> dict[str, float]:
    """Prints images per second and their ratio, and gives the medians."""
    generator = torch.Generator().manual_seed(0)
    labels = synthetic.msds1(options.pillow, generator)[1]
    tasks: dict[str, tuple[int, Callable[[], object]]] = {
        "msds1": (options.images, lambda: synthetic.msds1(options.images, generator)),
        "msds2": (options.images, lambda: synthetic.msds2(options.images, generator)),
        "Pillow": (options.pillow, lambda: pillow(labels, options.pillow)),
    }
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(options.rounds):
        for name, (count, task) in tasks.items():
            start = time.perf_counter()
            task()
            rates[name].append(count / (time.perf_counter() - start))
    median = {name: statistics.median(values[1:]) for name, values in rates.items()}
    print(hardware())
    for name, rate in median.items():
        print(f"{name:8s} {rate:9.0f} images a second, {rate / median['Pillow']:6.1f} times Pillow")
    return median


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
