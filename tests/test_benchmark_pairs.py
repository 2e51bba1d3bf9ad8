"""The benchmarks of chapter 07, pairs, faces_pair, temperatures and reach, measure what they say."""

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

NAMES = ("pairs", "faces_pair", "temperatures", "reach")
pairs, faces_pair, temperatures, reach = map(benchmark_files.load, NAMES)


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
    assert numbers["images"] == 120 and len(numbers) == 1 + 4 * 2 * len(temperatures.SCHEMES)
    for what, better in (("accuracy", -1), ("Fréchet distance", -1), ("recall", 1)):
        own, cold = (np.mean([numbers[f"{what}, {t}, seed {s}"] for s in (0, 1)]) for t in ("1", "0.6"))
        assert better * (own - cold) > 0, what
    assert json.loads((tmp_path / "prior.json").read_text())["numbers"] == numbers
    assert temperatures.SCHEMES["mixed"] == [0.2, 0.6, 0.6, 0.6], "the paper's"


def test_fewer_test_images_than_asked_for(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(temperatures, "SCHEMES", {"1": 1.0})
    monkeypatch.setattr(temperatures.data, "load", lambda name, split: photographs(80))
    monkeypatch.setattr(temperatures.rgflow, "load", lambda name: build(RGFlowConfig(nlayers=1, nres=1, nhidden=4)))
    assert temperatures.main(temperatures.Options(seeds=(0,), out=tmp_path))["images"] == 80


def test_what_real_nvp_reaches(tmp_path: Path) -> None:
    """An RG-Flow has nothing outside its cones; of a Real NVP with random weights something lies there."""
    generator = torch.Generator().manual_seed(0)
    configs = {
        "ours": RGFlowConfig(size=16, nlayers=1, nres=1, nhidden=8),
        "other": RealNVPConfig(size=16, nres=1, nhidden=4),
    }
    found = {}
    for name, config in configs.items():
        flow = build(config)
        with torch.no_grad():
            for weights in flow.parameters():
                weights.normal_(0, 0.2, generator=generator)
        checkpoints.save(flow, tmp_path / f"{name}.safetensors")
        options = reach.Options(str(tmp_path / f"{name}.safetensors"), draws=4, latents=6, shown=3, out=tmp_path)
        found[name] = reach.main(options)
        with np.load(tmp_path / f"{name}.npz") as kept:
            assert kept["maps"].shape == (9, 16, 16) and len(kept["strengths"]) == len(kept["levels"])
    assert all(found["ours"][f"level {level}: effect outside the cone high"] == 0 for level in range(3))
    assert found["other"]["level 0: effect outside the cone"] > 0
    assert found["ours"]["level 0: median spread"] < found["ours"]["level 2: median spread"]
    assert [found["ours"][f"level {level}: latents"] for level in range(3)] == [6, 6, 48]


def test_cones_of_the_same_level_and_the_nearest_place() -> None:
    geometry = rgflow.Geometry(16, 16, 4)
    site = [int(k) for k in (geometry.levels == 1).nonzero()[0]]
    beside = [(site[0] - 1) % 16, site[1]]
    found = reach.near_cones(geometry, torch.tensor([[0, *site], [2, *beside]]), torch.tensor([1, 1]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], rgflow.cones.generation_cone(geometry, tuple(site)))


def test_spread_by_hand() -> None:
    """One latent acts on a site alone, the other evenly on its 2 x 2 neighbours, of which one is outside."""
    magnitude = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    magnitude[0, 0, 3, 3] = 2.0
    magnitude[1, 0, 2:4, 2:4] = 1.0
    fields = reach.ReceptiveFields(
        torch.zeros(2, 3), torch.zeros(2), magnitude, magnitude, torch.zeros(2, dtype=torch.float64), 2
    )
    cones = torch.ones(2, 8, 8, dtype=torch.bool)
    cones[1, 2, 2] = False
    found = reach.measured(fields, cones)
    assert found["spread"] == pytest.approx([0, 0.5**0.5]) and found["effect outside the cone"] == pytest.approx(
        [0, 0.25]
    )
