"""Runs of several seeds are read back in order, paired by seed, and nothing is said while one of them is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rgflow import repeats

RUN, OTHER = "levels/msds1-{}", "levels/patches32-{}"


def write(folder: Path, run: str, values: list[float]) -> None:
    for seed, value in enumerate(values):
        path = folder / "runs" / f"{run.format(seed)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"numbers": {"score": value, "steps": 10}}))


def test_means_over_seeds_and_in_pairs(tmp_path: Path) -> None:
    write(tmp_path, RUN, [1.0, 2.0, 3.0])
    write(tmp_path, OTHER, [0.9, 1.8, 2.7])
    assert repeats.missing([RUN, OTHER], where=tmp_path) == []
    assert repeats.values(RUN, "score", where=tmp_path) == [1.0, 2.0, 3.0]
    # Student's factor for two degrees of freedom is 4.3027; standard deviations 1 and 0.1
    found = repeats.mean(RUN, "score", where=tmp_path)
    assert found == pytest.approx((2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    found = repeats.mean(RUN, "score", (OTHER, "score"), where=tmp_path)
    assert found == pytest.approx((0.2, 0.2 - 0.43027 / 3**0.5, 0.2 + 0.43027 / 3**0.5), abs=1e-4)
    assert repeats.mean(RUN, lambda n: n["score"] * n["steps"], where=tmp_path).value == pytest.approx(20)


def test_a_missing_run_is_named_and_nothing_is_averaged(tmp_path: Path) -> None:
    write(tmp_path, RUN, [1.0, 2.0, 3.0])
    write(tmp_path, OTHER, [1.0, 2.0])
    assert repeats.missing([RUN, OTHER], where=tmp_path) == ["levels/patches32-2"]
    assert (
        repeats.values(OTHER, "score", where=tmp_path) is None and repeats.mean(OTHER, "score", where=tmp_path) is None
    )
    assert repeats.mean(RUN, "score", (OTHER, "score"), where=tmp_path) is None
    assert repeats.mean(OTHER, "score", (RUN, "score"), where=tmp_path) is None
    assert repeats.mean(OTHER, "score", seeds=(0, 1), where=tmp_path).value == 1.5
    with pytest.raises(KeyError, match="scores"):
        repeats.values(RUN, "scores", where=tmp_path)


def test_curves_by_name(tmp_path: Path) -> None:
    assert repeats.curves(RUN, 1, tmp_path) is None
    write(tmp_path, RUN, [1.0])
    (tmp_path / "runs" / "levels" / "msds1-1.csv").write_text("step,level 0\n0,2.5\n4,1.5\n")
    found = repeats.curves(RUN, 1, tmp_path)
    assert {name: column.tolist() for name, column in found.items()} == {"step": [0, 4], "level 0": [2.5, 1.5]}
