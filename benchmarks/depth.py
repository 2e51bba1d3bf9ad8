"""Whether deeper flows are better (paper, appendix B): python benchmarks/depth.py --data msds1 --nlayers 4 --seed 0

Test bits/dim of flows with so many coupling layers in each disentangler and decimator, after equal steps; the curve
against steps and seconds in a CSV, so that equal times can be compared too. With --as-large-as 8 the width is that at
which the flow has as many parameters as one of 8 layers at the width --nhidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from recorder import Study, of_size, parameter_count, record, write

from rgflow import RGFlowConfig


@dataclass(frozen=True, kw_only=True)
class Options(Study):
    """What to train."""

    nlayers: int = 1
    """Coupling layers per disentangler and decimator, on all levels."""
    as_large_as: int = 0
    """Widen the networks to the number of parameters of a flow with so many layers; 0: leave them."""
    steps: int = 2000
    nhidden: int = 64
    out: Path = Path("results/runs/depth")


def fall(rows: Sequence[tuple[float, ...]]) -> float:
    """By how much the curve falls in 100 steps, on average over the last eighth of them: what is compared is so many
    steps of learning, not the end of it."""
    steps, values = [row[0] for row in rows], [sum(row[2:]) for row in rows]
    first = max(k for k, step in enumerate(steps) if step <= 7 / 8 * steps[-1])
    return 100 * (values[first] - values[-1]) / (steps[-1] - steps[first])


def main(options: Options) -> dict[str, float]:
    """Trains once."""
    config = RGFlowConfig(nlayers=options.nlayers, nres=options.nres, nhidden=options.nhidden)
    name = f"{options.data}-{options.nlayers}-{options.seed}"
    if options.as_large_as:
        config = of_size(config, parameter_count(replace(config, nlayers=options.as_large_as)))
        name = f"{options.data}-{options.nlayers}as{options.as_large_as}-{options.seed}"
    numbers, rows = record(config, options)
    numbers["fall per 100 steps at the end, bits/dim"] = fall(rows)
    write(name, options, numbers, rows)
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
