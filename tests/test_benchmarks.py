"""The benchmarks run, and count what they say they count."""

from __future__ import annotations

import json
import os
from types import ModuleType

import benchmark_files
import pytest
import torch

from rgflow import RGFlowConfig


@pytest.fixture(scope="module")
def step() -> ModuleType:
    return benchmark_files.load("step")


def test_products_by_hand(step) -> None:
    """8 x 8, one channel, blocks of 4: d/2 = 8; 4 blocks on level 0 and 1 on level 1, for each of 5 images."""
    config = RGFlowConfig(channels=1, size=8, nlayers=(3, 2), nres=2, nmlp=2, nhidden=16)
    # Disentangler and decimator, both halves, layers; s and t; residual blocks; forward and twice backward.
    fine, coarse = 2 * 2 * 3 * 2 * 2 * 3, 2 * 2 * 2 * 2 * 2 * 3
    assert step.products(config, 5) == [
        (fine, 20, 8, 16),
        (fine, 20, 16, 16),
        (fine, 20, 16, 8),
        (coarse, 5, 8, 16),
        (coarse, 5, 16, 16),
        (coarse, 5, 16, 8),
    ]


def test_true_products_are_those_of_a_step(step) -> None:
    """Counted by torch itself: the list's numbers of operations, and those of the shapes of a step, are the same."""
    from torch.utils.flop_counter import FlopCounterMode

    config, batch = step.CONFIGS["tiny"]
    listed = step.products(config, batch)
    tensors = {shape: torch.randn(shape) for _, r, i, o in listed for shape in ((r, i), (i, o), (r, o))}
    flow = step.build(config)
    counts = []
    for run in (
        lambda: step.run_products(listed, tensors),
        lambda: step.run_true_products(listed, tensors),
        lambda: flow.bits_per_dim(torch.zeros(batch, *flow.shape, dtype=torch.uint8)).mean().backward(),
    ):
        with FlopCounterMode(display=False) as counter:
            run()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == counts[2] == 2 * sum(n * r * i * o for n, r, i, o in listed)


CACHE = "TORCHINDUCTOR_CACHE_DIR"


def test_it_compiles_without_kernels_kept_from_earlier(step, monkeypatch) -> None:
    seen = []
    monkeypatch.setenv(CACHE, "kept")
    monkeypatch.setattr(step, "compile_flow", lambda flow, batch: seen.append(os.listdir(os.environ[CACHE])) or 1.5)
    median = step.main(step.Options(config="tiny", compile=True, clock="cpu", rounds=2))
    assert seen == [[]] and median["compilation"] == 1.5 and os.environ[CACHE] == "kept"


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_it_runs(step, precision, capsys, tmp_path) -> None:
    options = step.Options(config="tiny", precision=precision, clock="cpu", rounds=3, out=tmp_path / "kept" / "a.json")
    median = step.main(options)
    ratios = {"step / products", "step / true products", "decode / encode"}
    assert set(median) == {"products", "true products", "step", "encode", "decode"} | ratios
    assert all(value > 0 for value in median.values())
    assert "'threads': 1" in capsys.readouterr().out
    kept = json.loads(options.out.read_text())
    assert kept["numbers"] == median and kept["options"]["precision"] == precision
    assert kept["hardware"]["threads"] == 1 and kept["commit"]


@pytest.mark.parametrize("seconds", [12.5, None])
def test_compile_states_its_seconds_or_that_it_failed(step, seconds, monkeypatch, capsys) -> None:
    monkeypatch.setattr(step, "compile_flow", lambda flow, batch: seconds)
    step.main(step.Options(config="tiny", compile=True, rounds=2))
    assert ("12.5 s" if seconds else "failed: these are the plain couplings") in capsys.readouterr().out


def test_data_speed_runs_and_draws_the_same_pictures() -> None:
    module = benchmark_files.load("data")
    assert set(module.main(module.Options(images=20, pillow=3, rounds=2))) == {"msds1", "msds2", "Pillow"}
    images, labels = module.synthetic.msds1(3, torch.Generator().manual_seed(0))
    drawn = torch.from_numpy(module.pillow(labels, 3)).permute(0, 3, 1, 2)
    assert (images.int() - drawn.int()).abs().max() <= 2
