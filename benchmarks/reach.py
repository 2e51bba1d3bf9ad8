"""How far the latents of a flow reach (paper, figure 14): python benchmarks/reach.py --model msds1-realnvp

The effect of a latent at a site is the square of the mean magnitude of dx/dz there, summed over channels; its spread is
the radius of gyration of the effect, in sites. Counted too: the least number of pixels that hold nine tenths of it, and
the share outside a generation cone, that of the RG-Flow latent of the same level which is nearest. Medians over the
latents of each level with their 95 % bootstrap intervals, and a few of the receptive fields and effects themselves
(.npz). These numbers decide claim C12. A flow without blocks needs a pass through the decoder for each latent and draw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from factors import put, table

import rgflow
from rgflow import Geometry, receptive, spread
from rgflow.files import replacing
from rgflow.jacobians import latents_of
from rgflow.results import hardware, keep
from rgflow.statistics import bootstrap_interval

BLOCK = 4  # edge of the paper's blocks


@dataclass(frozen=True)
class Options:
    """Which flow, and how closely."""

    model: str = "msds1-realnvp"
    """Shipped, or a file."""
    draws: int = 100
    """Of z, at temperature 1."""
    latents: int = 100
    """Drawn at random on each level but the top one, of which all are measured."""
    shown: int = 16
    """Latents of each level whose receptive fields and effects are kept, drawn at random."""
    seed: int = 0
    """Of draws, choices and intervals."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/reach")
    """Folder, for MODEL.json and MODEL.npz."""


def main(options: Options) -> dict[str, float]:
    """Measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow = rgflow.load(options.model).requires_grad_(False)
    generator = torch.Generator().manual_seed(options.seed)
    top = int(flow.levels.max())
    counts = {level: None if level == top else options.latents for level in range(top + 1)}
    latents = torch.cat([latents_of(flow, level, count, generator) for level, count in counts.items()])
    fields = receptive.receptive_fields(flow, latents, options.draws, generator=generator)
    numbers: dict[str, float] = {"draws": options.draws}
    for found in spread.by_level(flow, fields, Geometry(*flow.shape[1:], BLOCK), generator):
        numbers[f"level {found.level}: latents"] = found.measured
        put(numbers, f"level {found.level}: median spread", found.spread)
        put(numbers, f"level {found.level}: pixels that hold 90 %", found.pixels)
        put(numbers, f"level {found.level}: effect outside the cone", found.outside)
        strengths = fields.strengths[fields.levels == found.level].numpy()
        middle = bootstrap_interval(strengths, np.median, generator=generator)
        put(numbers, f"level {found.level}: median strength", middle)
    chosen = []
    for level in counts:
        rows = (fields.levels == level).nonzero().flatten()
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[: options.shown]])
    shown = torch.cat(chosen)
    effects = spread.effects(fields)
    name = Path(options.model).stem
    options.out.mkdir(parents=True, exist_ok=True)
    with replacing(options.out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            levels=fields.levels.numpy(),
            strengths=fields.strengths.numpy(),
            spreads=receptive.radius(effects).numpy(),
            rows=shown.numpy(),  # of those above: the ones below
            latents=latents[shown].numpy(),
            maps=receptive.principal(fields.mean[shown])[0].numpy().astype(np.float32),
            effects=effects[shown].numpy().astype(np.float32),
        )
    keep(options.out / f"{name}.json", replace(options, model=name), numbers)
    print(hardware())
    print(name, *table(numbers), sep="\n  ")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
