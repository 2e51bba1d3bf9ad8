"""Figures of the ledger: verdict of every claim, numbers beside what rules ask of them, verdicts of other intervals."""

from __future__ import annotations

import json
import math
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rgflow import ledger, results
from rgflow.evidence import NOT, PARTLY, REPRODUCED, UNDECIDABLE, UNMEASURED, WORDS
from rgflow.ledger import Claim, Line
from rgflow.plot import COLOURS, figure
from rgflow.results import Entry
from rgflow.verdicts import RULES

# Shape repeats colour, for readers who cannot tell the colours apart.
LOOKS = {
    REPRODUCED: {"marker": "o", "color": COLOURS["green"]},
    PARTLY: {"marker": "D", "color": COLOURS["orange"]},
    NOT: {"marker": "X", "color": COLOURS["red"]},
    UNDECIDABLE: {"marker": "s", "color": COLOURS["pink"]},
    UNMEASURED: {"marker": "o", "color": "#8a8a8a", "fillstyle": "none"},
}
WHOLE, DOT, COVER = "interval", "value", "cover"


@dataclass(frozen=True)
class Band:
    """What a rule asks of a number: that its interval, or its value alone, lies in low..high, or that it covers low."""

    low: float = -math.inf
    high: float = math.inf
    of: str = WHOLE

    def holds(self, entry: Entry) -> bool:
        """Whether the number meets it; at the bound itself both answers are possible."""
        low, high = (entry["value"],) * 2 if self.of == DOT else entry["interval"]
        return low <= self.low <= high if self.of == COVER else self.low <= low and high <= self.high


Bound = float | Callable[[Mapping[str, Entry]], float]


def _value(name: str, less: float = 0.0) -> Callable[[Mapping[str, Entry]], float]:
    return lambda read: read[name]["value"] - less


def _own_spread(name: str) -> Callable[[Mapping[str, Entry]], float]:
    return lambda read: 2 * read[f"{name}: level 0: median spread"]["interval"][1]


# Of each claim: pattern of the number's name, low, high, of what. Only comparisons of one shown number with a bound are
# here; what else a rule asks stands in `verdicts`. A test holds both against each other.
ABOVE_HALF = (0.5, math.inf, WHOLE)
ABOVE_0 = (0.0, math.inf, WHOLE)
BELOW_0 = (-math.inf, 0.0, WHOLE)
_BANDS: dict[str, list[tuple[str, Bound, Bound, str]]] = {
    "C4": [
        ("level 0: median radius", -math.inf, 2.0, DOT),
        ("level 3: median radius", math.sqrt((32**2 - 1) / 6) / 2, math.inf, DOT),
    ],
    "C5": [("share of all strengths", -math.inf, 0.5, WHOLE), ("strongest tenth", *ABOVE_HALF)],
    "C6": [("swapped 0", -0.1, 0.1, WHOLE), ("swapped", *ABOVE_HALF)],
    "C7": [("R .* laplace", *ABOVE_HALF), ("R .* gaussian", -math.inf, 0.5, DOT), ("purity", *ABOVE_0)],
    "C8": [("Laplace minus", *ABOVE_0)],
    "C9": [("excess", 0.3, math.inf, WHOLE), ("", *ABOVE_HALF)],
    "C10": [
        *((f"{name}, RG-Flow in its cone", _value(f"{name}, biharmonic: PSNR", 1), math.inf, DOT)
          for name in ("msds1", "patches32")),
        ("less Real NVP constrained", 3.0, math.inf, DOT),
        *((f"{name}, Real NVP: PSNR", _value(f"{name}, RG-Flow in its cone: PSNR", 3), math.inf, DOT)
          for name in ("msds1", "patches32")),
    ],
    "C11": [("", *BELOW_0)],
    "C12": [
        ("outside", 0.05, math.inf, WHOLE),
        *((f"{name}-realnvp: level 0: median spread", _own_spread(name), math.inf, WHOLE)
          for name in ("msds1", "patches32")),
    ],
    "C13": [("", *BELOW_0)],
    "C14": [("", -math.inf, 1 / 3, WHOLE)],
    "C15": [("^C15 c", *ABOVE_0), ("new latents, bits each$", -math.inf, 0.5, WHOLE)],
    "C16": [("", *BELOW_0)],
    "C17": [("", *ABOVE_0)],
    "C18": [("", 30 / 48, 30 / 48, COVER)],
}  # fmt: skip


def band(claim: str, name: str, read: Mapping[str, Entry]) -> Band | None:
    """What the rule of a claim asks of one of its shown numbers by itself, given the others; None: nothing."""
    for pattern, low, high, of in _BANDS.get(claim, []):
        if re.search(pattern, name):
            return Band(*(bound(read) if callable(bound) else bound for bound in (low, high)), of)
    return None


def title(claim: str) -> str:
    """A claim in a few words: what the docstring of its rule says."""
    return (RULES[claim].__doc__ or "").split("\n")[0].partition(": ")[2].rstrip(".")


def verdicts(decided: Iterable[Line]) -> Figure:
    """Every claim with its verdict: one row each, one column per word."""
    decided = list(decided)
    fig = figure(7.0, 1.1 + 0.24 * len(decided))
    axes = fig.subplots()
    for row, line in enumerate(decided):
        axes.plot(WORDS.index(line.verdict.word), row, ls="", ms=9, mew=1.6, **LOOKS[line.verdict.word])
    names = [f"{d.claim.id}  {title(d.claim.id)}{' (theorem)' if d.claim.theorem else ''}" for d in decided]
    _grid(axes, names, WORDS)
    axes.tick_params(axis="x", labelrotation=42)
    for label in axes.get_xticklabels():
        label.set(ha="left", va="bottom", rotation_mode="anchor")
    return fig


def bands(decided: Iterable[Line], width: float = 7.0) -> Figure:
    """The shown numbers with their intervals, claim by claim, beside the band in which their rule wants them.

    Numbers of another unit have an axis of their own. Theorems, whose numbers are exact, and claims that are not
    measured are left out.

    ValueError: no number with an interval.
    """
    chosen = [d for d in decided if not d.claim.theorem and any(name in d.read for name in d.claim.numbers)]
    if not chosen:
        raise ValueError("no claim has a number with an interval yet")
    panels = [(line, unit, names) for line in chosen for unit, names in _by_unit(line).items()]
    ratios = [0.6 + len(names) for *_, names in panels]
    fig = figure(width, 0.55 * len(panels) + 0.3 * sum(len(names) for *_, names in panels))
    for axes, panel in zip(
        fig.subplots(len(panels), 1, height_ratios=ratios, squeeze=False)[:, 0], panels, strict=True
    ):
        _claim(axes, *panel)
    return fig


def _by_unit(line: Line) -> dict[str | None, list[str]]:
    """The shown numbers of a claim that were read, by their units."""
    found: dict[str | None, list[str]] = {}
    for name in line.claim.numbers:
        if name in line.read:
            found.setdefault(line.read[name].get("unit"), []).append(name)
    return found


def rescaled(claim: Claim, factor: float, where: Path | None = None) -> Line:
    """The claim decided once more with all intervals of its chapter `factor` times as wide, about the same values.

    Errors as in `ledger.decide`, and ValueError for a factor below 0.
    """
    if not factor >= 0:
        raise ValueError(f"factor must be 0 or more, not {factor}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            entries = results.load(claim.chapter, where)
        except FileNotFoundError:
            return ledger.decide(claim, Path(folder))
        for entry in entries.values():
            if entry["interval"] and not isinstance(entry["value"], list):
                value = entry["value"]
                entry["interval"] = [value + factor * (end - value) for end in entry["interval"]]
        (Path(folder) / f"{claim.chapter}.json").write_text(json.dumps(entries), encoding="utf-8")
        return ledger.decide(claim, Path(folder))


def stability(rows: Mapping[str, Sequence[str]], factors: Sequence[float]) -> Figure:
    """Verdicts by claim (rows) for intervals of other widths (columns, one word each)."""
    fig = figure(7.0, 1.0 + 0.26 * len(rows))
    axes = fig.subplots()
    for row, words in enumerate(rows.values()):
        for column, word in enumerate(words):
            axes.plot(column, row, ls="", ms=9, mew=1.6, **LOOKS[word])
    _grid(axes, [f"{claim}  {title(claim)}" for claim in rows], [f"x {factor:g}" for factor in factors])
    axes.set_xlabel("width of the intervals")
    axes.xaxis.set_label_position("top")
    used = [word for word in WORDS if any(word in words for words in rows.values())]
    handles = [axes.plot([], [], ls="", ms=8, label=word, **LOOKS[word])[0] for word in used]
    fig.legend(handles=handles, loc="outside lower right", ncols=3)
    return fig


def _grid(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.hlines([k + 0.5 for k in range(len(rows))], -0.5, len(columns) - 0.5, color="#dddddd", lw=0.6, zorder=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _claim(axes: Axes, line: Line, unit: str | None, names: Sequence[str]) -> None:
    """Shown numbers of one claim and one unit from above, each in its band."""
    claim, colour = line.claim, LOOKS[line.verdict.word]["color"]
    asked = {name: band(claim.id, name, line.read) for name in names}
    ends = [end for name in names for end in (line.read[name]["interval"] or [line.read[name]["value"]])]
    ends += [b for a in asked.values() if a for b in (a.low, a.high) if math.isfinite(b)]
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    left, right = min(ends) - room, max(ends) + room
    for row, name in enumerate(names):
        entry, wanted = line.read[name], asked[name]
        value, (low, high) = entry["value"], entry["interval"]
        if wanted:
            if wanted.of == COVER:
                axes.plot([wanted.low] * 2, [row - 0.42, row + 0.42], color=COLOURS["sky"], lw=3, zorder=1)
            else:
                span = (max(wanted.low, left), min(wanted.high, right))
                look = {"alpha": 0.35} if wanted.of == WHOLE else {"alpha": 0.35, "hatch": "///"}
                axes.fill_betweenx([row - 0.42, row + 0.42], *span, color=COLOURS["sky"], lw=0, zorder=1, **look)
        axes.plot([low, high], [row, row], color=colour, lw=2.2, zorder=3, solid_capstyle="butt")
        axes.plot(value, row, "o", ms=5, color="black", zorder=4)
    plain = [re.sub(r"^(study|C\d+) ", "", name) for name in names]
    axes.set_yticks(range(len(names)), ["\n".join(textwrap.wrap(name, 36)) for name in plain], fontsize=8)
    axes.set(xlim=(left, right), ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(axis="x", labelsize=8)
    heading = f"{claim.id}  {title(claim.id)}: {line.verdict.word}" + (f"   ({unit})" if unit else "")
    axes.set_title(heading, loc="right", fontsize=9, fontweight="bold")
