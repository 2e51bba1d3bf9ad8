"""The benchmark of factors runs, names its numbers as the ledger's rules do, and measures the flow it is given."""

from __future__ import annotations

import json

import benchmark_files
import numpy as np
import pytest
import torch

from rgflow import RGFlowConfig, build, checkpoints, disentanglement, factors, mixing, shares, studies, synthetic
from rgflow.evidence import names
from rgflow.pictures import Pictures
from rgflow.statistics import bootstrap_interval as few
from rgflow.verdicts import RULES

TINY = {"nlayers": 1, "nhidden": 4, "net": "plain", "batch_size": 4}


@pytest.fixture
def benchmark(monkeypatch):
    module = benchmark_files.load("factors")
    monkeypatch.setattr(module, "SETTINGS", TINY)
    monkeypatch.setattr(disentanglement, "STRENGTHS", np.array([1.0, 0.1]))
    for user in (shares, disentanglement):  # fewer draws
        monkeypatch.setattr(user, "bootstrap_interval", lambda v, s, n, generator: few(v, s, n=20, generator=generator))
    monkeypatch.setattr(
        module.data,
        "load",
        lambda name, split: Pictures(*getattr(synthetic, name)(220, torch.Generator().manual_seed(1))),
    )
    return module


SMALL = {"images": 200, "linear_images": 60, "pairs": 12, "bins": 4, "groups": 2, "score_images": 5, "minutes": 0.01}


@pytest.mark.parametrize("name", ["msds1", "msds2"])
def test_it_trains_measures_and_keeps(benchmark, name, tmp_path, capsys) -> None:
    options = benchmark.Options(data=name, **SMALL, out=tmp_path / "out", save=tmp_path / "models")
    numbers = benchmark.main(options)
    runs = studies.load(tmp_path / "out")
    assert runs == {(name, "laplace", 0): numbers} and numbers["steps"] >= 1
    every = dict.fromkeys(studies.missing({}), numbers)
    assert len(studies.differences(every)) == 4
    asked = [*names(RULES["C6"]), *names(RULES["C9"])]
    for what in [what for what in asked if f" {name} " in what]:
        assert studies.named(every, what).low <= studies.named(every, what).high, what
    said = capsys.readouterr().out
    assert "best latent positions, level 2" in said and " low" not in said
    model = tmp_path / "models" / f"{name}-laplace-0.safetensors"
    assert checkpoints.read_card(model)["card"]["licence"] == "generated data, MIT"
    written = json.loads((tmp_path / "out" / f"{name}-laplace-0.json").read_text())
    assert written["options"]["out"] == "out" and str(tmp_path) not in json.dumps(written)


def test_the_identity_has_the_global_colour_everywhere(benchmark, tmp_path) -> None:
    """Of a flow that changes nothing some numbers are known: the pixels of any level show the colour."""
    flow = build(RGFlowConfig(nlayers=1, nhidden=4, net="plain", prior="gaussian"))
    checkpoints.save(flow, tmp_path / "a.safetensors")
    options = benchmark.Options(prior="gaussian", model=tmp_path / "a.safetensors", **SMALL, out=tmp_path)
    numbers = benchmark.main(options)
    assert numbers["R2 global colour, level 0"] > 0.7 and "steps" not in numbers
    assert abs(numbers["B angles, cut 4"] - 1) < 1e-6 and abs(numbers["A angles, cut 0"] - 1) < 1e-6
    for factor in ("angles", "positions", "global colour"):  # the same mixture, measured twice
        assert numbers[f"donor {factor}, swapped below 3"] == pytest.approx(numbers[f"B {factor}, cut 3"], abs=1e-6)
    tests = benchmark.data.load("msds1", "test")
    top = factors.of_level(mixing.encoded(flow, tests.images[:200]), flow.levels, 3)
    assert numbers["MIG, top"] == disentanglement.mig(top, tests.labels["global"][:200], bins=4).value.value
    with pytest.raises(ValueError, match="has the prior gaussian, not laplace"):
        benchmark.main(benchmark.Options(model=tmp_path / "a.safetensors", **SMALL))
