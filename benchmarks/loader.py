"""What reading real images adds to a training step: python benchmarks/loader.py --data msds1

Two runs of the same steps take turns, one step of each at a time, so that both see the same machine: one is given its
images by the loader (order, reading, collation, and what goes with it), the other has one batch fixed. Both dequantise
in the step, with noise keyed by image. Medians over rounds, and the ratio of each round's times; the goal is 1.05.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image

from rgflow import RGFlowConfig, build, data
from rgflow.batches import BatchStream, Indexed, loader
from rgflow.pictures import LazyPictures, Preparation
from rgflow.recipes import PRESETS, TrainConfig, divided
from rgflow.results import hardware, keep
from rgflow.training import Training


@dataclass(frozen=True)
class Options:
    """What to time."""

    data: Literal["msds1", "folder", "jpeg"] = "msds1"
    """msds1: generated images in memory; folder: PNG files, read once as your own would be; jpeg: files of 178 x 218
    pixels that are decoded, cut and made smaller when their turn first comes, as those of celeba32 are."""
    workers: int = 0
    """Processes that read images; 0: the training process itself."""
    preset: Literal["small", "fast"] = "fast"
    """Model and settings of `rgflow train`."""
    batch_size: int = 64
    """Images in a step."""
    images: int = 2000
    """Files in the folder."""
    epoch: Literal[0, 1] = 1
    """1: a later epoch; 0: the first, in which the training process decodes what it keeps."""
    rounds: int = 9
    """Rounds, the first of which is not counted."""
    steps: int = 4
    """Steps of each kind in a round."""
    size: Literal[8, 32] = 32
    """Edge of an image of the folder; 8 is for tests."""
    out: Path | None = None
    """JSON file for the numbers and their conditions."""


def write_folder(folder: Path, count: int, size: tuple[int, int], ending: str) -> list[Path]:
    """Fills a folder with files of smooth noise, and names them."""
    generator = np.random.default_rng(0)
    files = [folder / f"{k:05d}.{ending}" for k in range(count)]
    for file in files:
        small = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(file)
    return files


class Files:
    """Pictures that are opened when asked for, as torchvision's sets do it: index -> (picture, label)."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(self.files[index]), -1


def stepper(module: Training) -> Callable[[tuple[torch.Tensor, torch.Tensor]], None]:
    """One training step as `rgflow.train.fit` takes it, Lightning's own share left out."""
    optimizer = module.configure_optimizers()

    def step(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        if module.average:
            module.average.update(module.global_step + 1)

    return step


class OneProcess:
    """What a step asks of a trainer."""

    world_size, global_step = 1, 0


def main(options: Options) -> dict[str, float]:
    """Prints the medians and the ratio, and gives them."""
    with tempfile.TemporaryDirectory() as folder:
        if options.data == "msds1":
            images = data.load("msds1", "train")
        elif options.data == "folder":
            write_folder(Path(folder), options.images, (options.size, options.size), "png")
            images = data.load("images", "train", folder, size=options.size)
        else:
            files = write_folder(Path(folder), options.images, (178, 218), "jpg")
            preparation = Preparation(options.size, crop=148)
            images = LazyPictures(Files(files), torch.arange(len(files)), preparation, flip=True)
        return measure(options, Indexed(images))


def measure(options: Options, images: Indexed) -> dict[str, float]:
    """Times both kinds of steps."""
    shape, (config, of_recipe) = images[0][0].shape, divided(PRESETS[options.preset])
    if shape[-1] == 8:  # for tests
        config |= {"nlayers": 1, "nhidden": 8, "linear": None}
    recipe = TrainConfig(**{**of_recipe, "batch_size": options.batch_size, "steps": 10**6, "workers": options.workers})
    trainer = OneProcess()
    if options.epoch and not options.workers and images.memory is None:
        images.__getitems__(range(len(images)))
    steps: dict[str, Callable] = {}
    for name in ("loader", "fixed"):
        flow = build(RGFlowConfig(**{**config, "channels": shape[0], "size": shape[-1]}), _generator())
        module = Training(flow, images, recipe, {})
        module.trainer = trainer
        steps[name] = stepper(module)
    batches = iter(loader(images, BatchStream(len(images), recipe.batch_size, recipe.seed), recipe.workers))
    fixed = next(batches)
    seconds: dict[str, list[float]] = {"loader": [], "fixed": [], "reading": []}
    for _ in range(options.rounds):
        spent = dict.fromkeys(seconds, 0.0)
        for _ in range(options.steps):
            start = time.perf_counter()
            batch = next(batches)
            read = time.perf_counter()
            steps["loader"](batch)
            done = time.perf_counter()
            steps["fixed"](fixed)
            spent["reading"] += read - start
            spent["loader"] += done - start
            spent["fixed"] += time.perf_counter() - done
        for name, value in spent.items():
            seconds[name].append(value / options.steps)
    counted = {name: values[1:] for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(counted["loader"], counted["fixed"], strict=True)]
    median = {name: statistics.median(values) for name, values in counted.items()}
    median["loader / fixed"] = statistics.median(ratios)
    median["1 + reading / fixed"] = 1 + median["reading"] / median["fixed"]  # without the noise of the steps themselves

    print(hardware())
    print(f"{options}, {len(images)} images")
    for name in ("loader", "fixed", "reading"):
        print(f"{name:20s} {1e3 * median[name]:9.2f} ms   (lowest {1e3 * min(counted[name]):.2f}, "
              f"highest {1e3 * max(counted[name]):.2f})")  # fmt: skip
    print(f"{'loader / fixed':20s} {median['loader / fixed']:9.3f}      (lowest {min(ratios):.3f}, "
          f"highest {max(ratios):.3f})   goal 1.05")  # fmt: skip
    print(f"{'1 + reading / fixed':20s} {median['1 + reading / fixed']:9.3f}")
    if options.out is not None:
        keep(options.out, options, median)
    return median


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
