"""The benchmarks of chapter 10, peaks and ode, measure what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import benchmark_files
import pytest
import torch

import rgflow
from rgflow import ODEFlowConfig, RGFlowConfig, build
from rgflow.batches import evaluate
from rgflow.exactness import awake
from rgflow.pictures import Pictures
from rgflow.repeats import curves
from rgflow.targets import BELL, PEAKS, divergence

peaks, ode = (benchmark_files.load(name) for name in ("peaks", "ode"))


def photographs(n: int, size: int, seed: int = 0) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    return Pictures(torch.randint(0, 256, (n, 3, size, size), generator=generator).to(torch.uint8))


def test_the_original_network_learns_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(p.numel() for p in build(peaks.MODEL).parameters()) == 17 * 529 + 2 * 16
    monkeypatch.setattr(peaks, "MODEL", replace(peaks.MODEL, rtol=1e-2, atol=1e-2))
    numbers = peaks.main(peaks.Options(points=400, steps=25, batch_size=200, out=tmp_path))
    flow = rgflow.load(tmp_path / "peaks-400-0.safetensors")
    assert numbers["KL"] == divergence(PEAKS, flow.solved(rtol=1e-6, atol=1e-6)).value
    assert numbers["KL"] < 0.2, "it starts with 1.614"
    kept = json.loads((tmp_path / "peaks-400-0.json").read_text())
    assert kept["numbers"] == numbers and kept["options"]["points"] == 400
    other = peaks.trained(peaks.Options(points=400, steps=2, batch_size=200, seed=1))[0]
    assert divergence(PEAKS, other).value != numbers["KL at the tolerance of training"]


def test_a_bell_is_learnt_from_its_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(peaks.MODEL, solver="rk4", nsteps=2)
    monkeypatch.setattr(peaks, "MODEL", model)
    numbers = peaks.main(peaks.Options(example="bell", steps=60, lr=0.03, batch_size=100, out=tmp_path))
    fresh = divergence(BELL, build(model)).value
    assert fresh > 1 and 0 < numbers["KL"] < 0.1 * fresh and (tmp_path / "bell-0.safetensors").exists()


def test_pictures_are_means_of_four_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(3, 32)
    monkeypatch.setattr(ode.data, "load", lambda name, split: images)
    found = ode.small("train").images
    assert found.shape == (3, 3, 16, 16)
    assert abs(float(found[1, 2, 3, 4]) - float(images.images[1, 2, 6:8, 8:10].double().mean())) <= 0.5


@pytest.mark.parametrize("kind", ["ode", "rgflow"])
def test_both_kinds_train_score_and_keep(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {"train": photographs(40, 16), "test": photographs(20, 16, 1)}
    monkeypatch.setattr(ode, "small", lambda split: sets[split])
    model = ODEFlowConfig(size=16, widths=2, nhyper=2, rtol=0.1, atol=0.1, exact=3, exact_training=0)
    monkeypatch.setitem(ode.MODELS, "ode", model)
    monkeypatch.setitem(ode.MODELS, "rgflow", RGFlowConfig(size=16, net="plain", nlayers=1, nhidden=8))
    numbers = ode.main(ode.Options(kind=kind, minutes=0.02, images=20, moments=3, curve_images=5, out=tmp_path))
    kept = json.loads((tmp_path / f"images-{kind}-0.json").read_text())
    assert kept["numbers"] == numbers and kept["options"]["kind"] == kind
    assert 1.2 <= numbers["seconds"] < 4 and numbers["seconds per step"] * numbers["steps"] == pytest.approx(
        numbers["seconds"], abs=0.06
    )
    with open(tmp_path / f"images-{kind}-0.csv") as file:
        rows = file.read().splitlines()
    assert rows[0] == "step,seconds,bits/dim" and rows[-1].startswith(f"{numbers['steps']},")
    (tmp_path / "runs").symlink_to(tmp_path)
    seconds = curves(f"images-{kind}-{{}}", 0, tmp_path)["seconds"]
    assert (seconds[1:] >= seconds[:-1]).all() and seconds[-1] <= numbers["seconds"] + 0.1
    flow = rgflow.load(tmp_path / f"images-{kind}-0.safetensors")
    fine = flow.solved(**ode.FINE, probes=4) if kind == "ode" else flow
    assert evaluate(fine, sets["test"], batch_size=100).mean == pytest.approx(numbers["test bits/dim"], abs=1e-6)
    assert ("standard deviation over probes" in numbers) == (kind == "ode")


def test_the_family_is_of_one_size() -> None:
    counts = {kind: sum(p.numel() for p in build(config).parameters()) for kind, config in ode.MODELS.items()}
    for kind, count in counts.items():
        if not isinstance(ode.MODELS[kind], ODEFlowConfig):
            assert count == pytest.approx(counts["rgflow"], rel=0.11), kind
        assert ode.MODELS[kind].size in (16, (16, 16))


def test_scores_on_the_way_are_off_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {"train": photographs(40, 16), "test": photographs(20, 16, 1)}
    monkeypatch.setattr(ode, "small", lambda split: sets[split])
    monkeypatch.setitem(ode.MODELS, "rgflow", RGFlowConfig(size=16, net="plain", nlayers=1, nhidden=8))
    real, spent = ode.evaluate, []

    def slow(*arguments: object, **options: object) -> object:
        start = ode.seconds_of("processor")
        while ode.seconds_of("processor") < start + 0.4:
            pass
        spent.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(ode, "evaluate", slow)
    start = ode.seconds_of("processor")
    numbers = ode.main(ode.Options(kind="rgflow", minutes=0.02, images=20, moments=4, curve_images=5, out=tmp_path))
    assert len(spent) >= 4 and ode.seconds_of("processor") - start > 1.2 + 0.4 * len(spent)
    assert numbers["seconds"] == pytest.approx(1.2, abs=0.2)


def test_probes_change_the_score_by_their_spread_and_none_are_drawn_for_exact_levels() -> None:
    config = ODEFlowConfig(channels=1, size=6, widths=4, nhyper=2, solver="rk4", nsteps=4, exact=3, exact_training=0)
    flow = awake(build(config), torch.Generator().manual_seed(0), 0.3)
    tests = Pictures(torch.randint(0, 256, (30, 1, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8))
    one, many = (ode.scored(flow, tests, 30, n)["standard deviation over probes"] for n in (1, 64))
    assert one > 2 * many > 0
    exact = ode.scored(flow.solved(exact=36), tests, 30, 1)
    assert exact["standard deviation over probes"] == 0
