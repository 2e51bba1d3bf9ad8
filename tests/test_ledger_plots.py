"""Bands of the ledger's figure are the bounds of the rules; figures show every claim; intervals can be made wider."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path

import pytest

from rgflow import ledger, ledger_plots, results
from rgflow.evidence import NOT, PARTLY, REPRODUCED, UNMEASURED, WORDS, Numbers, Verdict, names
from rgflow.ledger import Line
from rgflow.ledger_plots import COVER, DOT, band
from rgflow.verdicts import RULES

CLAIMS, _ = ledger.load()
# Numbers for which each rule is content, just so: the first pattern that a name has, and its value (give or take 0.01).
HOLDS = {
    "C4": {"level 0": 1.5, "level 1": 3, "level 2": 5, "level 3": 8},
    "C5": {"tenth": 0.8, "": 0.1},
    "C6": {"swapped 0": 0, "": 0.9},
    "C7": {"rayleigh p .* laplace": 0, "rayleigh p": 0.5, "kl": 0.05, "R .* gaussian": 0.2, "": 0.9},
    "C8": {"": 0.2},
    "C9": {"": 0.9},
    "C10": {"less Real NVP": 8, "biharmonic": 25, "in its cone": 28, "": 27},
    "C11": {"": -1},
    "C12": {"outside": 0.5, "-realnvp": 9, "": 2},
    "C13": {"accuracy": 0.8, "": -0.1},
    "C14": {"gradients": 0, "": 0.2},
    "C15": {"C15 a": 0, "C15 c": 0.5, "not finite": 0, "": 0.05},
    "C16": {"": -0.1},
    "C17": {"": 1},
    "C18": {"": 0.62},
}
MEASURED = [name for name, claim in CLAIMS.items() if not claim.theorem]


def entry(value: float, low: float, high: float) -> dict:
    return {"value": value, "interval": [low, high], "n": 10**4, "unit": None, "profile": "book", "commit": "0"}


def made(claim: str) -> dict[str, dict]:
    values = {n: next(v for p, v in HOLDS[claim].items() if re.search(p, n)) for n in names(RULES[claim])}
    return {n: entry(v, v - 0.01, v + 0.01) for n, v in values.items()}


def said(claim: str, read: dict[str, dict]) -> Verdict:
    return RULES[claim](Numbers("00_x", read))


@pytest.mark.parametrize("claim", MEASURED)
def test_bands_are_the_bounds_of_the_rule(claim: str) -> None:
    step, bounds = 1e-6, 0
    for name in CLAIMS[claim].numbers:
        read = made(claim)
        if claim == "C8":  # of the two measures on a set one is enough: the others are for neither side
            read = {n: e if n == name or n[-5:] != name[-5:] else entry(0, -0.01, 0.01) for n, e in read.items()}
        content, found = said(claim, read).word, band(claim, name, read)
        assert content == REPRODUCED
        if found is None:
            continue
        assert found.holds(read[name])
        for bound, side in ((found.low, 1), (found.high, -1)):
            if math.isinf(bound):
                continue
            for inside in (True, False):
                near, far = bound + (step if inside else -step) * side, bound + 3 * step * side
                if found.of == COVER:
                    near = bound + (-step if inside else step) * side
                value = near if found.of == DOT else far
                changed = {**copy.deepcopy(read), name: entry(value, *sorted([near, far]))}
                assert (said(claim, changed).word == content) == inside, (name, bound, inside)
                assert found.holds(changed[name]) == inside
            bounds += 1
    assert bounds


def test_the_numbers_without_a_band_are_those_that_others_are_held_against() -> None:
    bare = [n for c in MEASURED for n in CLAIMS[c].numbers if band(c, n, made(c)) is None]
    assert bare == [
        "msds1, biharmonic: PSNR",
        "patches32, biharmonic: PSNR",
        "msds1: level 0: median spread",
        "patches32: level 0: median spread",
    ]


def test_every_claim_has_a_row_and_its_word_a_look() -> None:
    assert set(ledger_plots.LOOKS) == set(WORDS)
    assert len({(look["marker"], look.get("fillstyle")) for look in ledger_plots.LOOKS.values()}) == len(WORDS)
    decided = ledger.lines()
    (axes,) = ledger_plots.verdicts(decided).axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert [row.split()[0] for row in rows] == list(CLAIMS) and rows[0].endswith("(theorem)")
    shown = {int(dot.get_ydata()[0]): int(dot.get_xdata()[0]) for dot in axes.lines}
    assert {k: WORDS[column] for k, column in shown.items()} == {k: d.verdict.word for k, d in enumerate(decided)}


def test_bands_show_the_numbers_of_the_complete_ledger() -> None:
    lines = [Line(CLAIMS[c], said(c, made(c)), made(c)) for c in MEASURED]
    waiting = Line(CLAIMS["C1"], Verdict(UNMEASURED, why="later"), {})
    fig = ledger_plots.bands([waiting, *lines])
    fig.canvas.draw()
    assert len(fig.axes) == len(MEASURED)
    for axes, line in zip(fig.axes, lines, strict=True):
        dots = [dot for dot in axes.lines if dot.get_marker() == "o"]
        assert [dot.get_xdata()[0] for dot in dots] == [line.read[name]["value"] for name in line.claim.numbers]
        low, high = axes.get_xlim()
        assert all(low < dot.get_xdata()[0] < high for dot in dots)
    with pytest.raises(ValueError, match="no claim has a number with an interval yet"):
        ledger_plots.bands([waiting])


def test_numbers_of_other_units_have_another_axis() -> None:
    read = {n: {**e, "unit": "sites" if "spread" in n else None} for n, e in made("C12").items()}
    fig = ledger_plots.bands([Line(CLAIMS["C12"], said("C12", read), read)])
    fig.canvas.draw()
    shown = {axes: [t.get_text().replace("\n", " ") for t in axes.get_yticklabels()] for axes in fig.axes}
    assert sorted(sum(shown.values(), [])) == sorted(CLAIMS["C12"].numbers)
    for axes, rows in shown.items():
        assert ("(sites)" in axes.get_title(loc="right")) == all("spread" in row for row in rows)
        assert len({"spread" in row for row in rows}) == 1


def test_other_intervals_give_other_verdicts(tmp_path: Path) -> None:
    read = {name: {**e, "note": None} for name, e in made("C8").items()}  # 0.19 to 0.21
    read["a curve"] = {**entry(0, 0, 0), "value": [1, 2], "interval": [[0, 1], [2, 3]]}
    (tmp_path / "04_factors.json").write_text(json.dumps(read))
    assert ledger_plots.rescaled(CLAIMS["C8"], 1, tmp_path).verdict == ledger.decide(CLAIMS["C8"], tmp_path).verdict
    words = [ledger_plots.rescaled(CLAIMS["C8"], factor, tmp_path).verdict.word for factor in (0, 19, 21)]
    assert words[:2] == [REPRODUCED, REPRODUCED] and words[2] not in (REPRODUCED, PARTLY, NOT)
    assert json.loads((tmp_path / "04_factors.json").read_text()) == read, "the numbers themselves stay"
    assert ledger_plots.rescaled(CLAIMS["C9"], 2, tmp_path / "none").verdict.word == UNMEASURED
    with pytest.raises(ValueError, match="factor must be 0 or more"):
        ledger_plots.rescaled(CLAIMS["C8"], -1)


def test_stability_shows_each_verdict() -> None:
    fig = ledger_plots.stability({"C7": [REPRODUCED, PARTLY], "C10": [NOT, NOT]}, [1, 2.5])
    fig.canvas.draw()
    (axes,) = fig.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["x 1", "x 2.5"]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == [REPRODUCED, PARTLY, NOT]


def test_the_committed_numbers_have_bands() -> None:
    decided = [line for line in ledger.lines() if line.read and not line.claim.theorem]
    assert results.COMMITTED.is_dir() and decided
    ledger_plots.bands(decided).canvas.draw()
