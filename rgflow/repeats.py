"""Runs of a benchmark repeated with other seeds: read back, averaged, compared in pairs.

A run is named by its file in results/runs without the ending, with {} in the place of the seed, such as
"levels/msds1-falling-{}".
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgflow import results
from rgflow.statistics import Interval, mean_interval

SEEDS = (0, 1, 2)
What = str | Callable[[Mapping[str, float]], float]  # a number's name, or what to compute from the numbers of a run


def missing(runs: Iterable[str], seeds: Sequence[int] = SEEDS, where: Path | None = None) -> list[str]:
    """The names, with seeds, of the runs that have not been made."""
    names = [run.format(seed) for run in runs for seed in seeds]
    return [name for name in names if results.kept(name, where) is None]


def lacking(*runs: str, seeds: Sequence[int] = SEEDS, where: Path | None = None) -> str:
    """What `missing` finds, as a paragraph in Markdown to follow a table; empty if all runs are there."""
    absent = {run: [str(seed) for seed in seeds if missing([run], [seed], where)] for run in runs}
    count = sum(map(len, absent.values()))
    listed = ", ".join(f"`{run.removesuffix('-{}')}` ({', '.join(found)})" for run, found in absent.items() if found)
    some = f"{count} of {len(absent) * len(seeds)} runs are missing (seeds in brackets)"
    return f"\n\n*{some}: {listed}.*" if count else ""


def values(run: str, what: What, seeds: Sequence[int] = SEEDS, where: Path | None = None) -> list[float] | None:
    """A number of each seed's run, in the order of the seeds; None if a run has not been made.

    KeyError: a run has no such number.
    """
    numbers = [results.kept(run.format(seed), where) for seed in seeds]
    if any(n is None for n in numbers):
        return None
    return [n[what] if isinstance(what, str) else what(n) for n in numbers]


def mean(
    run: str,
    what: What,
    less: tuple[str, What] | None = None,
    seeds: Sequence[int] = SEEDS,
    where: Path | None = None,
) -> Interval | None:
    """Mean of a number over the seeds with Student's 95 % interval; None if a run has not been made.

    Arguments:
        less: another run and number, taken off seed by seed.

    KeyError: a run has no such number.
    """
    found = values(run, what, seeds, where)
    if less is not None and found is not None:
        others = values(*less, seeds, where)
        found = None if others is None else [a - b for a, b in zip(found, others, strict=True)]
    return None if found is None else mean_interval(found)


def curves(run: str, seed: int, where: Path | None = None) -> dict[str, NDArray] | None:
    """The columns of the table (.csv) beside a run, by name; None if there is none."""
    path = (results.COMMITTED if where is None else Path(where)) / "runs" / f"{run.format(seed)}.csv"
    if not path.exists():
        return None
    with open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    return dict(zip(names, np.array(rows, dtype=float).T, strict=True))
