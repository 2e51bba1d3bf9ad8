"""Numbers of chapters: written atomically, read back equal, compared by their intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from rgflow import results


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RGFLOW_RESULTS", str(tmp_path / "out"))
    monkeypatch.setenv("RGFLOW_PROFILE", "quick")
    return tmp_path / "out"


def test_profile_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RGFLOW_PROFILE", raising=False)
    assert results.profile() == "book"
    for name in ("quick", "book", "full"):
        monkeypatch.setenv("RGFLOW_PROFILE", name)
        assert results.profile() == name
    monkeypatch.setenv("RGFLOW_PROFILE", "fast")
    with pytest.raises(ValueError, match=r"RGFLOW_PROFILE is 'fast'; it must be one of quick, book, full"):
        results.profile()


def test_record_then_load_gives_the_number_and_where_it_came_from(scratch: Path) -> None:
    results.record(
        "01_pinwheel",
        "purity",
        torch.tensor(0.75),
        interval=(0.7, np.float32(0.8)),
        n=10,
        seed=3,
        unit="fraction",
        note="45 degrees",
    )
    entry = results.load("01_pinwheel", scratch)["purity"]
    assert entry["value"] == 0.75 and entry["interval"] == pytest.approx([0.7, 0.8])
    assert (entry["n"], entry["seed"], entry["unit"], entry["note"]) == (10, 3, "fraction", "45 degrees")
    assert entry["profile"] == "quick" and entry["commit"]
    machine = entry["hardware"]
    assert set(machine) == {"cpu", "cores", "threads", "gpu", "torch"}
    assert machine["threads"] == torch.get_num_threads() and machine["torch"] == str(torch.__version__)


def test_record_keeps_other_entries_replaces_its_own_and_leaves_no_partial_file(scratch: Path) -> None:
    results.record("02_training", "a", 1)
    results.record("02_training", "b", [1.0, 2.0], interval=([0.0, 1.0], [2.0, 3.0]))
    results.record("02_training", "a", 5)
    loaded = results.load("02_training", scratch)
    assert loaded["a"]["value"] == 5 and loaded["b"]["value"] == [1.0, 2.0]
    assert [path.name for path in scratch.iterdir()] == ["02_training.json"]


def test_a_failed_write_leaves_the_old_file_whole(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.record("02_training", "a", 1)
    before = (scratch / "02_training.json").read_text()

    def full_disk(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        results.record("02_training", "b", 2)
    assert (scratch / "02_training.json").read_text() == before


def test_without_a_named_folder_numbers_go_to_scratch_never_to_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RGFLOW_RESULTS", raising=False)
    assert results.REPOSITORY not in results.folder().parents
    assert results.folder() != results.COMMITTED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chapter": "pinwheel"}, "chapter is 'pinwheel'; it must be a notebook's name"),
        ({"chapter": "../01_x"}, "must be a notebook's name"),
        ({"name": ""}, "name is ''; it must be a non-empty string"),
        ({"value": float("nan")}, "value of 'a' is not finite: nan"),
        ({"value": [1.0, float("inf")]}, "is not finite"),
        ({"value": "0.5"}, "must be a number or an array of numbers"),
        ({"value": None}, "must be a number or an array of numbers"),
        ({"interval": (2.0, 1.0)}, r"is \[2.0, 1.0\]; low must not exceed high"),
        ({"interval": (1.0,)}, r"has 1 parts; it must be \(low, high\)"),
        ({"interval": ([1.0], [2.0])}, r"both must have the value's, \(\)"),
        ({"n": 0}, "n of 'a' is 0; it must be at least 1"),
    ],
)
def test_bad_arguments_are_named(scratch: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        results.record(**{"chapter": "01_x", "name": "a", "value": 1.0, **arguments})
    assert not scratch.exists()


def test_missing_and_foreign_files_are_named(scratch: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results of '07_none'"):
        results.load("07_none", scratch)
    scratch.mkdir()
    for content, message in [
        ("{", "is not valid JSON"),
        ("[1]", "does not hold results"),
        ('{"a": 1}', "every entry needs a value"),
    ]:
        (scratch / "01_x.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            results.load("01_x", scratch)


def entry(value: object, interval: object = None, profile: str = "book") -> dict:
    return {"value": value, "interval": interval, "profile": profile}


@pytest.mark.parametrize(
    ("fresh", "committed", "verdict"),
    [
        (entry(1.0), entry(1.0005), "agrees"),
        (entry(1.0), entry(1.01), "differs"),
        (entry(1.0, [0.9, 1.1]), entry(1.15, [1.05, 1.25]), "agrees"),
        (entry(1.0, [0.9, 1.1]), entry(1.3, [1.2, 1.4]), "differs"),
        (entry(1.3, [1.2, 1.4]), entry(1.0, [0.9, 1.1]), "differs"),
        (entry(1.0, [0.9, 1.1]), entry(1.05), "differs"),
        (entry([1.0, 2.0]), entry([1.0, 2.0]), "agrees"),
        (entry([1.0, 2.0]), entry([1.0, 2.1]), "differs"),
        (entry([1.0, 2.0]), entry([1.0]), "differs"),
        (entry([1.0, 2.0], [[0, 1], [2, 3]]), entry([1.5, 9.0], [[1, 8], [2, 10]]), "differs"),
        (entry(1.0, profile="quick"), entry(9.0), "other profile"),
        (entry(1.0), None, "new"),
        (None, entry(1.0), "not measured"),
    ],
)
def test_compare_uses_intervals_where_both_have_them(fresh: dict | None, committed: dict | None, verdict: str) -> None:
    rows = results.compare({"a": fresh} if fresh else {}, {"a": committed} if committed else {})
    assert [(row.name, row.verdict) for row in rows] == [("a", verdict)]
    assert rows[0].fresh == (fresh and fresh["value"]) and rows[0].committed == (committed and committed["value"])


def test_every_committed_file_is_readable_and_says_where_it_came_from() -> None:
    for path in sorted(results.COMMITTED.glob("*.json")):
        for name, number in results.load(path.stem).items():
            assert {"value", "interval", "n", "seed", "profile", "commit", "hardware"} <= set(number), (path.name, name)
            assert number["profile"] in ("book", "full"), f"{path.name} {name} was measured in the quick profile"
        assert json.loads(path.read_text())


def test_kept_options_name_no_folders(tmp_path):
    @dataclass
    class Options:
        data: Path = tmp_path / "faces.npz"
        rounds: int = 3

    results.keep(tmp_path / "a.json", Options(), {"step": 1.5})
    kept = (tmp_path / "a.json").read_text()
    assert json.loads(kept)["options"] == {"data": "faces.npz", "rounds": 3} and str(tmp_path) not in kept


def test_what_is_kept_is_read_back_and_what_is_not_there_is_none(tmp_path):
    @dataclass
    class Options:
        seed: int = 0

    results.keep(tmp_path / "runs" / "study" / "a.json", Options(), {"step": 1.5})
    assert results.kept("study/a", tmp_path) == {"step": 1.5}
    assert results.kept("study/b", tmp_path) is None and results.kept("nothing/at-all") is None
    (tmp_path / "runs" / "study" / "b.json").write_text('{"step": 1.5}')
    with pytest.raises(ValueError, match="b.json is not a run"):
        results.kept("study/b", tmp_path)
    assert results.kept("inpainting/msds1")["images"] == 100, "of the repository by default"
