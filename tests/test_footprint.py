"""The memory benchmark counts what it says, and its formula holds where it can be checked."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import benchmark_files
import pytest
import torch

from rgflow import RealNVPConfig, RGFlowConfig, build, footprint

SPLINE = {"net": "plain", "coupling": "spline"}
REACHABLE = RGFlowConfig(size=16, nlayers=(4, 3, 2), nres=2, nhidden=128)


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    return benchmark_files.load("memory")


def test_peaks_by_hand() -> None:
    """Of tensors of 4000 bytes: the peak is where most of them live at once, transient ones too; views are no tensors
    of their own."""
    x = torch.ones(1000)
    with footprint.Alive([x]) as alive:
        y = x.exp() + 1  # two at once
        view = y.view(10, 100).t()
        del y, view
        z = x.exp()
    assert alive.peak([]) == 8000 and alive.peak([z]) == 8000
    with footprint.Alive([x]) as alive:
        z = x.exp()
        w = z.exp()
    assert alive.peak([]) == 8000 and alive.peak([z]) == 4000 and alive.peak([z, w]) == 0


def test_peaks_see_the_backward_pass() -> None:
    x = torch.ones(1000, requires_grad=True)
    with footprint.Alive([x]) as alive:
        x.exp().exp().sum().backward()
    # exp and exp of exp are saved; in the backward pass come a gradient and the product of both.
    assert 12000 <= alive.peak([x.grad]) <= 16100


def test_saved_by_hand() -> None:
    x = torch.ones(1000, requires_grad=True)
    assert footprint.saved(lambda: x.exp().exp(), [x]) == 8000
    assert footprint.saved(lambda: (x * x).t(), [x]) == 0
    assert footprint.saved(lambda: x * x.exp(), []) == 8000


@pytest.mark.parametrize(
    "change", [{}, {"tied": False}, {"net": "plain"}, {"share_levels": True, "nlayers": 2}, SPLINE]
)
def test_weights_are_counted(change: dict) -> None:
    config = replace(REACHABLE, **change)
    assert footprint.predict(config, 2)["weights"] == 4 * sum(p.numel() for p in build(config).parameters())


THIN = {"nhidden": 16, "nres": 1, "nmlp": 1, "nlayers": 3, "repeat": 3}  # what counts is the lattices


@pytest.mark.parametrize("change", [{}, {"tied": False, "stream": "full"}, {"net": "plain"}, SPLINE, THIN])
def test_the_formula_holds(memory, change: dict) -> None:
    config = replace(REACHABLE, **change)
    predicted, x = footprint.predict(config, 24), torch.randn(24, 3, 16, 16)
    for mode in footprint.MEMORY if "coupling" not in change else ("store",):  # of splines not all is in the formula
        peak = footprint.step_peak(memory.awake(build(replace(config, memory=mode))), x)
        assert predicted[mode] == pytest.approx(peak, rel=0.12), mode


def test_the_papers_batch_fits() -> None:
    predicted = footprint.predict(RGFlowConfig(), 1024)
    assert predicted["weights"] == 4 * 92_758_400
    assert predicted["total reversible"] < predicted["total checkpoint"] < 24 * 2**30 < predicted["total store"]


def test_it_runs(memory, capsys, tmp_path) -> None:
    numbers = memory.main(memory.Options(config="tiny", rounds=2, out=tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text())["numbers"] == numbers
    printed = capsys.readouterr().out
    assert "'threads': 1" in printed and "batch 1024" in printed
    assert numbers["reversible"] <= 1.2 < 2 < numbers["store"]
    assert numbers["reversible 4x saved"] == numbers["reversible 1x saved"]
    assert numbers["reversible 4x difference"] < 1e-3 and numbers["store 1x difference"] == 0


def test_bytes_of_tensors_without_contents(memory) -> None:
    """--bare counts what is counted on the CPU, and the same gradients; only times are missing."""
    options = memory.Options(config="tiny", rounds=2)
    whole, bare = memory.main(options), memory.main(replace(options, bare=True))
    assert set(whole) - set(bare) == {f"{mode} {factor}x time" for mode in footprint.MEMORY for factor in (1, 4)}
    for name, value in bare.items():
        if name.endswith(("peak", "saved")):
            assert value == pytest.approx(whole[name], rel=0.01), name
    assert bare["checkpoint 4x difference"] == 0 < bare["reversible 4x difference"] < 1e-3


def test_a_wrong_gradient_is_seen(memory) -> None:
    flow, x = memory.awake(build(memory.CONFIGS["tiny"][0])), torch.randn(2, 1, 8, 8)
    memory.step(flow, x)
    right = [p.grad.clone() for p in flow.parameters()]
    assert memory.difference(flow, x, right) == 0
    wrong = [g * 1.01 for g in right]
    assert memory.difference(flow, x, wrong) == pytest.approx(0.01 / 1.01, rel=1e-3)


def test_what_it_cannot_predict_is_named() -> None:
    with pytest.raises(ValueError, match="affine or spline couplings are predicted, not autoregressive"):
        footprint.predict(RGFlowConfig(coupling="autoregressive", nhidden=48), 4)
    with pytest.raises(ValueError, match="are predicted, not RealNVPConfig"):
        footprint.predict(RealNVPConfig(), 4)


def test_it_leaves_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    footprint.predict(RGFlowConfig(size=8, nlayers=1, nhidden=8), 4)
    assert torch.equal(torch.rand(1), expected)
