"""How far the latents of a flow reach: python benchmarks/reach.py --model msds1-realnvp

The effect of a latent at a site is the square of the mean magnitude of dx/dz there, summed over channels; its spread is
the radius of gyration of the effect, in sites. What lies outside a generation cone is counted too: that of the RG-Flow
latent of the same level which is nearest. Medians over the latents of each level with their 95 % bootstrap intervals,
and a few of the receptive fields themselves (.npz). These numbers decide claim C12.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

import rgflow
from rgflow import Geometry, receptive
from rgflow.files import replacing
from rgflow.jacobians import latents_of
from rgflow.receptive import ReceptiveFields
from rgflow.results import hardware, keep
from rgflow.statistics import bootstrap_interval


@dataclass(frozen=True)
class Options:
    """Which flow, and how closely."""

    model: str = "msds1-realnvp"
    """Shipped, or a file; of square images."""
    draws: int = 100
    """Of z, at temperature 1."""
    latents: int = 100
    """Drawn at random on each level but the top one, of which all are measured."""
    shown: int = 16
    """Receptive fields of each level that are kept, drawn at random."""
    seed: int = 0
    """Of draws and choices."""
    threads: int = 1
    """Threads of torch."""
    out: Path = Path("results/runs/reach")
    """Folder, for MODEL.json and MODEL.npz."""


def near_cones(geometry: Geometry, latents: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """For each latent the generation cone of the nearest site, on the torus, that RG-Flow gives the same level."""
    edges = torch.tensor(geometry.levels.shape)
    sites = []
    for (_, *site), level in zip(latents.tolist(), levels.tolist(), strict=True):
        there = (geometry.levels == level).nonzero()
        apart = (there - torch.tensor(site)).abs()
        sites.append([0, *there[torch.minimum(apart, edges - apart).square().sum(1).argmin()].tolist()])
    return receptive.cones_of(geometry, torch.tensor(sites))


def measured(fields: ReceptiveFields, cones: torch.Tensor) -> dict[str, np.ndarray]:
    """Of every latent, (K,): spread in sites, share of the effect outside the cone, strength."""
    effect = fields.magnitude.square().sum(1)
    outside = (effect * ~cones).sum((1, 2)) / effect.sum((1, 2))
    values = {"spread": receptive.radius(effect), "effect outside the cone": outside, "strength": fields.strengths}
    return {name: each.numpy() for name, each in values.items()}


def main(options: Options) -> dict[str, float]:
    """Measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow = rgflow.load(options.model).requires_grad_(False)
    generator = torch.Generator().manual_seed(options.seed)
    top = int(flow.levels.max())
    counts = {level: None if level == top else options.latents for level in range(top + 1)}
    latents = torch.cat([latents_of(flow, level, count, generator) for level, count in counts.items()])
    fields = receptive.receptive_fields(flow, latents, options.draws, generator=generator)
    each = measured(fields, near_cones(Geometry(*flow.shape[1:], 4), latents, fields.levels))
    numbers: dict[str, float] = {}
    chosen = []
    for level in counts:
        rows = (fields.levels == level).nonzero().flatten()
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[: options.shown]])
        numbers[f"level {level}: latents"] = len(rows)
        for name, values in each.items():
            found = bootstrap_interval(values[rows], np.median, generator=torch.Generator().manual_seed(options.seed))
            what = f"level {level}: median {name}" if name != "effect outside the cone" else f"level {level}: {name}"
            numbers |= {what: found.value, f"{what} low": found.low, f"{what} high": found.high}
    rows = torch.cat(chosen)
    grey, _, _ = receptive.principal(fields.mean[rows])
    name = Path(options.model).stem
    options.out.mkdir(parents=True, exist_ok=True)
    with replacing(options.out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        kept = {"maps": grey.numpy().astype(np.float16), "latents": latents[rows].numpy(), "rows": rows.numpy()}
        np.savez_compressed(file, **kept, levels=fields.levels.numpy(), strengths=each["strength"])
    keep(options.out / f"{name}.json", options, numbers)
    print(hardware())
    print(name, *(f"{key:45s} {value:,.4g}" for key, value in numbers.items() if key[-3:] != "low"), sep="\n  ")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
