"""Flows of neural ODEs: the verbs of a flow in one, two and three dimensions, their files, their training."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from bijectors import wake_up
from torch.testing import assert_close

import rgflow
from rgflow import ODEFlowConfig, build
from rgflow.batches import noise
from rgflow.flow import Flow
from rgflow.penalties import penalised
from rgflow.pictures import Pictures
from rgflow.train import TrainConfig, fit

SMALL = ODEFlowConfig(channels=1, size=(2, 3), widths=3, nhyper=2, solver="rk4", nsteps=4)


def woken(config: ODEFlowConfig, std: float = 0.3) -> Flow:
    return wake_up(build(config), std)


def test_a_fresh_flow_is_the_identity_and_its_weights_come_from_the_generator() -> None:
    first, again, other = (build(SMALL, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    x = torch.randn(2, 1, 2, 3)
    z, ladj = first.encode(x)
    assert torch.equal(z, x) and not ladj.any()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("size", [(5,), (2, 3), (2, 1, 2)])
def test_the_verbs_in_one_to_three_dimensions(double: None, size: tuple[int, ...]) -> None:
    flow = woken(replace(SMALL, size=size, nsteps=8), 0.2)
    x, log_prob = flow.sample_and_log_prob(3, generator=torch.Generator().manual_seed(0))
    assert x.shape == (3, 1, *size)
    assert_close(flow.log_prob(x), log_prob, rtol=0, atol=1e-4)
    assert_close(flow.log_prob_by_level(x).sum(1), flow.log_prob(x))
    levels = int(flow.levels.max()) + 1
    assert flow.log_prob_by_level(x).shape == (3, levels) and flow.lattices(x)[-1].shape == x.shape
    hot = [0.5] * (levels - 1) + [2.0]
    z, plain = (flow.sample_latents(4, t, torch.Generator().manual_seed(1)) for t in (hot, 1.0))
    assert_close(z, plain * torch.tensor(hot)[flow.levels].sqrt())


@pytest.mark.parametrize(("size", "stride"), [((5,), 2), ((4, 7), 3), ((2, 1, 2), 2)])
def test_coarse_flows_are_the_upper_steps(double: None, size: tuple[int, ...], stride: int) -> None:
    flow = woken(replace(SMALL, size=size, stride=stride), 0.2)
    z = torch.randn(3, *flow.shape)
    images = flow.lattices(z)[::-1]
    contributed = flow.log_prob_by_level(images[0])
    for level, edges in enumerate(flow.config.sizes):
        coarse = flow.coarse(level)
        assert coarse.config == replace(flow.config, size=edges) and coarse.shape == (1, *edges)
        assert_close(coarse.log_prob(images[level]), contributed[:, level:].sum(1), rtol=0, atol=1e-3)
        again = build(coarse.config)
        again.load_state_dict(coarse.state_dict())
        assert torch.equal(again.log_prob(images[level]), coarse.log_prob(images[level]))


@pytest.mark.parametrize("prior", ["gaussian", "laplace"])
def test_total_probability_is_one(double: None, prior: str) -> None:
    flow = woken(replace(SMALL, size=(2,), prior=prior), 0.25)
    axis = torch.linspace(-10, 10, 120)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis)[:, None]).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=5e-3)


def test_a_file_gives_back_the_flow_bit_by_bit(tmp_path: Path) -> None:
    flow, x = woken(replace(SMALL, exact=1, solver="dopri5")), torch.randn(2, 1, 2, 3)
    rgflow.save(flow, tmp_path / "ode.safetensors")
    again = rgflow.load(tmp_path / "ode.safetensors")
    assert again.config == flow.config and torch.equal(again.log_prob(x), flow.log_prob(x))


def test_there_are_no_cones_and_no_other_size() -> None:
    flow = build(SMALL)
    assert not flow.has_cones
    with pytest.raises(ValueError, match="no blocks and no causal cones"):
        _ = flow.geometry
    with pytest.raises(ValueError, match="share_levels"):
        flow.resized(4)
    with pytest.raises(ValueError, match="images must be"):
        build(replace(SMALL, size=(4,))).bits_per_dim(torch.zeros(2, 1, 4, dtype=torch.uint8))


TRAINED = ODEFlowConfig(channels=1, size=2, widths=2, nhyper=2, solver="euler", nsteps=1, exact_training=0, kinetic=0.1)
QUIET = {"batch_size": 4, "quiet": True, "plot_epoch": 0, "lr": 1e-2}


def pictures(n: int = 10) -> Pictures:
    return Pictures(torch.randint(0, 256, (n, 1, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8))


class Stop(pl.Callback):
    """Ends a run the hard way after some steps; keeps the losses on the way."""

    def __init__(self, after: int = -1) -> None:
        self.after, self.losses = after, []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: dict, *_: object) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.after:
            raise RuntimeError("killed")


def test_a_run_goes_on_with_the_probes_it_would_have_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rgflow.callbacks.tensorboard", lambda folder, step: None)
    recipe = TrainConfig(**QUIET, steps=5, save_minutes=1e-9, out_dir=str(tmp_path / "a"))
    whole, spy = build(TRAINED, torch.Generator().manual_seed(0)), Stop()
    fit(whole, pictures(), None, recipe, callbacks=[spy])
    recipe, parts = replace(recipe, out_dir=str(tmp_path / "b")), [Stop(3), Stop()]
    with pytest.raises(RuntimeError, match="killed"):
        fit(build(TRAINED, torch.Generator().manual_seed(0)), pictures(), None, recipe, callbacks=[parts[0]])
    again = build(TRAINED, torch.Generator().manual_seed(7))
    fit(again, pictures(), None, recipe, callbacks=[parts[1]])
    assert parts[0].losses + parts[1].losses == spy.losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_loss_is_nats_per_dimension_and_penalties() -> None:
    flow, images, spy = woken(replace(TRAINED, exact_training=4)), pictures(4), Stop()
    before = deepcopy(flow)
    fit(flow, images, None, TrainConfig(**QUIET, steps=1, out_dir=""), callbacks=[spy])
    draw = noise(images.images, 0, 0, torch.arange(4), torch.float32)
    with penalised(before) as penalties:
        bits = before.bits_per_dim(images.images, draw).mean()
    assert float(penalties.mean()) > 0.1
    assert spy.losses == [pytest.approx(float(bits * math.log(2) + penalties.mean() / 4), rel=1e-5)]


def test_solving_otherwise_leaves_random_numbers_alone():
    flow = build(ODEFlowConfig(channels=1, size=(4,), widths=2, nhyper=0))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    flow.solved(rtol=1e-2)
    assert torch.equal(torch.rand(1), expected)


def test_what_cannot_be_saved_is_found_out_before_training(tmp_path):
    pictures = Pictures(torch.zeros(8, 1, 4, 4, dtype=torch.uint8))
    config = rgflow.RGFlowConfig(channels=1, size=4, nlayers=1, net="plain", nhidden=4)
    recipe = TrainConfig(steps=1, batch_size=4, quiet=True, eval_epoch=0, out_dir=str(tmp_path))
    bare = Flow(build(config).bijector, build(config).prior)
    with pytest.raises(ValueError, match="only a flow made by rgflow.build can be saved"):
        fit(bare, pictures, None, recipe)
    with pytest.raises(TypeError, match="text and numbers, not 'note': NoneType"):
        fit(build(config), pictures, None, recipe, card={"note": None})
    assert not (tmp_path / "metrics.csv").exists()
