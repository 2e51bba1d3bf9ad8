"""Whether samples of what may fill a hole can be believed: python benchmarks/posterior.py --model msds1 --data msds1

Holes of 4 x 4 pixels in test images, each sampled by `Conditional.sample`: do populations that know nothing of each
other agree (nested R-hat of log p, spread of the log evidence); how often do the samples' central 90 % of a grey level
hold the true one; how far above the truth is a mode, how far below. Holes nearly of one colour are passed over.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from places import Places, pairs
from torch import Tensor

from rgflow import data, load
from rgflow.batches import Indexed
from rgflow.files import replacing
from rgflow.inpaint import condition
from rgflow.local import frozen
from rgflow.pixels import from_logit, to_logit
from rgflow.results import hardware, keep


@dataclass(frozen=True, kw_only=True)
class Options(Places):
    """What to sample."""

    model: str = "msds1"
    """Model file or shipped model."""
    holes: int = 8
    images: int = 1
    edge: int = 4
    n: int = 1024
    """Samples of each hole, over four populations."""
    steps: int = 20
    """Proposals of each chain after annealing."""
    shown: int = 12
    """Samples of each hole that are kept as pictures."""
    threads: int = 1
    """Threads of torch."""
    out: Path | None = None
    """JSON file for the numbers and their conditions; pictures and the numbers of each hole lie beside it as .npz."""


def covered(samples: Tensor, true: Tensor) -> float:
    """Share of the true grey levels (K,) within the central 90 % of samples (n, K), both uint8."""
    low, high = (samples.double().quantile(q, dim=0) for q in (0.05, 0.95))
    return float(((true >= low) & (true <= high)).double().mean())


def main(options: Options) -> dict[str, float]:
    """Prints the numbers of each hole, and gives their medians and extremes."""
    torch.set_num_threads(options.threads)
    flow = frozen(load(options.model))
    generator = torch.Generator().manual_seed(options.seed)
    rows: list[dict[str, float]] = []
    kept: dict[str, list[Tensor]] = {name: [] for name in ("true", "boxes", "samples", "mode", "spread")}
    places = pairs(Indexed(data.load(options.data, "test")), options)
    for box, image in ((box, image) for box, images in places for image in images):
        x = to_logit(image[None], generator=generator)[0][0]
        density = condition(flow, x, box)
        hole, start = density.hole, time.perf_counter()
        drawn = density.sample(options.n, options.steps, generator=generator)
        seconds = time.perf_counter() - start
        mode = density.maximise("pixel", generator=generator)
        with torch.no_grad():
            truth = float(density.log_prob(x[:, hole][None]))
        grey = from_logit(drawn.fills)
        rows.append(
            {
                "nested R-hat": drawn.rhat_nested,
                "R-hat": drawn.rhat,
                "evidence, sd of populations": float(drawn.log_evidence.std()),
                "acceptance": drawn.acceptance,
                "effective samples": drawn.effective,
                "temperatures": float(np.mean(drawn.temperatures)),
                "samples less truth": float(drawn.log_prob.mean()) - truth,
                "samples, sd": float(drawn.log_prob.std()),
                "mode less samples": mode.log_prob - float(drawn.log_prob.mean()),
                "covered": covered(grey.flatten(1), image[:, hole].flatten()),
                "seconds": seconds,
            }
        )
        print(box, {name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
        every = options.n // options.shown
        kept["true"].append(image)
        kept["boxes"].append(torch.tensor(box))
        kept["samples"].append(from_logit(density.paste(drawn.fills[::every][: options.shown])))
        kept["mode"].append(from_logit(density.paste(mode.fill[None]))[0])
        spread = torch.zeros(hole.shape)
        spread[hole] = grey.float().std(0).mean(0)
        kept["spread"].append(spread)
    numbers = {"holes": float(len(rows))}
    for name in rows[0]:
        values = [row[name] for row in rows]
        numbers |= {name: float(np.median(values)), f"{name}, least": min(values), f"{name}, most": max(values)}
    numbers["covered, mean"] = float(np.mean([row["covered"] for row in rows]))
    print(hardware())
    for name, value in numbers.items():
        print(f"{name:40s} {value:12,.3f}")
    if options.out is not None:
        keep(options.out, options, numbers)
        arrays = {name: torch.stack(parts).numpy() for name, parts in kept.items()}
        arrays |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
        with replacing(options.out.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
