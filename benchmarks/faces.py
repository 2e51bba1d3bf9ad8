"""Real faces, by the clock: python benchmarks/faces.py --data celeba_aligned_32.npz

Trains on CelebA's aligned faces and scores those of 20 people who are not in the training set, at full resolution. The
interval is a bootstrap over these people, not over images. The file has uint8 images (N, 32, 32, 3) under "images",
under "full_res" 1 for those cut from the original files and 0 for those from half-size copies, and under "identity200"
a person's number (0 to 199; -1: not known). People from 180 on are the test set; the others, and all whose person is
not known, are trained on. A run that was stopped goes on when the same command is given again.

CelebA is for research that is not commercial, and so are the weights; the card says so.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from rgflow import Flow, RGFlowConfig, build
from rgflow.batches import code_lengths, spread
from rgflow.files import replacing
from rgflow.pictures import Pictures
from rgflow.pixels import from_logit
from rgflow.recipes import PRESETS, TrainConfig, divided
from rgflow.results import keep
from rgflow.statistics import bootstrap_interval
from rgflow.train import fit

FIRST = 180  # of the people in the test set
CARD = {
    "licence": "non-commercial research only, as CelebA",
    "note": "trained on faces of CelebA (Liu et al. 2015); not for identification of people, nor for commercial use",
}


@dataclass(frozen=True)
class Options:
    """What to train, and for how long."""

    data: Path
    """The .npz file."""
    minutes: float = 120.0
    """Of training, over all restarts; scores on the way included."""
    threads: int = 2
    """Threads of torch."""
    seed: int = 0
    """Of weights, batches and noise."""
    nhidden: tuple[int, ...] = (256, 256, 128, 96)
    """Width of the networks per level, lowest first."""
    nlayers: tuple[int, ...] = (5, 4, 3, 2)
    """Coupling layers per level, lowest first."""
    places: bool = True
    """Networks know where their block lies: the faces are aligned."""
    batch_size: int = 16
    """Images in a step."""
    lr: float = 4e-3
    """Learning rate after the warm-up; disentanglers take a quarter of it, as in the preset."""
    often: int = 2
    """How many times a pass over the training set shows an image of full resolution (the others: once)."""
    compile: bool = False
    """Compile first, on the clock."""
    folder: Path = Path("runs/faces")
    """Of the run."""
    samples: int = 32
    """Generated faces, kept beside --out as .npz."""
    temperature: float = 0.7
    """Of these."""
    out: Path | None = None
    """JSON file for the numbers and their conditions; metrics.csv is copied beside it."""


def split(path: Path, often: int) -> tuple[Pictures, Pictures, Pictures, Tensor]:
    """Training images, those of them with full resolution, test images, and whose they are."""
    with np.load(path) as file:
        missing = {"images", "full_res", "identity200"} - set(file.files)
        if missing:
            raise ValueError(f"{path} has no {', '.join(sorted(missing))}")
        images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).contiguous()
        person, full = torch.from_numpy(file["identity200"]).long(), torch.from_numpy(file["full_res"]) == 1
    test, fine = person >= FIRST, (person < FIRST) & full
    coarse = (person < FIRST) & ~full
    order = torch.cat([coarse.nonzero()[:, 0], *[fine.nonzero()[:, 0]] * often])
    return Pictures(images[order], flip=True), Pictures(images[fine]), Pictures(images[test]), person[test]


def by_person(bits: Tensor, person: Tensor) -> Tensor:
    """The mean of each person's images, in order of their numbers."""
    return torch.stack([bits[person == p].mean() for p in person.unique()])


def generated(flow: Flow, options: Options) -> Tensor:
    """Generated faces, uint8 (n, C, H, W)."""
    generator = torch.Generator().manual_seed(options.seed)
    with torch.no_grad():
        return from_logit(flow.sample(options.samples, options.temperature, generator))


def main(options: Options) -> dict[str, float]:
    """Trains, prints the scores and gives them."""
    torch.set_num_threads(options.threads)
    train, fine, test, person = split(options.data, options.often)
    channels, *size = test[0][0].shape
    model, training = divided(PRESETS["fast"])
    model |= {"nhidden": options.nhidden, "nlayers": options.nlayers, "places": options.places}
    model |= {"channels": channels, "size": tuple(size)}
    config = RGFlowConfig(**model)
    flow = build(config, torch.Generator().manual_seed(options.seed))
    training |= {"batch_size": options.batch_size, "lr": options.lr, "seed": options.seed, "minutes": options.minutes}
    recipe = TrainConfig(
        **training, compile=options.compile, print_step=100, eval_epoch=0, eval_minutes=options.minutes / 8,
        save_epoch=0, save_minutes=3, keep_epoch=0, plot_epoch=0, quiet=True, out_dir=str(options.folder),
    )  # fmt: skip
    run = fit(flow, train, test, recipe, {"data": "CelebA, aligned, 32 x 32"}, CARD)
    bits = code_lengths(flow, test, seed=options.seed)
    seen = code_lengths(flow, fine, seed=options.seed, indices=spread(len(fine), len(test)))
    people = by_person(bits, person)
    interval = bootstrap_interval(people, np.mean, generator=torch.Generator().manual_seed(0))
    numbers = {
        "test bits/dim": bits.mean().item(), "low": interval.low, "high": interval.high, "people": len(people),
        "test images": len(bits), "training bits/dim, full resolution": seen.mean().item(),
        "training images": len(train), "steps": run.steps, "epochs": run.epochs, "seconds": run.seconds,
        "parameters": sum(p.numel() for p in flow.parameters()),
    }  # fmt: skip
    for name, value in numbers.items():
        print(f"{name:35s} {value:,.4f}" if isinstance(value, float) else f"{name:35s} {value:,}")
    if options.out is not None:
        keep(options.out, options, numbers)
        with replacing(options.out.with_suffix(".csv")) as temporary:
            shutil.copyfile(run.folder / "metrics.csv", temporary)
        with replacing(options.out.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, images=generated(flow, options).numpy())
    return numbers


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(tyro.cli(Options, description=__doc__))
