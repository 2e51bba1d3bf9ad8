"""The benchmarks of chapter 08: levels, depth and scale measure what they say."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import benchmark_files
import numpy as np
import pytest
import torch

from rgflow import RGFlowConfig, build, load
from rgflow.batches import code_lengths, evaluate
from rgflow.contributions import converged
from rgflow.pictures import Pictures
from rgflow.pixels import to_logit

recorder, levels, depth, scale = (benchmark_files.load(name) for name in ("recorder", "levels", "depth", "scale"))


def photographs(n: int, size: int = 32, seed: int = 0) -> Pictures:
    """Smooth colours with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.arange(size) * 128 // size
    base = torch.randint(0, 100, (n, 3, 1, 1), generator=generator)
    grain = torch.randint(0, 8, (n, 3, size, size), generator=generator)
    return Pictures((base + ramp + grain).to(torch.uint8))


@pytest.fixture
def small_sets(monkeypatch):
    """Sets of a few pictures by the names of the large ones."""
    sets = {(size, split): photographs(n, size) for size in (32, 64) for split, n in (("train", 40), ("test", 6))}

    def load(name, split="train"):
        return sets[64 if name.endswith("64") else 32, split]

    monkeypatch.setattr("rgflow.data.load", load)
    return sets


def rows_of(path: Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_moments_by_hand() -> None:
    found = recorder.moments(3200)
    assert found[:9] == [0, 1, 2, 3, 4, 5, 6, 7, 8] and found[-2:] == [3100, 3200]
    assert {round(2 ** (k / 4)) for k in range(26)} <= set(found) and set(range(0, 3201, 100)) <= set(found)
    assert len(found) < 64 and recorder.moments(1) == [0, 1]


def test_levels_are_recorded_from_the_first_step_to_the_last(small_sets, tmp_path) -> None:
    options = levels.Options(data="patches32", steps=40, batch_size=4, nhidden=8, curve_images=6, out=tmp_path)
    numbers = levels.main(options)
    rows = rows_of(tmp_path / "patches32-falling-0.csv")
    assert [row["step"] for row in rows] == recorder.moments(40)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and 0 <= seconds[0] < seconds[-1]
    assert seconds[-1] == pytest.approx(numbers["seconds"], abs=0.06)  # rounded
    fresh = build(RGFlowConfig(nlayers=(4, 3, 2, 2), nres=1, nhidden=8), torch.Generator().manual_seed(0))
    tests = small_sets[32, "test"]
    ladj = to_logit(tests.images, generator=torch.Generator().manual_seed(1))[1].mean().item()
    whole = 8 - ladj / (3072 * np.log(2))  # of other noise, which hardly matters
    sums = [sum(row[f"level {h}"] for h in range(4)) for row in rows]
    assert whole + sums[0] == pytest.approx(evaluate(fresh, tests).mean, abs=0.02), "before the first step"
    assert whole + sums[-1] == pytest.approx(numbers["test bits/dim"], abs=0.02), "after the last"
    assert sums[-1] < sums[0] - 0.1, "it has learned"
    for level in range(4):
        curve = [row[f"level {level}"] for row in rows]
        for tolerance in (0.02, 0.05, 0.1):
            name = f"level {level} converged to {100 * tolerance:.0f} %, step"
            assert numbers[name] == converged(recorder.moments(40), curve, tolerance)
    kept = json.loads((tmp_path / "patches32-falling-0.json").read_text())
    assert kept["numbers"] == numbers and kept["options"]["layers"] == "falling"


def test_recording_changes_no_weight(small_sets, tmp_path) -> None:
    options = depth.Options(data="patches32", steps=12, batch_size=4, nhidden=8, curve_images=2, out=tmp_path)
    often = depth.main(options)
    once = recorder.record(RGFlowConfig(nlayers=1, nres=1, nhidden=8), replace(options, curve_images=6))[0]
    assert often["test bits/dim"] == once["test bits/dim"]


def test_depth_has_its_layers_and_sizes(small_sets, tmp_path) -> None:
    options = depth.Options(data="patches32", steps=2, batch_size=4, nhidden=16, curve_images=2, out=tmp_path)
    sizes = {n: depth.main(replace(options, nlayers=n))["parameters"] for n in (1, 2, 4)}
    assert sizes[4] == 4 * sizes[1] == 2 * sizes[2]
    wide = depth.main(replace(options, nlayers=1, as_large_as=4))
    assert abs(wide["parameters"] - sizes[4]) <= 0.02 * sizes[4]
    names = {path.name for path in tmp_path.glob("*.json")}
    assert names == {f"patches32-{n}-0.json" for n in ("1", "2", "4", "1as4")}
    with pytest.raises(ValueError, match="no nhidden gives 7 parameters within 2 %; the nearest is 1"):
        recorder.of_size(RGFlowConfig(nlayers=1, nres=1), 7)


def test_wider_networks_are_as_large_as_they_say() -> None:
    config = RGFlowConfig(nlayers=2, nres=1, nhidden=7)
    built = sum(p.numel() for p in build(config).parameters())
    assert recorder.parameter_count(config) == built
    assert recorder.of_size(replace(config, nhidden=3), built).nhidden == 7


# ---- one set of weights at several sizes


def awake(**options):
    """A flow with random weights in float64."""
    flow = build(RGFlowConfig(**{"channels": 1, "size": 8, "nlayers": 2, "nres": 1, "nhidden": 8, **options})).double()
    for weight in flow.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return flow.requires_grad_(False)


def test_quarters_by_hand() -> None:
    images = torch.arange(32).view(2, 1, 4, 4)
    found = scale.quarters(images)
    assert found.shape == (8, 1, 2, 2)
    assert found[:4].flatten(1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert found[4, 0, 0, 0] == 16


def test_shared_flow_is_one_more_step_of_itself() -> None:
    """C15 (a): at twice the edge a step of the same weights comes first, and the rest is the flow as it was."""
    flow = awake(share_levels=True)
    large, x = flow.resized(16), torch.randn(2, 1, 16, 16, dtype=torch.float64)
    y, ladj = flow.bijector.step(0)(x)
    z, rest = flow.encode(y[..., ::2, ::2])
    found, total = large.encode(x)
    torch.testing.assert_close(found[..., ::2, ::2], z, rtol=0, atol=1e-12)
    torch.testing.assert_close(total, ladj + rest, rtol=0, atol=1e-10)
    assert (z - x[..., ::2, ::2]).abs().max() > 0.1, "the identity would prove nothing"


def test_repeated_levels_are_those_that_are_named() -> None:
    flow = awake(size=16)
    for level, order in ((0, [0, 0, 1, 2]), (2, [0, 1, 2, 2])):
        large = scale.repeated(flow, level)
        assert [flow.bijector.steps[k] for k in order] == list(large.bijector.steps) and large.shape == (1, 32, 32)
        z = torch.randn(1, 1, 32, 32, dtype=torch.float64)
        torch.testing.assert_close(large.encode(large.decode(z)[0])[0], z, rtol=0, atol=1e-9)
    assert len(flow.bijector.steps) == 3, "the flow itself stays"


def test_quarters_have_the_noise_of_the_whole() -> None:
    """Under a flow that is the identity, pixels are independent: whole and quarters cost the same, pixel by pixel."""
    fresh = build(RGFlowConfig(channels=3, size=32, nlayers=1, nres=1, nhidden=4, share_levels=True)).double()
    images = photographs(5, 64)
    whole, parts, pixels = scale.whole_and_quarters(fresh.resized(64), fresh, images, seed=3, batch_size=2)
    torch.testing.assert_close(whole.sum(1), parts.sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(whole[:, :3], parts[:, :3], rtol=0, atol=1e-12)
    lengths = code_lengths(fresh.resized(64), images, seed=3)
    torch.testing.assert_close(whole.sum(1) + pixels, lengths, rtol=0, atol=1e-12)
    numbers = scale.carried("64", fresh.resized(64), fresh, images, seed=3)
    assert numbers["64: new latents, bits each"] == pytest.approx(0, abs=1e-9)
    assert numbers["64: bits/dim"] == pytest.approx(lengths.mean().item()) and numbers["64: pieces not finite"] == 0


def test_what_is_new_is_counted_for_each_new_latent() -> None:
    """A top step that doubles all latents of the whole is seen in them alone: -log p of twice z less log 2 each."""
    small = build(RGFlowConfig(size=32, nlayers=1, nres=1, nhidden=4, prior="gaussian")).double().requires_grad_(False)
    images = photographs(3, 64)
    large = scale.repeated(small, 3)
    plain = scale.carried("x", large, small, images, seed=0)

    class Doubled(torch.nn.Module):
        def forward(self, x):
            return 2 * x, x.new_full((len(x),), x[0].numel() * math.log(2))

    large.bijector.steps[4] = Doubled()
    numbers = scale.carried("x", large, small, images, seed=0)
    x = torch.cat([images[k][0][None] for k in range(3)])
    u = scale.to_logit(x, scale.noise(x, 0, 0, torch.arange(3), torch.float64), dtype=torch.float64)[0][..., ::16, ::16]
    cost = (1.5 * u.square() / math.log(2)).sum((1, 2, 3)) - u[0].numel()  # of the 48 latents of the top
    added = numbers["x: new latents, bits each"] - plain["x: new latents, bits each"]
    assert added == pytest.approx(cost.mean().item() / 192, rel=1e-9) and added > 0.1
    for level in range(3):
        assert numbers[f"x: whole, level {level}, bits/dim"] == plain[f"x: whole, level {level}, bits/dim"]
    assert "x: new latents, bits each" not in scale.carried("x", scale.repeated(small, 0), small, images, seed=0)


TINY = {"steps": 4, "batch_size": 4, "nlayers": 1, "nhidden": 8, "samples": 9}


@pytest.mark.parametrize(
    ("kind", "sizes", "names"),
    [
        ("shared", "32", ("32", "64", "128")),
        ("shared", "32 64", ("32", "64", "128")),
        ("shared", "64", ("32", "64", "128")),
        ("unshared", "32", ("32", "finest twice 64", "level 2 twice 64", "top twice 64")),
        ("narrow", "32", ("32", "finest twice 64", "level 2 twice 64", "top twice 64")),
        ("unshared", "64", ("64",)),
    ],
)
def test_scale_runs_and_keeps_what_it_says(small_sets, tmp_path, kind, sizes, names) -> None:
    width = 96 if kind == "narrow" else 8
    settings = {**TINY, "nhidden": width, "out": tmp_path, "flows": tmp_path / "flows"}
    numbers = scale.main(scale.Options(kind=kind, sizes=sizes, **settings))
    name = f"{kind}-{sizes.replace(' ', 'then')}-0"
    assert json.loads((tmp_path / f"{name}.json").read_text())["numbers"] == numbers
    with np.load(tmp_path / f"{name}.npz") as pictures:
        assert sorted(pictures.files) == sorted(names)
        assert {pictures[key].shape[-1] for key in names} == {int(key.split()[-1]) for key in names}
    for key in names:
        assert numbers[f"{key}: slope low"] <= numbers[f"{key}: slope"] <= numbers[f"{key}: slope high"]
        if key.endswith("64") and len(names) > 1:
            less = numbers[f"{key}: bits/dim"] - numbers[f"{key}: quarters, bits/dim"]
            assert numbers[f"{key}: less quarters, bits/dim"] == pytest.approx(less)
            assert ("new latents" in str(numbers)) and numbers[f"{key}: pieces not finite"] == 0
            new = [numbers[f"{key}: whole, level {h}, bits/dim"] for h in (3, 4)]
            if not key.startswith("finest"):
                each = 64 * (sum(new) - numbers[f"{key}: quarters, level 3, bits/dim"])
                assert numbers[f"{key}: new latents, bits each"] == pytest.approx(each)
        assert numbers[f"{key}: slope, scaled band"] < 1
    assert (tmp_path / f"{name}.safetensors").exists() == (kind == "shared")
    assert (tmp_path / "flows" / f"{name}.safetensors").exists()
    assert all(0 <= numbers[f"{key}: samples of one colour"] <= 16 for key in names)
    if kind == "shared":
        flow = load(str(tmp_path / f"{name}.safetensors")).resized(32)
        assert numbers["32: bits/dim"] == pytest.approx(code_lengths(flow, small_sets[32, "test"]).mean().item())
        fresh = build(flow.config, torch.Generator().manual_seed(0))
        assert numbers["32: bits/dim"] < code_lengths(fresh, small_sets[32, "test"]).mean() - 1e-3, "it has learned"


def test_samples_without_spectrum_are_counted(small_sets, monkeypatch) -> None:
    flow = build(RGFlowConfig(size=32, nlayers=1, nres=1, nhidden=4, share_levels=True)).requires_grad_(False)
    some = to_logit(photographs(8).images, generator=torch.Generator().manual_seed(0))[0]
    some[:3], some[3, 0, 0, 0] = 1e9, float("nan")
    monkeypatch.setattr(flow, "sample", lambda *_: some)
    numbers = scale.measure({"32": flow}, scale.Options(samples=16))
    assert numbers["32: samples of one colour"] == 6 and numbers["32: samples not finite"] == 2
    assert numbers["32: slope low"] <= numbers["32: slope"] < 0
    for worst, counts in ((1e9, (16, 0)), (float("nan"), (0, 16))):
        some[:] = worst
        numbers = scale.measure({"32": flow}, scale.Options(samples=16))
        assert (numbers["32: samples of one colour"], numbers["32: samples not finite"]) == counts
        assert "32: slope" not in numbers and "32: bits/dim" in numbers


def test_narrow_flows_are_as_large_as_shared_ones(small_sets) -> None:
    options = scale.Options(**{**TINY, "nhidden": 96, "steps": 1})
    sizes = [scale.parameter_count(scale.train(replace(options, kind=kind))[0].config) for kind in ("shared", "narrow")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
    with pytest.raises(ValueError, match="sizes '32 64' go with kind shared only, not unshared"):
        scale.train(replace(options, kind="unshared", sizes="32 64"))


def test_the_second_size_goes_on_with_the_weights_of_the_first(small_sets) -> None:
    options = scale.Options(**{**TINY, "sizes": "32 64"})
    both = dict(scale.train(options)[0].named_parameters())
    alone = dict(scale.train(replace(options, sizes="32", steps=2))[0].named_parameters())
    fresh = dict(scale.train(replace(options, sizes="64", steps=2))[0].named_parameters())
    for other in (alone, fresh):
        assert any(not torch.equal(both[name], other[name]) for name in both)
