"""Receptive fields of all latents and of many draws: python benchmarks/fields.py --model msds1

Claim C2: the largest |dx/dz| outside the generation cone, for every latent of a flow, one draw of z at temperature 1,
in the dtype of the shipped weights. One forward-mode pass through the whole decoder per latent, which knows nothing of
blocks: the zeros are seen, not put in. Counted beside it, as a cone may be right and too large: how many pixels inside
it answer at all.

What chapter 03 shows beside claims C4, C5 and C18, which it measures itself with 100 draws: radii and strengths with
more draws, all latents of the top level and some drawn at random on each other one. And, since a few draws have wild
derivatives, the same of the median of means (`receptive.median_of_means`). A number NAME has its 95 % interval in "NAME
low" and "NAME high", bootstrap over latents, which meet the same draws: what other draws would give is not in it, and
is seen in the blocks, draws one after the other, each measured alone. Of the top level every strength is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from factors import put, table
from torch import Tensor

import rgflow
from rgflow import Flow, receptive
from rgflow.jacobians import latents_of
from rgflow.results import hardware, keep
from rgflow.statistics import bootstrap_interval


@dataclass(frozen=True)
class Options:
    """Which flow, and how closely."""

    model: str = "msds1"
    """Shipped, or a file; a flow of blocks."""
    tested: int | None = None
    """Latents of each level that are held against their cones, at random; all of them if not given, as C2 asks for."""
    draws: int = 500
    """Of z for radii and strengths, at temperature 1; 0: none."""
    parts: int = 25
    """Groups of draws of which the median is taken; odd, each of two draws or more."""
    blocks: int = 5
    """Blocks of parts that are measured alone, too; they share the parts evenly."""
    latents: int = 100
    """For radii and strengths, drawn at random on each level but the top one."""
    seed: int = 0
    """Of draws, choices and intervals."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/fields")
    """Folder, for MODEL.json."""


def main(options: Options) -> dict[str, float]:
    """Measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow = rgflow.load(options.model).requires_grad_(False)
    numbers = against_cones(flow, options.tested, options.seed)
    if options.draws:
        generator = torch.Generator().manual_seed(options.seed)
        numbers |= {"draws": options.draws, "parts": options.parts, "blocks": options.blocks}
        numbers |= sizes(flow, options.latents, options.draws, options.parts, options.blocks, generator)
    name = Path(options.model).stem
    keep(options.out / f"{name}.json", replace(options, model=name), numbers)
    print(hardware())
    print(name, *table(numbers), sep="\n  ")
    return numbers


def against_cones(flow: Flow, count: int | None, seed: int) -> dict[str, float]:
    """Claim C2; the same draw of z for all latents."""
    numbers: dict[str, float] = {"latents": 0, "largest outside": 0.0, "bits of a number": torch.finfo(flow.dtype).bits}
    chooser = torch.Generator().manual_seed(seed)
    for level in range(int(flow.levels.max()) + 1):
        latents = latents_of(flow, level, count, chooser)
        felt = receptive.reach(flow, latents, 1, generator=torch.Generator().manual_seed(seed), batch_size=64)
        found = receptive.leak(felt, receptive.cones_of(flow.geometry, latents))
        head = f"level {level}: "
        numbers[head + "latents"] = len(latents)
        numbers[head + "pixels of a cone, median"] = found.size
        numbers[head + "share of a cone that answers, least"] = found.filled
        numbers[head + "largest inside"], numbers[head + "largest outside"] = found.inside, found.outside
        numbers["latents"] += len(latents)
        numbers["largest outside"] = max(numbers["largest outside"], found.outside)
    return numbers


def sizes(flow: Flow, count: int, draws: int, parts: int, blocks: int, generator: torch.Generator) -> dict[str, float]:
    """Radii and strengths, of the mean and of the median of means, and of the mean of each block of draws.

    Raises:
        ValueError: parts that do not make that many blocks.
    """
    if blocks < 1 or parts % blocks:
        raise ValueError(f"{parts} parts do not make {blocks} blocks of the same size")
    top = int(flow.levels.max())
    latents = torch.cat([latents_of(flow, h, None if h == top else count, generator) for h in range(top + 1)])
    found = [receptive.receptive_fields(flow, latents, draws // parts, generator=generator) for _ in range(parts)]
    fields, typical = receptive.pooled(found), receptive.median_of_means(found)
    kinds: dict[str, tuple[Tensor, Tensor]] = {
        "mean": (fields.radii, fields.strengths),
        "median of means": (receptive.radius(typical.square().sum(1)), typical.flatten(1).norm(dim=1)),
    }
    noise = fields.error.square() / fields.mean.flatten(1).square().sum(1)
    numbers: dict[str, float] = {}
    for level in range(top + 1):
        own = fields.levels == level
        numbers[f"level {level}: measured"] = int(own.sum())
        for kind, (radii, strengths) in kinds.items():
            head = f"level {level}, {kind}: "
            for name, values, statistic in (
                ("median radius", radii, np.median),
                ("median strength", strengths, np.median),
                ("share above one", (strengths > 1).double(), np.mean),
            ):
                put(numbers, head + name, bootstrap_interval(values[own], statistic, generator=generator))
        middle = bootstrap_interval(noise[own], np.median, generator=generator)
        put(numbers, f"level {level}, mean: share of noise in the square", middle)
    each = parts // blocks
    for block in range(blocks):
        some = receptive.pooled(found[block * each : (block + 1) * each])
        for level in range(top + 1):
            head, own = f"level {level}, block {block + 1}: ", fields.levels == level
            numbers[head + "median radius"] = float(np.median(some.radii[own]))
            numbers[head + "share above one"] = float(np.mean((some.strengths[own] > 1).double().numpy()))
    for rank, strength in enumerate(fields.strengths[fields.levels == top].sort(descending=True).values.tolist()):
        numbers[f"level {top}, mean: strength of rank {rank + 1}"] = strength
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
