"""One set of weights at several sizes (paper, appendix A): python benchmarks/scale.py --kind shared --sizes 32 --seed 0

Trains a flow on photographs, patches32 or patches64, or first the one and then the other for half of the steps each,
with the ingredients of --preset fast that work with shared levels. Then, without any further training:

- test bits/dim at 32 x 32;
- bits/dim of the test pieces of 64 x 64, whole, beside that of their four quarters one by one: the same pixels with the
  same noise, in double precision, level by level. Shared flows are `resized`; an unshared flow for 32 x 32 lacks a
  level, so one of its own is used twice, the finest, the last but one or the top one. What is new at 64 are the latents
  of levels 3 and 4, coded by level 3 in the quarters; of the finest level twice this cannot be said, for then all
  levels above are others;
- slopes of the power spectra of samples, at 32, 64 and 128, where they have one, in a band of fixed cycles per pixel
  and in one of fixed cycles per picture, and how many are of one colour, or hold a NaN (they are then left out; in
  pictures it is grey).

One run, one JSON with its conditions, a few pictures (.npz) and, of shared ones of seed 0, the flow (.safetensors); the
flows of all runs are kept in runs/scale, too, so that more can be measured.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from recorder import of_size, parameter_count
from torch import Tensor
from torch.utils.data import Dataset

from rgflow import Flow, RGFlowConfig, build, checkpoints, data
from rgflow.batches import Indexed, code_lengths, noise
from rgflow.contributions import bits_by_level
from rgflow.files import replacing
from rgflow.hierarchy import Hierarchy
from rgflow.pixels import from_logit, to_logit
from rgflow.recipes import PRESETS, TrainConfig, divided
from rgflow.results import hardware, keep
from rgflow.spectra import BAND, power_spectra, slope
from rgflow.statistics import bootstrap_interval
from rgflow.train import fit

OWN = ("nlayers", "nhidden", "linear", "disentangler_lr_factor", "batch_size")  # not from the preset
FAST = {name: value for name, value in PRESETS["fast"].items() if name not in OWN}
SHOWN = {32: 8, 64: 6, 128: 2}  # pictures of each size


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train."""

    kind: Literal["shared", "unshared", "narrow"] = "shared"
    """One set of weights for all levels; one for each; one for each, with as many parameters as shared ones."""
    sizes: Literal["32", "64", "32 64"] = "32"
    """Edge of the training images; "32 64": half of the steps at the one, then half at the other (shared only)."""
    seed: int = 0
    """Of weights, batches, noise and samples."""
    steps: int = 5000
    """Of training."""
    batch_size: int = 8
    """Images of 32 x 32 in a step; a quarter of it at 64 x 64, for as many pixels."""
    nlayers: int = 3
    """Coupling layers per disentangler and decimator."""
    nhidden: int = 96
    """Width of a hidden layer (not of narrow ones)."""
    samples: int = 64
    """For the slopes, at temperature 1."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/scale")
    """Folder of the numbers."""
    flows: Path = Path("runs/scale")
    """Folder of all flows."""


def quarters(images: Tensor) -> Tensor:
    """(B, C, 2 h, 2 w) -> (4 B, C, h, w): upper left, upper right, lower left and lower right of each image in turn."""
    b, c, height, width = images.shape
    cut = images.view(b, c, 2, height // 2, 2, width // 2)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(4 * b, c, height // 2, width // 2)


def by_level(flow: Flow, images: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """Bits/dim of images: what each level contributes (B, levels), and the part that is the pixels' own (B,)."""
    x, ladj = to_logit(images, draw, dtype=flow.dtype)
    dimensions = math.prod(flow.shape) * math.log(2)
    return -flow.log_prob_by_level(x).double() / dimensions, 8 - ladj.double() / dimensions


@torch.no_grad()
def whole_and_quarters(
    large: Flow, small: Flow, images: Dataset, seed: int, batch_size: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """Bits/dim of images: of each level, whole, under the large flow (n, levels); of each level, mean of their
    quarters, under the small one (n, levels); and the part of the pixels, which is the same for both (n,).

    The noise is that of `batches.code_lengths`, cut in the same way as the images.
    """
    source, rows = Indexed(images), []
    for first in range(0, len(source), batch_size):
        batch, index = source.__getitems__(range(first, min(first + batch_size, len(source))))
        draw = noise(batch, seed, 0, index, large.dtype)
        whole, pixels = by_level(large, batch, draw)
        parts, _ = by_level(small, quarters(batch), quarters(draw))
        rows.append((whole, parts.view(len(batch), 4, -1).mean(1), pixels))
    return tuple(torch.cat(column) for column in zip(*rows))


def repeated(flow: Flow, level: int) -> Flow:
    """A flow for images of twice the edge that uses a level's step twice, with the very same parameters."""
    config = replace(flow.config, size=tuple(2 * edge for edge in flow.shape[1:]))
    steps = list(flow.bijector.steps)
    steps.insert(level, steps[level])
    hierarchy = Hierarchy(steps, (flow.shape[0], *config.size), config.geometry.depth, config.geometry)
    return Flow(hierarchy, flow.prior)


def train(options: Options) -> tuple[Flow, float]:
    """A trained flow for images of the first size, and the seconds of processor time it took."""
    of_model, of_training = divided(FAST)
    edges = [int(size) for size in options.sizes.split()]
    shared = RGFlowConfig(
        size=edges[0], nlayers=options.nlayers, nhidden=options.nhidden, share_levels=True, **of_model
    )
    config = shared
    if options.kind != "shared":
        if len(edges) > 1:
            raise ValueError(f"sizes {options.sizes!r} go with kind shared only, not {options.kind}")
        config = replace(shared, share_levels=False)
        config = of_size(config, parameter_count(shared)) if options.kind == "narrow" else config
    flow = build(config, torch.Generator().manual_seed(options.seed))
    seconds = 0.0
    for edge in edges:
        recipe = TrainConfig(
            **of_training, batch_size=options.batch_size * 32**2 // edge**2, steps=options.steps // len(edges),
            seed=options.seed, out_dir="", quiet=True, print_step=0, eval_epoch=0,
        )  # fmt: skip
        start = time.process_time()
        fit(flow if edge == edges[0] else flow.resized(edge), data.load(f"patches{edge}"), None, recipe)
        seconds += time.process_time() - start
    return flow, seconds


def hierarchies(flow: Flow, kind: str) -> dict[str, Flow]:
    """The flows of several sizes that can be made of one, by name; each name ends with the edge."""
    edge = flow.shape[1]
    if kind == "shared":
        return {str(size): flow.resized(size) for size in (32, 64, 128)}
    if edge != 32:
        return {str(edge): flow}
    top = flow.geometry.depth
    twice = {"finest": 0, f"level {top - 1}": top - 1, "top": top}
    return {"32": flow} | {f"{name} twice 64": repeated(flow, level) for name, level in twice.items()}


@torch.no_grad()
def measure(flows: dict[str, Flow], options: Options) -> dict[str, float]:
    """All numbers of a run but those of its training."""
    numbers: dict[str, float] = {}
    tests = {size: data.load(f"patches{size}", "test") for size in (32, 64)}
    exact = {name: flow.double() for name, flow in copy.deepcopy(flows).items()}  # steps stay shared among them
    for name, flow in flows.items():
        edge = flow.shape[1]
        if edge in tests:
            levels = bits_by_level(flow, tests[edge], 8, options.seed).mean(0).tolist()
            numbers |= {f"{name}: level {h}, bits/dim": value for h, value in enumerate(levels)}
        if edge == 32:
            numbers |= put(f"{name}: bits/dim", code_lengths(flow, tests[32], seed=options.seed))
        elif edge == 64 and "32" in flows:
            numbers |= carried(name, exact[name], exact["32"], tests[64], options.seed)
        elif edge == 64:
            numbers |= put(f"{name}: bits/dim", code_lengths(flow, tests[64], 8, seed=options.seed))
        numbers |= sampled(name, flow, options)
    return numbers


def put(name: str, values: Tensor) -> dict[str, float]:
    """A mean with its standard error, over the values that are finite."""
    values = values[values.isfinite()]
    error = values.std().item() / len(values) ** 0.5
    return {name: values.mean().item(), f"{name}: standard error": error}


def carried(name: str, large: Flow, small: Flow, pieces: Dataset, seed: int) -> dict[str, float]:
    """What pieces cost, whole and in quarters, in all and level by level, and what is new, in bits for each latent.

    New are the latents from the small flow's top level n up: of the whole, 1 / 4^n of all.
    """
    whole, parts, pixels = whole_and_quarters(large, small, pieces, seed)
    numbers = {f"{name}: pieces not finite": int((~(whole.sum(1) + parts.sum(1)).isfinite()).sum())}
    numbers |= put(f"{name}: bits/dim", whole.sum(1) + pixels)
    numbers |= put(f"{name}: quarters, bits/dim", parts.sum(1) + pixels)
    numbers |= put(f"{name}: less quarters, bits/dim", whole.sum(1) - parts.sum(1))
    for what, levels in (("whole", whole), ("quarters", parts)):
        for level, values in enumerate(levels.T):
            numbers |= put(f"{name}: {what}, level {level}, bits/dim", values)
    top = small.geometry.depth
    if all(large.bijector.step(level) is small.bijector.step(level) for level in range(top)):
        new = 4**top * (whole[:, top:].sum(1) - parts[:, top])
        numbers |= put(f"{name}: new latents, bits each", new)
    return numbers


def sampled(name: str, flow: Flow, options: Options) -> dict[str, float]:
    """Slopes of the spectra of samples at temperature 1, and how many samples are none."""
    generator = torch.Generator().manual_seed(options.seed)
    drawn = torch.cat([flow.sample(8, 1.0, generator) for _ in range(-(-options.samples // 8))])
    lost = drawn.isnan().flatten(1).any(1)
    drawn = from_logit(drawn[~lost])
    flat = drawn.flatten(1).amax(1) == drawn.flatten(1).amin(1)
    numbers = {f"{name}: samples not finite": int(lost.sum()), f"{name}: samples of one colour": int(flat.sum())}
    scaled = tuple(32 / flow.shape[1] * end for end in BAND)
    for what, band in (("slope", BAND), ("slope, scaled band", scaled)):
        try:
            found = bootstrap_interval(power_spectra(drawn), lambda s, b=band: slope(s, b), generator=generator)
        except ValueError:
            continue  # no two samples, no power at some frequency, or not in some draw of the bootstrap
        numbers |= dict(zip((f"{name}: {what}", f"{name}: {what} low", f"{name}: {what} high"), found))
    return numbers


def main(options: Options) -> dict[str, float]:
    """Trains, measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow, seconds = train(options)
    flow = flow.eval().requires_grad_(False)
    flows = hierarchies(flow, options.kind)
    name = f"{options.kind}-{options.sizes.replace(' ', 'then')}-{options.seed}"
    options.out.mkdir(parents=True, exist_ok=True)
    card = {"data": "patches" + options.sizes, "steps": options.steps, "seed": options.seed}
    options.flows.mkdir(parents=True, exist_ok=True)
    checkpoints.save(flow, options.flows / f"{name}.safetensors", card)
    if options.kind == "shared" and options.seed == 0:  # those that chapter 08 shows
        checkpoints.save(flow, options.out / f"{name}.safetensors", card)
    numbers = {"parameters": parameter_count(flow.config), "seconds": round(seconds, 1)} | measure(flows, options)
    generator = torch.Generator().manual_seed(options.seed)
    drawn = {key: f.sample(SHOWN[f.shape[1]], 0.7, generator) for key, f in flows.items()}
    pictures = {key: from_logit(x.nan_to_num()).numpy() for key, x in drawn.items()}
    with replacing(options.out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **pictures)
    keep(options.out / f"{name}.json", options, numbers)
    print(hardware())
    print(name, *(f"{key:45s} {value:,.4f}" for key, value in numbers.items()), sep="\n  ")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
