"""What a rule sees of a chapter's results, and what it says: numbers with intervals, and a verdict."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rgflow.statistics import Interval

REPRODUCED, PARTLY, NOT = "reproduced", "partly reproduced", "not reproduced"
UNDECIDABLE, UNMEASURED = "not decidable here", "not measured yet"
WORDS = (REPRODUCED, PARTLY, NOT, UNDECIDABLE, UNMEASURED)


@dataclass(frozen=True)
class Verdict:
    """What follows from a rule: one of `WORDS`, of each part of the rule whether it holds, and why if that is not all.

    Raises ValueError for another word, and for a claim not decidable or not measured without a reason.
    """

    word: str
    parts: dict[str, bool] = field(default_factory=dict)
    why: str = ""

    def __post_init__(self) -> None:
        if self.word not in WORDS:
            raise ValueError(f"a verdict must be one of {', '.join(WORDS)}, not {self.word!r}")
        if self.word in (UNDECIDABLE, UNMEASURED) and not self.why:
            raise ValueError(f"{self.word!r} needs a reason")


def graded(parts: dict[str, bool], partly: bool = False) -> Verdict:
    """Reproduced if every part holds; else partly reproduced if `partly`; else not.

    ValueError: no parts.
    """
    if not parts:
        raise ValueError("a rule needs at least one part")
    parts = {name: bool(holds) for name, holds in parts.items()}
    return Verdict(REPRODUCED if all(parts.values()) else PARTLY if partly else NOT, parts)


class Numbers:
    """The entries of one chapter's results as a rule reads them, by name; remembers which were read.

    Arguments:
        chapter: its name, for messages.
        entries: those of `results.load`.
    """

    def __init__(self, chapter: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self.chapter, self._entries = chapter, entries
        self.read: list[str] = []
        self.measured: list[str] = []  # those read with their intervals

    def __getitem__(self, name: str) -> Interval:
        """A measured number with its interval.

        ValueError: the chapter has none of that name, it is a curve, or it has no interval.
        """
        entry = self._entry(name)
        if entry["interval"] is None:
            raise ValueError(f"{name!r} in results/{self.chapter}.json has no interval; a rule may rest on it only "
                             "through exact(), for a count, a test's p or an error that must be 0")  # fmt: skip
        if name not in self.measured:
            self.measured.append(name)
        return Interval(float(entry["value"]), *map(float, entry["interval"]))

    def exact(self, name: str) -> float:
        """A number that has no interval: a count, the p of a test, the largest error of what must be exact.

        ValueError: the chapter has none of that name, or it is a curve.
        """
        return float(self._entry(name)["value"])

    def size(self, name: str) -> int:
        """How many samples, images or seeds a number rests on.

        ValueError: the chapter has none of that name, it is a curve, or its n was not recorded.
        """
        n = self._entry(name)["n"]
        if n is None:
            raise ValueError(f"{name!r} in results/{self.chapter}.json does not say on how many samples it rests")
        return n

    def _entry(self, name: str) -> Mapping[str, Any]:
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.0)
            raise ValueError(f"results/{self.chapter}.json has no number {name!r}; the nearest are {near}")
        entry = self._entries[name]
        if isinstance(entry["value"], list):
            raise ValueError(f"{name!r} in results/{self.chapter}.json is a curve; a rule reads single numbers")
        if name not in self.read:
            self.read.append(name)
        return entry


class _Anything(dict):
    """Entries of every name, for finding out which are asked for."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> dict[str, Any]:
        return {"value": 0.5, "interval": [0.0, 1.0]}


def names(rule: Callable[[Numbers], Verdict]) -> list[str]:
    """The numbers that a rule reads, in its order; a rule reads the same whatever their values are (tested)."""
    numbers = Numbers("", _Anything())
    rule(numbers)
    return numbers.read
