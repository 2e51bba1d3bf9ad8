"""The benchmarks of chapter 07, pairs, faces_pair and temperatures, measure what they say (reach: its own file)."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark_files
import numpy as np
import pytest
import torch

import rgflow
from rgflow import RGFlowConfig, build, checkpoints
from rgflow.batches import code_lengths
from rgflow.pictures import Pictures
from rgflow.realnvp import RealNVPConfig

pairs, faces_pair, temperatures = (benchmark_files.load(name) for name in ("pairs", "faces_pair", "temperatures"))


def photographs(n: int, size: int = 32, seed: int = 0) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    return Pictures(torch.randint(0, 256, (n, 3, size, size), generator=generator).to(torch.uint8))


@pytest.mark.parametrize("kind", ["rgflow", "realnvp"])
def test_pairs_train_score_and_keep(kind: str, monkeypatch, tmp_path: Path) -> None:
    sets = {"train": photographs(40), "test": photographs(6, seed=1)}
    monkeypatch.setattr(pairs.data, "load", lambda name, split: sets[split])
    monkeypatch.setattr(pairs, "MODEL", RGFlowConfig(net="plain", tied=False, nlayers=2, nhidden=16))
    numbers = pairs.main(pairs.Options(kind=kind, minutes=0.02, out=tmp_path))
    assert numbers["test images"] == 6 and numbers["steps"] >= 1 and 7 < numbers["test bits/dim"] < 12
    kept = json.loads((tmp_path / f"msds1-{kind}-0.json").read_text())
    assert kept["numbers"] == numbers and kept["options"]["kind"] == kind


def test_a_pair_has_one_number_of_parameters_and_seeds_of_its_own() -> None:
    ours, other = (pairs.untrained(kind, (3, 32, 32), 0) for kind in ("rgflow", "realnvp"))
    counts = [sum(p.numel() for p in flow.parameters()) for flow in (ours, other)]
    assert counts[0] == 721_248 and abs(counts[1] / counts[0] - 1) <= 0.02
    assert ours.config.prior == "laplace" and isinstance(other.config, RealNVPConfig)
    again, others = pairs.untrained("rgflow", (3, 32, 32), 0), pairs.untrained("rgflow", (3, 32, 32), 1)
    first = [next(p for p in flow.parameters() if p.any()) for flow in (ours, again, others)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_two_flows_of_faces_are_compared_person_by_person(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    person = np.array([5, 180, 180, 181, 182, 182])
    images = torch.randint(0, 256, (6, 32, 32, 3), generator=generator).to(torch.uint8).numpy()
    np.savez(tmp_path / "faces.npz", images=images, identity200=person, full_res=np.ones(6, int))
    models = []
    for seed in (0, 1):
        flow = build(RGFlowConfig(nlayers=1, nres=1, nhidden=4))
        with torch.no_grad():
            for weight in flow.parameters():
                weight.normal_(0, 0.1, generator=generator)
        checkpoints.save(flow, tmp_path / f"{seed}.safetensors")
        models.append(str(tmp_path / f"{seed}.safetensors"))
    options = faces_pair.Options(tmp_path / "faces.npz", models=tuple(models), out=tmp_path / "pair.json")
    numbers = faces_pair.main(options)
    test = Pictures(torch.from_numpy(images[1:]).permute(0, 3, 1, 2).contiguous())
    a, b = (code_lengths(rgflow.load(model), test) for model in models)
    by_hand = [(a[rows] - b[rows]).mean() for rows in ([0, 1], [2], [3, 4])]
    assert numbers["RG-Flow less Real NVP"] == pytest.approx(float(sum(by_hand) / 3))
    assert numbers["people"] == 3 and numbers["test images"] == 5
    assert '"data": "faces.npz"' in (tmp_path / "pair.json").read_text(), "of folders nothing is kept"


def test_temperatures_are_told_apart(monkeypatch, tmp_path: Path) -> None:
    """A flow that is its prior: of its own samples those at temperature 1 are told apart worst."""
    flow = build(RGFlowConfig(nlayers=1, nres=1, nhidden=4))
    checkpoints.save(flow, tmp_path / "prior.safetensors")
    sets = {
        "train": Pictures(temperatures.drawn(flow, 400, 1.0, 98)),
        "test": Pictures(temperatures.drawn(flow, 150, 1.0, 99)),
    }
    monkeypatch.setattr(temperatures.data, "load", lambda name, split: sets[split])
    monkeypatch.setattr(temperatures.rgflow, "load", lambda name: flow)
    options = temperatures.Options(model="prior", images=120, seeds=(0, 1), out=tmp_path)
    numbers = temperatures.main(options)
    assert numbers["images"] == 120 and len(numbers) == 1 + 4 * 2 * (1 + len(temperatures.SCHEMES))
    for what, better in (("accuracy", -1), ("Fréchet distance", -1), ("recall", 1)):
        own, cold = (np.mean([numbers[f"{what}, {t}, seed {s}"] for s in (0, 1)]) for t in ("1", "0.6"))
        assert better * (own - cold) > 0, what
    null = np.mean([numbers[f"accuracy, real images, seed {s}"] for s in (0, 1)])
    assert abs(null - 0.5) < 0.12 and null < numbers["accuracy, 0.6, seed 0"], "what is perfect"
    assert json.loads((tmp_path / "prior.json").read_text())["numbers"] == numbers
    assert temperatures.SCHEMES["mixed"] == [0.2, 0.6, 0.6, 0.6], "the paper's"


def test_fewer_test_images_than_asked_for(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(temperatures, "SCHEMES", {"1": 1.0})
    sets = {"train": photographs(200), "test": photographs(80, seed=1)}
    monkeypatch.setattr(temperatures.data, "load", lambda name, split: sets[split])
    monkeypatch.setattr(temperatures.rgflow, "load", lambda name: build(RGFlowConfig(nlayers=1, nres=1, nhidden=4)))
    assert temperatures.main(temperatures.Options(seeds=(0,), out=tmp_path))["images"] == 80
