"""The benchmark on faces keeps people apart, goes on where it was stopped, and says what it measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType

import benchmark_files
import numpy as np
import pytest
import torch

import rgflow


@pytest.fixture(scope="module")
def faces() -> ModuleType:
    return benchmark_files.load("faces")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """140 pictures, each of one grey level, its number: 20 of people 178 to 181, 120 of nobody known."""
    images = np.broadcast_to(np.arange(140, dtype=np.uint8)[:, None, None, None], (140, 8, 8, 3))
    person = np.full(140, -1)
    person[:20] = np.repeat([181, 178, 180, 179], 5)
    np.savez(tmp_path / "faces.npz", images=images, identity200=person, full_res=person >= 0)
    return tmp_path / "faces.npz"


def levels(pictures: rgflow.data.Pictures) -> list[int]:
    return sorted(pictures.images[:, 0, 0, 0].tolist())


def test_people_are_kept_apart(faces: ModuleType, file: Path) -> None:
    train, fine, test, person = faces.split(file, often=3)
    known = [*range(5, 10), *range(15, 20)]  # 178 and 179
    assert levels(test) == [*range(5), *range(10, 15)] and person.tolist() == [181] * 5 + [180] * 5
    assert levels(fine) == known and levels(train) == sorted([*known] * 3 + [*range(20, 140)])
    assert train.flip and not test.flip


def test_the_mean_of_each_person(faces: ModuleType) -> None:
    bits, person = torch.tensor([1.0, 10, 3, 20, 5]), torch.tensor([181, 180, 181, 180, 182])
    assert faces.by_person(bits, person).tolist() == [15, 2, 5]


def test_it_runs_and_goes_on(faces: ModuleType, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = faces.Options(
        data=file, minutes=0.03, threads=1, nhidden=(8, 8), nlayers=(1, 1), batch_size=8, often=2,
        folder=tmp_path / "run", out=tmp_path / "kept" / "faces.json",
    )  # fmt: skip
    numbers = faces.main(options)
    assert numbers["people"] == 2 and numbers["test images"] == 10 and numbers["training images"] == 140
    assert numbers["low"] <= numbers["test bits/dim"] <= numbers["high"] and numbers["seconds"] >= 1.8
    assert "test bits/dim" in capsys.readouterr().out
    kept = json.loads(options.out.read_text())
    assert kept["numbers"] == numbers and kept["options"]["often"] == 2
    rows = list(csv.DictReader(options.out.with_suffix(".csv").open()))
    assert int(rows[-1]["step"]) == numbers["steps"]
    with np.load(options.out.with_suffix(".npz")) as file:
        assert file["images"].shape == (32, 3, 8, 8) and file["images"].dtype == np.uint8
    assert "non-commercial" in rgflow.checkpoints.read_card(tmp_path / "run" / "model.safetensors")["card"]["licence"]
    flow = rgflow.load(tmp_path / "run" / "model.safetensors")
    assert flow.config.places
    assert flow.bits_per_dim(torch.full((1, 3, 8, 8), 12, dtype=torch.uint8)).isfinite()
    assert faces.main(options) == numbers, "nothing is left to train"


def test_a_file_without_people_is_named(faces: ModuleType, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="a.npz has no full_res, identity200"):
        faces.split(tmp_path / "a.npz", 1)
