"""The rules for the claims of chapters 04 and 05, applied to what `benchmarks/factors.py` measured.

The rules themselves stand in `ledger.toml`; the names of the numbers are those of the benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rgflow.ovals import GLOBAL, LOCAL
from rgflow.statistics import Interval, mean_interval

SETS, PRIORS, SEEDS, TOP = ("msds1", "msds2"), ("laplace", "gaussian"), (0, 1, 2), 3
MEASURES = ("MIG", "DCI disentanglement")
REPRODUCED, PARTLY, NOT, UNDECIDED = "reproduced", "partly reproduced", "not reproduced", "undecided"

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


def interval(numbers: Mapping[str, float], name: str) -> Interval:
    """A number of a run with its interval.

    KeyError: the run has none of that name.
    """
    return Interval(numbers[name], numbers[f"{name} low"], numbers[f"{name} high"])


@dataclass(frozen=True)
class Verdict:
    """What a rule says, and of each part whether it holds; a part without runs is None, and then so is the verdict."""

    verdict: str | None
    parts: dict[str, bool | None]


def levels_separate(runs: Runs) -> Verdict:
    """Rule C6: global factors above, local ones below."""
    parts: dict[str, bool | None] = {}
    for name in SETS:
        numbers = _seeds(runs, name, "laplace")
        shared = GLOBAL[name]
        parts[f"(a) {name}"] = numbers and all(
            interval(n, f"donor {shared}, swapped {TOP}").low > 0.5
            and _inside(interval(n, f"donor {shared}, swapped 0"), 0.1)
            for n in numbers
        )
        parts[f"(b) {name}"] = numbers and all(
            interval(n, f"donor {factor}, swapped below {TOP}").low > 0.5 for n in numbers for factor in LOCAL[name]
        )
    if None in parts.values():
        return Verdict(None, parts)
    if all(parts.values()):
        return Verdict(REPRODUCED, parts)
    return Verdict(PARTLY if any(parts[f"(a) {name}"] for name in SETS) else NOT, parts)


def sparse_prior_disentangles(runs: Runs) -> tuple[Verdict, dict[str, Interval]]:
    """Rule C8: Laplace against Gaussian; and the paired differences with Student's intervals over seeds."""
    differences = {}
    for name in SETS:
        pairs = [_seeds(runs, name, prior) for prior in PRIORS]
        if None not in pairs:
            for measure in MEASURES:
                values = [a[f"{measure}, top"] - b[f"{measure}, top"] for a, b in zip(*pairs, strict=True)]
                differences[f"{measure}, {name}"] = mean_interval(values)
    parts: dict[str, bool | None] = {}
    for name in SETS:
        found = [differences.get(f"{measure}, {name}") for measure in MEASURES]
        if None in found:
            parts[name] = None
            continue
        parts[name] = any(d.low > 0 for d in found) and not any(d.high < 0 for d in found)
    if None in parts.values():
        return Verdict(None, parts), differences
    everything = differences.values()
    if all(parts.values()):
        verdict = REPRODUCED
    elif any(d.low > 0 for d in everything):
        verdict = PARTLY
    elif any(d.high < 0 for d in everything) or all(d.high < 0.05 for d in everything):
        verdict = NOT
    else:
        verdict = UNDECIDED
    return Verdict(verdict, parts), differences


def mixing_by_levels(runs: Runs) -> Verdict:
    """Rule C9: large-scale features of A, details of B."""
    numbers = _seeds(runs, "msds1", "laplace")
    if numbers is None:
        return Verdict(None, dict.fromkeys(("(a)", "(b)", "(c)")))
    parts = {
        "(a)": all(interval(n, f"A {GLOBAL['msds1']}, cut {TOP}").low > 0.5 for n in numbers),
        "(b)": all(interval(n, f"B {factor}, cut {TOP}").low > 0.5 for n in numbers for factor in LOCAL["msds1"]),
        "(c)": all(interval(n, f"excess separation, cut {TOP}").low > 0.3 for n in numbers),
    }
    if all(parts.values()):
        return Verdict(REPRODUCED, parts)
    return Verdict(PARTLY if parts["(a)"] and parts["(c)"] else NOT, parts)


def _seeds(runs: Runs, name: str, prior: str) -> list[Mapping[str, float]] | None:
    """The runs of all seeds of the rules; None if one is missing."""
    keys = [(name, prior, seed) for seed in SEEDS]
    return [runs[key] for key in keys] if all(key in runs for key in keys) else None


def _inside(found: Interval, bound: float) -> bool:
    return -bound < found.low and found.high < bound
