"""The runs of benchmarks/factors.py, one per set, prior and seed: read back, named as the ledger does, compared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rgflow.statistics import Interval, mean_interval

SETS, PRIORS, SEEDS = ("msds1", "msds2"), ("laplace", "gaussian"), (0, 1, 2)
MEASURES = ("MIG", "DCI disentanglement")
NAME = re.compile(r"study (\w+) (\w+) (\d+): (.+)")  # of a number of one run, as the ledger has it

Key = tuple[str, str, int]  # set, prior, seed
Runs = Mapping[Key, Mapping[str, float]]


def load(folder: Path) -> dict[Key, dict[str, float]]:
    """The numbers of all runs kept in a folder as SET-PRIOR-SEED.json; none if it is not there.

    ValueError: a file of that name with other contents.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            options, numbers = content["options"], content["numbers"]
            found[options["data"], options["prior"], int(options["seed"])] = dict(numbers)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is not a run of benchmarks/factors.py: {error!r}") from None
    return found


def missing(runs: Runs) -> list[Key]:
    """The runs that the study still lacks."""
    every = [(name, prior, seed) for name in SETS for prior in PRIORS for seed in SEEDS]
    return [key for key in every if key not in runs]


def interval(numbers: Mapping[str, float], name: str) -> Interval:
    """A number of a run with its interval.

    KeyError: the run has none of that name.
    """
    return Interval(numbers[name], numbers[f"{name} low"], numbers[f"{name} high"])


def named(runs: Runs, name: str) -> Interval | None:
    """The number "study SET PRIOR SEED: WHAT" of the ledger; None if that run is missing.

    ValueError: a name of another form. KeyError: the run has no such number.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"a number of a study is named 'study SET PRIOR SEED: WHAT', not {name!r}")
    key = (match[1], match[2], int(match[3]))
    return interval(runs[key], match[4]) if key in runs else None


def differences(runs: Runs) -> dict[str, Interval]:
    """Laplace minus Gaussian for each of `MEASURES` and set, paired over seeds; Student's 95 % over the seeds.

    Names as "MIG, msds1". Sets of which a run is missing are left out.
    """
    found = {}
    for name in SETS:
        if any(key[0] == name for key in missing(runs)):
            continue
        for measure in MEASURES:
            scores = {prior: [runs[name, prior, seed][f"{measure}, top"] for seed in SEEDS] for prior in PRIORS}
            gains = [a - b for a, b in zip(scores["laplace"], scores["gaussian"], strict=True)]
            found[f"{measure}, {name}"] = mean_interval(gains)
    return found


def asked(runs: Runs, names: Sequence[str]) -> dict[str, Interval] | None:
    """All numbers of these names, as `named` has them or "Laplace minus Gaussian: MIG, msds1"; None while a run that
    one of them needs is missing: a rule of the ledger is applied to all its numbers or to none.

    ValueError, KeyError: as in `named`.
    """
    paired = {f"Laplace minus Gaussian: {name}": value for name, value in differences(runs).items()}
    awaited = {f"Laplace minus Gaussian: {measure}, {name}" for measure in MEASURES for name in SETS}
    found = {name: paired.get(name) if name in awaited else named(runs, name) for name in names}
    return None if None in found.values() else found
