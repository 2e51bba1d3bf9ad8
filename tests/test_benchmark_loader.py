"""The benchmark of the loader runs on each kind of images, and finds a loader that is slow."""

from __future__ import annotations

import json
import time
from types import ModuleType

import benchmark_files
import pytest


@pytest.fixture(scope="module")
def loader() -> ModuleType:
    return benchmark_files.load("loader")


TINY = {"size": 8, "images": 30, "batch_size": 8, "rounds": 3, "steps": 2}


@pytest.mark.parametrize(("data", "workers"), [("folder", 0), ("jpeg", 0), ("jpeg", 1)])
def test_it_runs(loader, capsys, tmp_path, data, workers) -> None:
    median = loader.main(loader.Options(data=data, workers=workers, out=tmp_path / "a.json", **TINY))
    assert json.loads((tmp_path / "a.json").read_text())["numbers"] == median
    assert set(median) == {"loader", "fixed", "reading", "loader / fixed", "1 + reading / fixed"}
    assert all(value > 0 for value in median.values()) and median["loader"] > median["reading"]
    text = capsys.readouterr().out
    assert "'threads': 1" in text and "goal 1.05" in text and f"{30 if data == 'jpeg' else 27} images" in text


def test_a_slow_loader_shows(loader, monkeypatch) -> None:
    slow = loader.Preparation.__call__
    monkeypatch.setattr(loader.Preparation, "__call__", lambda self, picture: time.sleep(0.005) or slow(self, picture))
    assert loader.main(loader.Options(data="jpeg", **TINY))["reading"] < 0.01, "decoded before"
    median = loader.main(loader.Options(data="jpeg", epoch=0, **TINY | {"images": 100}))
    assert median["reading"] > 8 * 0.005 and median["loader / fixed"] > 1.2 < median["1 + reading / fixed"]
