"""The study of learning speed: its clock, its curve, and that each recipe is one that can be built."""

import contextlib
import json
import os
import types
from dataclasses import replace

import benchmark_files
import pytest
import torch

from rgflow import RGFlowConfig, build
from rgflow.batches import evaluate
from rgflow.pictures import Pictures
from rgflow.recipes import TrainConfig, divided

learning = benchmark_files.load("learning")
TINY = {"nlayers": 1, "nhidden": 8, "net": "plain", "batch_size": 4, "lr": 1e-2, "ema": 0.9}


def ramps(n: int) -> Pictures:
    ramp = torch.arange(8).view(1, 1, 1, 8) * torch.arange(1, n + 1).view(n, 1, 1, 1) % 256
    return Pictures(ramp.expand(n, 1, 8, 8).to(torch.uint8).contiguous())


@pytest.mark.parametrize("name", learning.RECIPES)
def test_each_recipe_can_be_built_and_names_known_settings_only(name):
    settings = learning.RECIPES[name]
    of_model, of_training = divided(settings)
    assert len(of_model) + len(of_training) == len(settings)
    RGFlowConfig(**of_model)
    TrainConfig(**of_training)


def test_an_ingredient_alone_differs_from_the_original_by_itself():
    original = learning.RECIPES["original"]
    changed = {
        name: {key for key in settings.keys() | original.keys() if settings.get(key) != original.get(key)}
        for name, settings in learning.RECIPES.items()
    }
    assert changed["plain"] == {"net", "tied"} and changed["spline"] == {"net", "tied", "coupling"}
    assert changed["whitened"] == {"linear"} and changed["batch"] == {"batch_size"}
    assert changed["schedule"] == {"lr", "schedule", "warmup_steps", "ema"}
    assert changed["original"] == set()


def test_moments_start_at_once_and_stay_within_the_run():
    times = learning.moments(12)
    assert times[0] == 0 and 15.0 in times and times == sorted(times) and 600 < times[-1] < 720
    assert learning.moments(0.1) == [0.0, 5.0]


def test_a_curve_is_that_of_the_weights_at_its_times(monkeypatch, tmp_path):
    images, tests = ramps(24), ramps(9)
    monkeypatch.setattr(learning, "moments", lambda minutes: [0.0, 0.5 * 60 * minutes])
    options = learning.Options(minutes=0.02, final_images=9, curve_images=9, samples=3)
    rows, conditions, pictures = learning.train(TINY, options, images, tests)
    assert len(rows) == 2 and rows[0][1] == 1 and 0 < rows[0][0] < rows[1][0] <= conditions["seconds"]
    assert rows[1][2] < rows[0][2] - 0.05 and conditions["test_bits_per_dim"] < rows[0][2]
    assert rows[0][2] == pytest.approx(evaluate(build(RGFlowConfig(1, 8, nlayers=1, nhidden=8)), tests).mean, abs=1)
    assert pictures.shape == (2, 3, 1, 8, 8) and not torch.equal(pictures[0], pictures[1])
    assert conditions["test_images"] == 9 and conditions["steps"] >= rows[1][1] and conditions["training"]["ema"] == 0.9


def test_what_is_kept_of_the_weights_is_what_would_be_scored():
    flow = build(RGFlowConfig(1, 8, nlayers=1, nhidden=8))
    weight = next(flow.parameters())

    @contextlib.contextmanager
    def scored():
        before = weight.detach().clone()
        weight.data.fill_(7)
        yield
        weight.data.copy_(before)

    snapshots = learning.Snapshots([0.0, 5.0, 10.0])
    for step, seconds in enumerate((1.0, 4.0, 12.0, 13.0)):
        module = types.SimpleNamespace(seconds=seconds, flow=flow, scored=scored)
        snapshots.on_train_batch_end(types.SimpleNamespace(global_step=step), module, None, None, 0)
    assert [(seconds, step) for seconds, step, _ in snapshots.kept] == [(1.0, 0), (12.0, 2)]
    name = next(iter(flow.state_dict()))
    assert all((state[name] == 7).all() for _, _, state in snapshots.kept) and not (weight == 7).all()


def test_what_it_writes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(learning.data, "load", lambda name, split: ramps(24))
    monkeypatch.setitem(learning.RECIPES, "fast", TINY)
    options = learning.Options(minutes=0.01, final_images=5, curve_images=5, samples=2, out=tmp_path)
    learning.main(options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast-0.csv", "fast-0.json", "fast-0.npz"]
    lines = (tmp_path / "fast-0.csv").read_text().splitlines()
    assert lines[0] == "seconds,step,test_bits_per_dim" and len(lines) >= 3
    written = json.loads((tmp_path / "fast-0.json").read_text())
    assert written["hardware"]["threads"] == torch.get_num_threads() == replace(options).threads
    assert written["test_images"] == 5 and f"{written['test_bits_per_dim']:.4f}" in capsys.readouterr().out


def test_it_compiles_without_kernels_kept_from_earlier(monkeypatch):
    seen = []

    def note(*args, **kwargs):
        seen.append(os.listdir(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        raise StopIteration

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "kept")
    monkeypatch.setattr(learning, "fit", note)
    with pytest.raises(StopIteration):
        learning.train(TINY, learning.Options(compile=True), ramps(8), ramps(3))
    assert seen == [[]] and os.environ["TORCHINDUCTOR_CACHE_DIR"] == "kept"
