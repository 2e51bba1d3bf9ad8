"""The benchmarks of inpainting run, and measure what they say they measure."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import ModuleType

import benchmark_files
import pytest
import torch

from rgflow import RealNVPConfig, RGFlowConfig, build, checkpoints
from rgflow.batches import Indexed
from rgflow.pictures import Pictures


@pytest.fixture(scope="module")
def fills() -> ModuleType:
    return benchmark_files.load("fills")


def test_counts_and_gradients_agree(capsys, tmp_path) -> None:
    inpaint = benchmark_files.load("inpaint")
    out = tmp_path / "a.json"
    options = inpaint.Options(sizes=(32, 64), candidates=(2,), nlayers=1, nhidden=8, rounds=2, out=out)
    numbers = inpaint.main(options)
    assert (numbers["blocks 32"], numbers["blocks 64"], numbers["latents 32"]) == (31, 44, 732)
    assert max(value for name, value in numbers.items() if name.startswith("gradient")) < 1e-4
    flow = inpaint.random_flow(inpaint.Options())
    x = torch.randn(1, *flow.shape, generator=torch.Generator().manual_seed(0))
    assert (flow.encode(x)[0] - x).std() > 0.1, "gradients of the identity always agree"
    assert {"full 64 / local 64", "full 32 x2 / local 32 x2", "full 32 half / local 32 half"} <= set(numbers)
    assert json.loads(out.read_text())["numbers"]["blocks 64"] == 44
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("blocks 32")]
    assert lines[0].endswith("goal 31 to 31: met")


def test_psnr_by_hand(fills) -> None:
    true = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    found = true.clone()
    found[1, 0, 0, 0], found[2] = 2, 255
    expected = [10 * math.log10(255**2 / 0.25), 10 * math.log10(255**2 / 1.0), 0.0]
    assert fills.psnr(found, true).tolist() == pytest.approx(expected)


def test_holes_without_contrast_are_passed_over(fills) -> None:
    images = torch.zeros(60, 3, 8, 8, dtype=torch.uint8)
    images[:, 0] = 255  # one colour
    images[::3, 1] = torch.arange(0, 256, 4, dtype=torch.uint8).view(8, 8)
    options = fills.Options(rgflow="a", realnvp="b", holes=3, images=4, edge=4)
    found = list(fills.pairs(Indexed(Pictures(images)), options))
    assert len(found) == 3 and len({box for box, _ in found}) > 1
    for box, chosen in found:
        assert len(chosen) == 4 and box[2:] == (4, 4) and max(box[:2]) <= 4
        assert (chosen[:, 1].flatten(1).max(1).values > 0).all(), "only those with a gradient"
    with pytest.raises(ValueError, match="60 images are too few for 10 x 4 holes with contrast"):
        list(fills.pairs(Indexed(Pictures(images)), fills.Options(rgflow="a", realnvp="b", holes=10, images=4, edge=4)))


@pytest.fixture
def small_fills(fills, tmp_path, monkeypatch):
    """Options of a run that takes a second."""
    small = {"channels": 3, "size": 32, "nres": 1, "nhidden": 4}
    for name, config in (("a", RGFlowConfig(nlayers=1, **small)), ("b", RealNVPConfig(**small))):
        checkpoints.save(build(config, torch.Generator().manual_seed(0)), tmp_path / f"{name}.safetensors", {})
    images = torch.randint(0, 256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    monkeypatch.setattr(fills.data, "load", lambda name, split: Pictures(images))
    paths = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    return fills.Options(
        rgflow=paths[0], realnvp=paths[1], holes=2, images=2, starts=3, steps=3, out=tmp_path / "fills.json"
    )


def test_fills_that_were_stopped_go_on(fills, small_fills, tmp_path, monkeypatch) -> None:
    whole = fills.main(small_fills)
    assert [path.name for path in tmp_path.glob("*.part")] == []
    later, at_place, done = replace(small_fills, out=tmp_path / "later.json"), fills.at_place, []

    def killed(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(arguments[5])
        return at_place(*arguments)

    monkeypatch.setattr(fills, "at_place", killed)
    with pytest.raises(KeyboardInterrupt):
        fills.main(later)
    monkeypatch.setattr(fills, "at_place", lambda *arguments: done.append(arguments[5]) or at_place(*arguments))
    with pytest.raises(ValueError, match="later.part is of .*steps=3.*, not .*steps=4"):
        fills.main(replace(later, steps=4))
    numbers = fills.main(later)
    assert len(done) == len(set(done)) == 2, "each place once, with a seed of its own"
    assert {k: v for k, v in numbers.items() if "seconds" not in k} == {
        k: v for k, v in whole.items() if "seconds" not in k
    }


def test_fills_run_and_keep_what_they_say(fills, small_fills, tmp_path) -> None:
    numbers = fills.main(small_fills)
    assert numbers["images"] == 4 and numbers["RG-Flow in its cone: steps"] == 3
    difference = numbers["RG-Flow in its cone: psnr"] - numbers["biharmonic: psnr"]
    assert numbers["RG-Flow less biharmonic: psnr"] == pytest.approx(difference)
    assert numbers["biharmonic: psnr low"] <= numbers["biharmonic: psnr"] <= numbers["biharmonic: psnr high"]
    with fills.np.load(tmp_path / "fills.npz") as kept:
        true, boxes = torch.from_numpy(kept["true"]), kept["boxes"]
        for name in fills.METHODS:
            filled = torch.from_numpy(kept[name])
            for image, other, (top, left, height, width) in zip(filled, true, boxes):
                outside = torch.ones(32, 32, dtype=torch.bool)
                outside[top : top + height, left : left + width] = False
                assert torch.equal(image[:, outside], other[:, outside])
            holes = [filled[k, :, t : t + h, x : x + w] for k, (t, x, h, w) in enumerate(boxes)]
            truth = [true[k, :, t : t + h, x : x + w] for k, (t, x, h, w) in enumerate(boxes)]
            expected = fills.psnr(torch.stack(holes), torch.stack(truth))
            assert kept[f"{name}: psnr"].tolist() == pytest.approx(expected.tolist())
        assert kept["latents"].min() > 500
        gap = kept["Real NVP: gap"]  # a fresh flow is a standard normal density: smaller pixels are likelier
        assert gap.shape == (4,) and (gap > 0).all()


def test_samples_that_are_covered_by_hand() -> None:
    posterior = benchmark_files.load("posterior")
    samples = torch.arange(101, dtype=torch.uint8)[:, None].expand(101, 4)  # the central 90 % are 5 to 95
    assert posterior.covered(samples, torch.tensor([4, 5, 95, 96], dtype=torch.uint8)) == 0.5


def test_posterior_runs_and_keeps_what_it_says(tmp_path, monkeypatch) -> None:
    """A fresh flow with a Gaussian prior: pixels of the hole are independent of the rest, and known."""
    posterior = benchmark_files.load("posterior")
    config = RGFlowConfig(channels=1, size=16, nlayers=1, nres=1, nhidden=4, prior="gaussian")
    checkpoints.save(build(config), tmp_path / "a.safetensors", {})
    images = torch.randint(0, 256, (9, 1, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    monkeypatch.setattr(posterior.data, "load", lambda name, split: Pictures(images))
    out = tmp_path / "p.json"
    options = posterior.Options(
        model=str(tmp_path / "a.safetensors"), holes=2, edge=2, n=128, steps=8, shown=3, out=out
    )
    numbers = posterior.main(options)
    assert numbers["holes"] == 2 and json.loads(out.read_text())["numbers"] == numbers
    assert abs(numbers["samples, sd"] - math.sqrt(4 / 2)) < 0.5, "of half a chi square of four pixels"
    assert abs(numbers["mode less samples"] - 4 / 2) < 0.5, "of its mean"
    with posterior.np.load(tmp_path / "p.npz") as kept:
        assert kept["samples"].shape == (2, 3, 1, 16, 16) and kept["covered"].shape == (2,)
        for box, true, samples, spread in zip(kept["boxes"], kept["true"], kept["samples"], kept["spread"]):
            outside = posterior.np.ones((16, 16), bool)
            outside[box[0] : box[0] + 2, box[1] : box[1] + 2] = False
            assert (samples[:, :, outside] == true[:, outside]).all() and (spread[outside] == 0).all()
            assert (spread[~outside] > 30).all()
