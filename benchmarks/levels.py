"""Which level converges last (paper, appendix B): python benchmarks/levels.py --data msds1 --seed 0

The contribution of each level to the code length of 200 test images against training steps. One run, one JSON with its
conditions, the step at which each level has converged and how much it still moves at the end, and one CSV with the
curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from recorder import Study, record, write

from rgflow import RGFlowConfig
from rgflow.contributions import converged, still_moving

TOLERANCES = (0.02, 0.05, 0.1)


@dataclass(frozen=True, kw_only=True)
class Options(Study):
    """What to train."""

    layers: Literal["falling", "equal"] = "falling"
    """Coupling layers of levels 0 to 3: 4, 3, 2, 2 (more below, as in the paper), or 3 on all."""
    steps: int = 3000
    nhidden: int = 96
    out: Path = Path("results/runs/levels")


def main(options: Options) -> dict[str, float]:
    """Trains once; the numbers say when each level has converged."""
    nlayers = (4, 3, 2, 2) if options.layers == "falling" else 3
    config = RGFlowConfig(nlayers=nlayers, nres=options.nres, nhidden=options.nhidden)
    numbers, rows = record(config, options)
    steps, _, *curves = zip(*rows)
    for tolerance in TOLERANCES:
        for level, curve in enumerate(curves):
            name = f"level {level} converged to {100 * tolerance:.0f} %, step"
            numbers[name] = converged(steps, curve, tolerance)
    numbers |= {f"level {level}: moves in the last quarter": still_moving(steps, c) for level, c in enumerate(curves)}
    write(f"{options.data}-{options.layers}-{options.seed}", options, numbers, rows)
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
