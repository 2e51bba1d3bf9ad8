"""Training: what a recipe allows, batches keyed by (seed, epoch, index), and restarts that change no bit."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rgflow import checkpoints
from rgflow.batches import BatchStream, Indexed, code_lengths, digest, evaluate, flipped, shuffled, spread
from rgflow.callbacks import COLUMNS, Checkpoints, read_log
from rgflow.files import check_folder
from rgflow.flow import RGFlowConfig, build
from rgflow.grids import grid, sample_images, write_grid
from rgflow.linears import PatchLinear
from rgflow.nets import ResidualNet
from rgflow.pictures import Pictures
from rgflow.pixels import from_logit, keyed_noise, to_logit
from rgflow.plainnets import PlainNet, SplineNet
from rgflow.realnvp import RealNVPConfig
from rgflow.recipes import INTEGERS, TrainConfig
from rgflow.splines import spline
from rgflow.train import fit

CONFIG = RGFlowConfig(channels=1, size=8, nlayers=1, net="plain", nhidden=8)
QUIET = {"batch_size": 8, "quiet": True, "print_step": 1, "plot_epoch": 0, "lr": 1e-2, "warmup_steps": 3}


def pictures(n=44, seed=0, flip=False):
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.arange(8) * 16
    return Pictures((torch.randint(0, 100, (n, 1, 8, 8), generator=generator) + ramp).to(torch.uint8), flip=flip)


def fresh(config=CONFIG, seed=0):
    return build(config, torch.Generator().manual_seed(seed))


def same(a, b):
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def checkpoint(folder, name="last.ckpt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    """It takes seconds to import; one test asks for it."""
    monkeypatch.setattr("rgflow.callbacks.tensorboard", lambda folder, step: None)


# Recipes


def test_the_budget_is_500_epochs_unless_one_is_given():
    assert TrainConfig().epochs == 500
    assert TrainConfig(steps=3).epochs is None
    assert TrainConfig(steps=30, epochs=2).total_steps(10) == 20
    assert TrainConfig(minutes=1).total_steps(10) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"steps": 0}, "steps must be above 0"),
        ({"minutes": -1}, "minutes must be above 0"),
        ({"clip_grad": -1}, "clip_grad must be at least 0"),
        ({"schedule": "linear"}, "constant, cosine"),
        ({"dtype": "float16"}, "float32, float64"),
        ({"precision": "16"}, "bf16-mixed"),
        ({"precision": "32", "dtype": "float64"}, "does not go with"),
        ({"accelerator": "abacus"}, "cpu, gpu"),
        ({"devices": 0}, "devices must be at least 1, not 0"),
        ({"devices": "0,1"}, "different GPUs"),
        ({"devices": "two"}, "must be a number"),
        ({"devices": -1}, "must be a number"),
        ({"num_nodes": 0}, "num_nodes must be above 0"),
        ({"devices": "3,"}, "devices 3, must be different GPUs"),
        ({"devices": ",", "accelerator": "gpu"}, "must be a number"),
        ({"devices": "1,,2", "accelerator": "gpu"}, "must be a number"),
        ({"seed": 2**63}, r"seed must be below 2\^63, not 9223372036854775808"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"clock": "sun"}, "clock must be one of wall, processor, not 'sun'"),
        ({"ema": 1}, "ema must be below 1, not 1.0"),
        ({"ema": -0.1}, "ema must be at least 0"),
        ({"fit_images": 0}, "fit_images must be above 0, not 0"),
        ({"disentangler_lr_factor": 0}, "disentangler_lr_factor must be above 0, not 0"),
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"lr": True}, "lr must be a number, not True"),
        ({"minutes": math.inf}, "minutes must be above 0, not inf"),
        ({"save_minutes": None}, "save_minutes must be a number, not None"),
        ({"batch_size": None}, "batch_size must be an integer, not None"),
        ({"steps": 2**63}, r"steps must be below 2\^63"),
    ],
)
def test_a_recipe_names_what_is_not_allowed(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [2.5, 2.0, True, "2", np.float64(2)])
def test_counts_must_be_integers(name, value):
    with pytest.raises(ValueError) as error:
        TrainConfig(**{name: value})
    assert str(error.value) == f"{name} must be an integer, not {value!r}"


def test_numbers_of_numpy_are_taken_as_python_ones():
    recipe = TrainConfig(steps=np.int64(3), seed=np.uint8(7), lr=np.float32(0.5), devices=np.int64(2))
    assert (recipe.steps, recipe.seed, recipe.lr, recipe.device_list) == (3, 7, 0.5, 2)
    assert [type(v) for v in (recipe.steps, recipe.seed, recipe.lr)] == [int, int, float]


def test_precision_and_dtype_agree():
    assert TrainConfig(precision="64").dtype == "float64"
    assert TrainConfig(dtype="float64").precision == "64"
    assert TrainConfig(devices="0,1", accelerator="gpu").device_list == [0, 1]
    assert TrainConfig(devices="3,", accelerator="gpu").device_list == [3], "one GPU by its number"
    assert TrainConfig(devices="0,", accelerator="auto").device_list == [0]
    assert TrainConfig(devices="2").device_list == 2


def test_schedules_by_hand():
    recipe = TrainConfig(lr=2.0, warmup_steps=4, schedule="cosine", steps=100, minutes=10)
    assert recipe.learning_rate(0, 0.0) == pytest.approx(0.5)
    assert recipe.learning_rate(10, 0.0) == 2.0
    assert recipe.learning_rate(50, 0.5) == pytest.approx(1.0)
    assert recipe.learning_rate(99, 1.0) == pytest.approx(0.0)
    assert recipe.progress(50, 60, 10) == 0.5  # steps are ahead of minutes
    assert recipe.progress(10, 540, 10) == 0.9  # minutes are ahead of steps
    assert replace(recipe, schedule="constant").learning_rate(50, 0.5) == 2.0


# Batches


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.sampled_from([1, 2, 4]), st.integers(0, 40), st.integers(0, 3))
def test_batches_are_the_same_for_any_start_and_any_number_of_ranks(extra, ranks, start, seed):
    batch, n = 4, 3 + extra
    if n < batch:
        with pytest.raises(ValueError, match="fewer than one batch"):
            BatchStream(n, batch, seed)
        return
    steps = n // batch
    count = start + 2 * steps
    whole = [b for b, _ in zip(BatchStream(n, batch, seed), range(count), strict=False)]
    for epoch in range(count // steps):
        seen = sum(whole[epoch * steps : (epoch + 1) * steps], [])
        assert len(set(seen)) == len(seen) == steps * batch and set(seen) <= set(range(n))
    parts = [iter(BatchStream(n, batch, seed, start, rank, ranks)) for rank in range(ranks)]
    for step in range(start, count):
        assert sum((next(part) for part in parts), []) == whole[step]


def test_orders_differ_between_epochs_and_seeds():
    orders = [shuffled(20, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_must_be_shared_equally():
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        BatchStream(10, 4, 0, ranks=3)


def test_flips_mirror_about_half_of_the_images_and_are_keyed():
    images = pictures(400).images
    index = torch.arange(400)
    out = flipped(images, 0, 1, index)
    mirrored = (out == images.flip(-1)).flatten(1).all(1)
    assert ((out == images).flatten(1).all(1) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flipped(images[order], 0, 1, index[order]), out[order])
    assert not torch.equal(flipped(images, 0, 2, index), out)


def test_sets_on_disk_and_in_memory_give_the_same_batches():
    held = pictures()

    class OnDisk(torch.utils.data.Dataset):
        def __len__(self):
            return len(held)

        def __getitem__(self, index):
            return held[index]

    a, b = Indexed(held).__getitems__([3, 1, 2]), Indexed(OnDisk()).__getitems__([3, 1, 2])
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[1].tolist() == [3, 1, 2]


def test_pictures_on_disk_are_decoded_once_within_bounds(monkeypatch):
    held, asked = pictures(), []

    class OnDisk(torch.utils.data.Dataset):
        def __len__(self):
            return len(held)

        def __getitem__(self, index):
            asked.append(index)
            return held[index]

    monkeypatch.setattr("rgflow.batches.KEPT", 2 * 64 + 63)
    images = Indexed(OnDisk())
    for _ in range(2):
        batch, _ = images.__getitems__([3, 1, 2])
        assert torch.equal(batch, held.images[[3, 1, 2]])
        batch.zero_()
    assert asked == [3, 1, 2, 2], "two of 64 bytes are kept, the third is not"
    monkeypatch.setattr("rgflow.batches.get_worker_info", lambda: "a worker")
    Indexed(OnDisk()).__getitems__([5, 5])
    assert asked[4:] == [5, 5]


def test_evaluate_gives_mean_and_standard_error_whatever_the_batches():
    flow, images = fresh().double(), pictures(23)
    lengths = code_lengths(flow, images, 23)
    result = evaluate(flow, images, batch_size=7)
    assert result.n == 23
    assert result.mean == pytest.approx(float(lengths.mean()), abs=1e-12)
    assert result.standard_error == pytest.approx(float(lengths.std() / 23**0.5), rel=1e-6)
    assert evaluate(flow, images, seed=1).mean != result.mean
    with pytest.raises(ValueError, match="no images"):
        evaluate(flow, images, indices=[])
    assert spread(10, 4) == [0, 2, 5, 7] and spread(3, 10) == [0, 1, 2] == spread(3, 0)


# Grids


def test_a_grid_places_images_row_by_row():
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 2, 2)
    out = grid(images, columns=2)
    assert out.shape == (5, 5, 3)
    assert (
        (out[:2, 3:] == 1).all() and (out[3:, :2] == 2).all() and (out[3:, 3:] == 255).all() and (out[2] == 255).all()
    )
    with pytest.raises(ValueError, match="1 or 3 channels"):
        grid(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError, match="uint8 grey levels, not torch.float32"):
        grid(images.float() / 255)
    for columns in (0, -1):
        with pytest.raises(ValueError, match=f"columns must be at least 1, not {columns}"):
            grid(images, columns)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), not \(1, 2, 2\)"):
        grid(images[0])
    with pytest.raises(ValueError, match="scale must be at least 1, not 0"):
        write_grid(images, "never.png", scale=0)


def test_samples_are_repeatable_and_checked():
    flow = fresh()
    assert torch.equal(sample_images(flow, 5, seed=3), sample_images(flow, 5, seed=3))
    assert not torch.equal(sample_images(flow, 5, seed=3), sample_images(flow, 5, seed=4))
    with pytest.raises(ValueError, match="at least 1"):
        sample_images(flow, 0)


# Runs


def test_evaluations_come_after_so_many_minutes_too(monkeypatch):
    """A clock that moves a second at each look, two per step; an evaluation is due whenever a mark at 5 s is passed."""
    ticks = itertools.count()
    monkeypatch.setattr("rgflow.callbacks.time.monotonic", lambda: float(next(ticks)))
    recipe = TrainConfig(**QUIET | {"print_step": 0, "out_dir": ""}, steps=12, eval_epoch=0, eval_minutes=5 / 60)
    rows = fit(fresh(), pictures(), pictures(20, 1), recipe).rows
    assert [int(row["seconds"] // 5) for row in rows] == [1, 2, 3, 4, 4]  # and at the end
    assert all(row["test_bits_per_dim"] != "" for row in rows)


def test_a_run_learns_and_writes_what_it_promises(tmp_path, capsys):
    flow = fresh()
    recipe = TrainConfig(
        **QUIET | {"plot_epoch": 2}, epochs=6, keep_epoch=3, eval_epoch=2, out_dir=str(tmp_path), name="a"
    )
    run = fit(flow, pictures(), pictures(20, 1), recipe, {"data": "ramps"}, {"licence": "none"})
    folder = tmp_path / "a"
    assert run.folder == folder and run.steps == 30 and run.epochs == 6
    assert run.score.mean < evaluate(fresh(), pictures(20, 1)).mean - 0.3
    assert run.score == evaluate(flow, pictures(20, 1), batch_size=8)
    assert sorted(os.listdir(folder / "checkpoints")) == [
        "best.ckpt",
        "epoch_00003.ckpt",
        "epoch_00006.ckpt",
        "last.ckpt",
    ]
    assert sorted(os.listdir(folder / "samples")) == [f"epoch_{k:05d}.png" for k in (2, 4, 6)]
    rows = read_log(folder / "metrics.csv")
    assert rows == run.rows and list(rows[0]) == list(COLUMNS) and len(rows) == 30
    assert [r["step"] for r in rows if r["test_bits_per_dim"] != ""] == [10, 20, 30]
    assert rows[0]["lr"] == pytest.approx(1e-2 / 3) and rows[5]["lr"] == 1e-2
    assert [r["epoch"] for r in rows[3:6]] == [0, 1, 1]
    assert same(flow, checkpoints.load(folder / "model.safetensors"))
    card = checkpoints.read_card(folder / "model.safetensors")["card"]
    assert card["steps"] == 30 and card["data"] == "ramps" and card["licence"] == "none"
    assert card["test_bits_per_dim"] == run.score.mean and card["test_images"] == 20
    assert capsys.readouterr() == ("", ""), "a quiet run says nothing"
    assert checkpoint(folder)["global_step"] == 30 and checkpoint(folder, "epoch_00003.ckpt")["global_step"] == 15


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_run_is_this_plain_loop(factor):
    """Order, flips, noise, loss, clipping, decay and schedule, written out: the same bits after 13 steps."""
    options = QUIET | {"clip_grad": 0.05, "schedule": "cosine", "weight_decay": 0.1, "disentangler_lr_factor": factor}
    recipe = TrainConfig(**options, steps=13, seed=4, out_dir="")
    flow, images = fresh(), pictures().images
    named = list(flow.named_parameters())
    slow = [p for name, p in named if ".disentanglers." in name]
    fast = [p for name, p in named if ".disentanglers." not in name]
    assert slow and fast
    optimizer = torch.optim.AdamW([{"params": slow}, {"params": fast}], lr=1e-2, weight_decay=0.1, fused=True)
    lines = []
    for step in range(13):
        epoch, batch = divmod(step, 5)  # 44 images, 8 a batch
        order = np.random.default_rng(np.random.SeedSequence((4, epoch))).permutation(44)
        index = torch.from_numpy(order[8 * batch : 8 * batch + 8])
        mirrored = keyed_noise((1,), 4, epoch, index, stream=1)[:, 0] < 0.5
        chosen = images[index].clone()
        chosen[mirrored] = chosen[mirrored].flip(-1)
        bits = flow.bits_per_dim(chosen, keyed_noise((1, 8, 8), 4, epoch, index)).mean()
        optimizer.zero_grad()
        (bits * math.log(2)).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 0.05)
        lr = 1e-2 * min(1, (step + 1) / 3) * 0.5 * (1 + math.cos(math.pi * step / 13))
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = lr * factor, lr
        optimizer.step()
        lines.append(float(bits.detach()))
    trained = fresh()
    run = fit(trained, pictures(flip=True), None, recipe)
    assert [row["train_bits_per_dim"] for row in run.rows] == lines
    assert same(flow, trained)


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(fresh(), pictures(), None, TrainConfig(**QUIET, steps=2, out_dir=""))
    assert run.folder is None and run.score is None and len(run.rows) == 2 and os.listdir(tmp_path) == []


def test_lightning_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(LeafSpec|treespec).*")
        fit(fresh(), pictures(), pictures(5), TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path)))


class Killed(Exception):
    pass


def mortal(flow, lives):
    """The flow, dying in the middle of training step number `lives` (from 0)."""
    healthy = flow.bits_per_dim

    def bits_per_dim(*arguments):
        nonlocal lives
        lives -= torch.is_grad_enabled()  # evaluations do not count
        if lives < 0:
            raise Killed
        return healthy(*arguments)

    flow.bits_per_dim = bits_per_dim
    return flow


@pytest.mark.parametrize(
    ("schedule", "save_minutes", "ema", "factor"),
    [("constant", 1e-9, 0.0, 1.0), ("cosine", 0, 0.9, 2.0), ("constant", 1e-9, 0.3, 2.0)],
)
@pytest.mark.parametrize("kills", [(7,), (5,), (3, 4, 11)])  # steps after which the run dies; an epoch has 5
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tmp_path, schedule, save_minutes, ema, factor, kills):
    tests = Pictures(255 - pictures(9, 1).images)  # the score gets worse: the first is the best
    options = QUIET | {"print_step": 3, "schedule": schedule, "save_minutes": save_minutes, "ema": ema}
    options["disentangler_lr_factor"] = factor
    recipe = TrainConfig(**options, steps=13, out_dir=str(tmp_path / "a"))
    whole = fresh()
    expected = fit(whole, pictures(flip=True), tests, recipe)
    recipe = replace(recipe, out_dir=str(tmp_path / "b"))
    done = 0
    for kill in kills:
        with pytest.raises(Killed):
            fit(mortal(fresh(), kill - done), pictures(flip=True), tests, recipe)
        saved = kill if save_minutes else kill // 5 * 5  # at every step, or at the end of an epoch
        done = checkpoint(tmp_path / "b")["global_step"] if saved else 0
        assert done == saved
    again = fresh(seed=5)  # the weights come from the checkpoint
    run = fit(again, pictures(flip=True), tests, recipe)
    assert same(whole, again)
    one, two = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    for key, state in one["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, two["optimizer_states"][0]["state"][key][name])
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert run.score == expected.score and run.steps == 13 and run.epochs == 2
    assert [checkpoint(tmp_path / part, "best.ckpt")["global_step"] for part in "ab"] == [5, 5]
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in expected.rows]
    assert same(
        checkpoints.load(tmp_path / "a" / "model.safetensors"), checkpoints.load(tmp_path / "b" / "model.safetensors")
    )


CHILD = """
import sys
import torch
from rgflow import callbacks, flow, pictures, recipes, train
callbacks.tensorboard = lambda folder, step: None
config, recipe, images, out_dir = torch.load(sys.argv[1], weights_only=False)
fresh = flow.build(config, torch.Generator().manual_seed(0))
train.fit(fresh, pictures.Pictures(images), None, recipes.TrainConfig(**recipe, steps=100000, out_dir=out_dir))
"""


def test_sigkill_at_any_moment_loses_no_bit(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    task = tmp_path / "task.pt"
    torch.save((CONFIG, QUIET | {"save_minutes": 1e-9}, pictures().images, str(tmp_path / "b")), task)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(task)], env=environment, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "b" / "checkpoints" / "last.ckpt").exists():
            assert child.poll() is None and time.monotonic() < deadline, "the child made no checkpoint"
            time.sleep(0.01)
        time.sleep(0.15)
        with pytest.raises(ValueError) as error:
            fit(fresh(), pictures(), None, TrainConfig(**QUIET, steps=9, out_dir=str(tmp_path / "b")))
        assert str(error.value).startswith(f"another process trains in {tmp_path / 'b'};")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    left = [tmp_path / "b" / part / ".x.1.tmp" for part in (".", "checkpoints", "samples")]
    for file in left:  # as a kill in the middle of a write leaves them
        file.touch()
    done = checkpoint(tmp_path / "b")["global_step"]
    recipe = TrainConfig(**QUIET, steps=done + 7, out_dir=str(tmp_path / "b"))
    resumed, whole = fresh(), fresh()
    assert fit(resumed, pictures(), pictures(9, 1), recipe).steps == done + 7
    fit(whole, pictures(), None, replace(recipe, out_dir=""))
    assert done > 0 and same(resumed, whole)
    assert not [file for file in left if file.exists()] and not list((tmp_path / "b" / "checkpoints").glob(".*"))


def test_a_finished_run_is_read_not_trained_and_its_budget_can_be_extended(tmp_path):
    recipe = TrainConfig(**QUIET, steps=6, out_dir=str(tmp_path))
    first = fresh()
    rows = fit(first, pictures(), None, recipe).rows
    again = fresh(seed=3)
    run = fit(again, pictures(), None, recipe)
    assert same(first, again) and run.steps == 6 and run.rows == rows
    assert fit(again, pictures(), None, replace(recipe, steps=4)).steps == 6
    assert same(first, again)
    longer, whole = fresh(seed=3), fresh()
    assert fit(longer, pictures(), None, replace(recipe, steps=11)).steps == 11
    fit(whole, pictures(), None, replace(recipe, steps=11, out_dir=""))
    assert same(longer, whole)


def test_minutes_end_a_run_and_count_over_restarts(tmp_path):
    recipe = TrainConfig(**QUIET, minutes=0.01, schedule="cosine", out_dir=str(tmp_path))
    run = fit(fresh(), pictures(), None, recipe)
    assert run.steps > 1 and 0.6 <= run.seconds < 5
    assert run.rows[-1]["lr"] < 2e-3  # the schedule follows the clock
    assert fit(fresh(), pictures(), None, recipe).steps == run.steps
    more = fit(fresh(), pictures(), None, replace(recipe, minutes=0.013))
    clock = [row["seconds"] for row in more.rows]
    assert more.steps > run.steps and clock == sorted(clock) and clock[run.steps] >= 0.6


def test_the_processor_clock_is_the_processor_time_over_the_threads(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: 2.0 * next(ticks))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    clocks = {clock: TrainConfig(**QUIET, clock=clock, steps=3, out_dir="") for clock in ("processor", "wall")}
    seconds = {clock: fit(fresh(), pictures(), None, recipe).seconds for clock, recipe in clocks.items()}
    assert seconds["processor"] == 3 * 2 * 2 / 4, "read before and after each step"
    assert seconds["wall"] != seconds["processor"]
    assert TrainConfig().clock == "wall"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(CONFIG, nhidden=16)}, "model nhidden is 8 there and 16 here"),
        ({"recipe": {"lr": 0.5}}, "training lr is 0.01 there and 0.5 here"),
        ({"recipe": {"batch_size": 4}}, "training batch_size is 8 there and 4 here"),
        ({"images": pictures(40)}, "data images is 44 there and 40 here"),
        ({"images": pictures(44, 7)}, "digest of 16 images"),
        ({"data": {"data": "b"}}, "data data is 'a' there and 'b' here"),
    ],
)
def test_another_run_in_the_folder_is_an_error_that_names_the_difference(tmp_path, change, message):
    recipe = TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path))
    fit(fresh(), pictures(), None, recipe, {"data": "a"})
    with pytest.raises(ValueError, match=message):
        fit(
            fresh(change.get("config", CONFIG)),
            change.get("images", pictures()),
            None,
            replace(recipe, **change.get("recipe", {})),
            change.get("data", {"data": "a"}),
        )


def test_an_unreadable_checkpoint_is_an_error(tmp_path):
    recipe = TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path))
    fit(fresh(), pictures(), None, recipe)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read.*delete it"):
        fit(fresh(), pictures(), None, recipe)


def test_bad_input_is_found_before_training(tmp_path):
    recipe = TrainConfig(**QUIET, steps=2, out_dir="")
    with pytest.raises(ValueError, match="5 images, fewer than one batch of 8"):
        fit(fresh(), pictures(5), None, recipe)
    with pytest.raises(ValueError, match=r"training images are \(1, 8, 8\), the flow takes \(1, 4, 4\)"):
        fit(fresh(replace(CONFIG, size=4)), pictures(), None, recipe)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"output folder .* cannot be written"):
        fit(fresh(), pictures(), None, replace(recipe, out_dir=str(tmp_path / "file" / "run")))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            fit(fresh(), pictures(), None, replace(recipe, accelerator="gpu"))


@pytest.fixture(params=[False, True], ids=["at each step", "now and then"])
def look(request, monkeypatch):
    """When loss and gradient are looked at: at each step, as on the CPU, or with a row of the log, as on a GPU."""
    monkeypatch.setattr("rgflow.training.Training.lazy", request.param)
    return {"print_step": 4 if request.param else 1}


def test_a_loss_that_is_not_finite_stops_the_run_names_the_level_and_keeps_the_checkpoint(tmp_path, look):
    recipe = TrainConfig(**QUIET | look, epochs=3, out_dir=str(tmp_path))
    flow = fresh()
    healthy, weight, left = flow.bits_per_dim, next(flow.bijector.steps[1].parameters()), 7

    def bits_per_dim(*arguments):
        nonlocal left
        left -= torch.is_grad_enabled()  # a look at the next step before a save does not count
        if left < 0:
            with torch.no_grad():
                weight.fill_(math.nan)
        return healthy(*arguments)

    flow.bits_per_dim = bits_per_dim
    with pytest.raises(FloatingPointError, match=r"loss is not finite at step 7: first at level 1"):
        fit(flow, pictures(), None, recipe)
    saved = checkpoint(tmp_path)
    assert saved["global_step"] == 5 and all(v.isfinite().all() for v in saved["state_dict"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(tmp_path, look):
    flow = fresh()
    name, parameter = next((n, p) for n, p in flow.named_parameters() if n.startswith("bijector.steps.1."))
    parameter.register_hook(lambda g: g * math.inf)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"gradient is not finite at step 0: first at level 1"):
        fit(flow, pictures(), None, TrainConfig(**QUIET | look, steps=3, out_dir=str(tmp_path)))
    assert all(torch.equal(v, flow.state_dict()[k]) for k, v in before.items())


def spoil_gradients(flow, calls):
    """Makes the gradient of the flow infinite in these backward passes, counted from 1."""
    count = 0

    def spoilt(gradient):
        nonlocal count
        count += 1
        return gradient * math.inf if count in calls else gradient

    next(flow.bijector.steps[0].parameters()).register_hook(spoilt)


def test_nothing_moves_from_a_bad_step_until_it_is_looked_at(monkeypatch):
    """The next row after step 5 (from 0) is due after step 10; step 8 is bad as well."""
    monkeypatch.setattr("rgflow.training.Training.lazy", True)
    flow, whole = fresh(), fresh()
    spoil_gradients(flow, (6, 9, 12))  # the twelfth is step 5 done again
    recipe = TrainConfig(**QUIET | {"print_step": 11}, steps=30, out_dir="")
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 5: first at level 0"):
        fit(flow, pictures(), None, recipe)
    fit(whole, pictures(), None, replace(recipe, steps=5))
    assert same(flow, whole)


def test_a_bad_loss_moves_nothing_even_where_its_gradient_is_finite(monkeypatch):
    monkeypatch.setattr("rgflow.training.Training.lazy", True)
    flow, whole, count = fresh(), fresh(), 0
    healthy = flow.bits_per_dim

    def bits_per_dim(*arguments):
        nonlocal count
        count += 1
        return healthy(*arguments) + (math.inf if count in (4, 7) else 0)

    flow.bits_per_dim = bits_per_dim
    recipe = TrainConfig(**QUIET | {"print_step": 6}, steps=9, out_dir="")
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 3: in the latents' density"):
        fit(flow, pictures(), None, recipe)
    fit(whole, pictures(), None, replace(recipe, steps=3))
    assert same(flow, whole)


@pytest.mark.parametrize("due", ["save", "score"])
def test_a_bad_step_is_seen_before_a_save_and_a_score(tmp_path, monkeypatch, due):
    monkeypatch.setattr("rgflow.training.Training.lazy", True)
    recipe = TrainConfig(
        **QUIET | {"print_step": 0, "save_minutes": 1e-9 if due == "save" else 0}, steps=9, out_dir=str(tmp_path)
    )
    flow, tests = fresh(), pictures(9, 1) if due == "score" else None
    spoil_gradients(flow, (3, 4 if due == "save" else 6))
    monkeypatch.setattr("rgflow.callbacks.code_lengths", lambda *_: pytest.fail("it was scored"))
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 2"):
        fit(flow, pictures(), tests, recipe)
    saved = tmp_path / "checkpoints" / "last.ckpt"
    assert not saved.exists() if due == "score" else checkpoint(tmp_path)["global_step"] == 2


def test_looking_now_and_then_changes_no_bit(monkeypatch):
    runs = []
    for lazy in (False, True):
        monkeypatch.setattr("rgflow.training.Training.lazy", lazy)
        flow = fresh()
        run = fit(flow, pictures(), pictures(9), TrainConfig(**QUIET | {"print_step": 3}, steps=12, out_dir=""))
        runs.append((flow, [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows]))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, net="residual", nres=1, tied=False),
        replace(CONFIG, net="residual", nres=1, stream="full", memory="checkpoint"),
        replace(CONFIG, net="residual", nres=1, coupling="autoregressive", nhidden=16),
        replace(CONFIG, linear="whitened"),
        replace(CONFIG, coupling="spline", memory="reversible"),
        RealNVPConfig(channels=1, size=8, nres=1, nhidden=4, scales=2),
    ],
    ids=["plain", "residual", "full", "autoregressive", "whitened", "spline", "realnvp"],
)
def test_a_step_never_waits_for_the_device_and_images_stay_uint8_until_it(monkeypatch, config):
    """Tensors on the meta device have no values: whoever asks for one, as float() and bool() do, fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know the device
    from rgflow.batches import loader
    from rgflow.training import Training

    images = Indexed(pictures(flip=True))
    module = Training(fresh(config), images, TrainConfig(**QUIET, steps=9, ema=0.9, out_dir=""), {})
    trainer = type("Trainer", (), {"world_size": 1, "global_step": 3})()
    module.trainer = trainer
    batch = next(iter(loader(images, BatchStream(44, 8, 0))))
    assert batch[0].dtype == torch.uint8 and batch[0].device.type == "cpu"
    module.to("meta")
    assert module.lazy
    healthy, seen = module.flow.bits_per_dim, []
    module.flow.bits_per_dim = lambda *given: seen.extend(given) or healthy(*given)
    optimizer = type("Optimizer", (), {})()
    loss = module.training_step([part.to("meta") for part in batch], 0)
    loss.backward()
    module.configure_gradient_clipping(optimizer)
    module.average.update(3)
    assert [(part.dtype, part.device.type) for part in seen] == [(torch.uint8, "meta"), (torch.float32, "meta")]
    assert loss.device.type == optimizer.found_inf.device.type == "meta" and loss.dtype == torch.float32
    with pytest.raises(RuntimeError):
        float(loss.detach())


@pytest.mark.parametrize("lazy", [False, True])
def test_the_average_is_what_is_scored_shown_and_kept(tmp_path, monkeypatch, lazy):
    """The average by hand, and beside it a run without one: the weights that train are the same to the bit."""
    monkeypatch.setattr("rgflow.training.Training.lazy", lazy)
    recipe = TrainConfig(**QUIET | {"plot_epoch": 1}, epochs=2, ema=0.5, out_dir=str(tmp_path / "a"))
    flow, tests = fresh(), pictures(20, 1)
    run = fit(flow, pictures(), tests, recipe)

    by_hand = [p.detach().double() for p in fresh().parameters()]
    for step in range(1, 11):
        raw = fresh()
        fit(raw, pictures(), None, replace(recipe, ema=0.0, steps=step, epochs=None, out_dir=""))
        d = min(0.5, (1 + step) / (10 + step))
        by_hand = [d * a + (1 - d) * p.detach().double() for a, p in zip(by_hand, raw.parameters(), strict=True)]
    for ours, theirs in zip(flow.parameters(), by_hand, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-6)
    assert not same(flow, raw)

    saved = checkpoint(tmp_path / "a")
    assert all(torch.equal(p, saved["state_dict"][f"flow.{name}"]) for name, p in raw.named_parameters())
    assert all(torch.equal(p, saved["rgflow"]["average"][name]) for name, p in flow.named_parameters())
    assert same(flow, checkpoints.load(tmp_path / "a" / "model.safetensors"))
    assert checkpoints.read_card(tmp_path / "a" / "model.safetensors")["card"]["ema"] == 0.5
    assert run.score == evaluate(flow, tests, batch_size=8) != evaluate(raw, tests, batch_size=8)
    for name, shown in (("flow", flow), ("raw", raw)):
        write_grid(sample_images(shown, 64, seed=0), tmp_path / f"{name}.png", scale=2)
    picture = (tmp_path / "a" / "samples" / "epoch_00002.png").read_bytes()
    assert picture == (tmp_path / "flow.png").read_bytes() != (tmp_path / "raw.png").read_bytes()

    again = fresh(seed=9)  # a finished run is only read
    assert fit(again, pictures(), tests, recipe).score == run.score and same(again, flow)
    with pytest.raises(ValueError, match="training ema is 0.5 there and 0.0 here"):
        fit(fresh(), pictures(), tests, replace(recipe, ema=0.0))


def test_the_best_checkpoint_is_that_of_the_average(tmp_path):
    """At this rate the weights get worse from epoch to epoch, and their average better."""
    recipe = TrainConfig(**QUIET | {"lr": 0.2, "keep_epoch": 1}, epochs=3, ema=0.9, out_dir=str(tmp_path))
    flow, tests = fresh(), pictures(20, 1)
    rows = fit(flow, pictures(), tests, recipe).rows
    scores = {row["step"]: row["test_bits_per_dim"] for row in rows if row["test_bits_per_dim"] != ""}
    own = {}
    for epoch in range(1, 4):
        saved = checkpoint(tmp_path, f"epoch_{epoch:05d}.ckpt")
        with torch.no_grad():
            for name, p in flow.named_parameters():
                p.copy_(saved["rgflow"]["average"][name])
            assert evaluate(flow, tests, 8).mean == scores[5 * epoch]
            for name, p in flow.named_parameters():
                p.copy_(saved["state_dict"][f"flow.{name}"])
        own[5 * epoch] = evaluate(flow, tests, 8).mean
    best = checkpoint(tmp_path, "best.ckpt")["global_step"]
    assert best == min(scores, key=scores.get) != min(own, key=own.get)


def test_the_log_says_which_weights_are_scored(caplog):
    caplog.set_level("INFO", "rgflow")
    for ema, count in ((0.0, 0), (0.9, 1)):
        caplog.clear()
        fit(fresh(), pictures(), None, TrainConfig(**QUIET, steps=1, ema=ema, out_dir=""))
        line = f"scores, pictures and the model file: of the averaged weights (ema {ema:g})"
        assert [record.getMessage() for record in caplog.records].count(line) == count


def test_an_average_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    from rgflow import optimizers

    update = optimizers.Average.update

    def spoilt(self, step):
        update(self, step)
        self.weights[0].fill_(math.inf if step == 3 else 0)

    monkeypatch.setattr(optimizers.Average, "update", spoilt)
    recipe = TrainConfig(**QUIET | {"save_minutes": 1e-9}, steps=5, ema=0.9, out_dir=str(tmp_path))
    with pytest.raises(FloatingPointError, match="the averaged weights are not finite after step 3: in bijector"):
        fit(fresh(), pictures(), None, recipe)
    assert checkpoint(tmp_path)["global_step"] == 2


def test_an_average_is_put_in_place_and_out_again_even_after_an_error():
    from rgflow.optimizers import Average

    flow, other = fresh(), fresh(seed=4)
    average = Average(other, 0.9)
    average.flow = flow
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    with pytest.raises(Killed), average.in_place():
        assert same(flow, other)
        raise Killed
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())


def test_a_run_from_before_a_setting_was_there_goes_on(tmp_path):
    recipe = TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path))
    fit(fresh(), pictures(), None, recipe)
    last = tmp_path / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    record = json.loads(saved["rgflow"]["record"])
    young = [("training", key) for key in ("ema", "fit_images", "disentangler_lr_factor")]
    for part, key in (*young, ("model", "linear")):
        del record[part][key]
    saved["rgflow"]["record"] = json.dumps(record)
    (group,) = saved["optimizer_states"][0]["param_groups"]
    del group["factor"]
    torch.save(saved, last)
    with pytest.raises(ValueError, match="training ema is 0.0 there and 0.5 here"):
        fit(fresh(), pictures(), None, replace(recipe, ema=0.5))
    assert fit(fresh(), pictures(), None, replace(recipe, steps=3)).steps == 3


@pytest.fixture
def whitened(monkeypatch):
    """Flows with linear="whitened", and a `whiten` that shifts a weight by the mean of what it is given."""
    calls = []

    def whiten(flow, x):
        calls.append(x)
        with torch.no_grad():
            next(flow.parameters()).add_(x.mean())
        time.sleep(0.05)

    monkeypatch.setitem(sys.modules, "rgflow.whitening", types.SimpleNamespace(whiten=whiten))
    return replace(CONFIG, linear="whitened"), calls


def test_a_whitened_flow_is_fitted_once_on_the_clock_and_the_same_after_a_restart(tmp_path, whitened):
    from rgflow.train import prepare_flow

    config, calls = whitened
    recipe = TrainConfig(**QUIET | {"save_minutes": 1e-9}, steps=7, ema=0.5, fit_images=20, out_dir=str(tmp_path / "a"))
    run = fit(fresh(config), pictures(flip=True), None, recipe)
    assert len(calls) == 1 and calls[0].shape == (20, 1, 8, 8) and calls[0].dtype == torch.float32
    assert run.rows[0]["seconds"] > 0.05, "the fit is not on the clock"
    whole = checkpoints.load(tmp_path / "a" / "model.safetensors")

    resumed = replace(recipe, out_dir=str(tmp_path / "b"))
    with pytest.raises(Killed):
        fit(mortal(fresh(config), 4), pictures(flip=True), None, resumed)
    again = fresh(config, seed=5)
    fit(again, pictures(flip=True), None, resumed)
    assert len(calls) == 2, "fitted again after a restart"
    assert same(again, whole) and torch.equal(calls[0], calls[1])

    flow = fresh(config)
    assert prepare_flow(flow, Indexed(pictures(flip=True)), recipe) and torch.equal(calls[2], calls[0])
    assert prepare_flow(flow, Indexed(pictures(flip=True)), replace(recipe, seed=1)) and not torch.equal(*calls[2:])
    assert prepare_flow(flow, Indexed(pictures(15)), recipe) and len(calls[4]) == 15, "no more than there are"
    assert torch.equal(from_logit(calls[4]), pictures(15).images[shuffled(15, 0, 0)])
    before = {name: tensor.clone() for name, tensor in fresh().state_dict().items()}
    plain = fresh()
    assert not prepare_flow(plain, Indexed(pictures()), recipe) and len(calls) == 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


def test_a_whitened_flow_is_good_before_it_learns(tmp_path):
    scores = []
    for linear in (None, "whitened"):
        recipe = TrainConfig(**QUIET | {"lr": 1e-9}, steps=1, out_dir=str(tmp_path / str(linear)))
        flow = fresh(replace(CONFIG, linear=linear))
        scores.append(fit(flow, pictures(), pictures(20, 1), recipe).score.mean)
        assert same(flow, checkpoints.load(recipe.folder / "model.safetensors"))
        again = fresh(replace(CONFIG, linear=linear))  # a finished run is read, fitted maps and all
        fit(again, pictures(), pictures(20, 1), recipe)
        assert same(flow, again)
    assert scores[1] < scores[0] - 0.2


def test_a_flow_is_compiled_on_request_for_the_batch_and_precision_of_the_run(monkeypatch):
    """At each start, a new one too; what compiling does to a flow is tested with `compiling`."""
    calls = []

    def compile_flow(flow, batch):
        calls.append((flow, batch, torch.is_autocast_enabled("cpu")))

    monkeypatch.setitem(sys.modules, "rgflow.compiling", types.SimpleNamespace(compile_flow=compile_flow))
    flow = fresh()
    for precision in ("32", "bf16-mixed"):
        fit(flow, pictures(), None, TrainConfig(**QUIET, steps=2, precision=precision, compile=True, out_dir=""))
    assert calls == [(flow, 8, False), (flow, 8, True)]
    fit(flow, pictures(), None, TrainConfig(**QUIET, steps=2, out_dir=""))
    assert len(calls) == 2


def test_the_average_starts_from_the_fitted_weights(whitened):
    """One step with a decay of 2 / 11, at a rate that moves nothing: the average is the fitted weights."""
    config, _ = whitened
    flow, fitted = fresh(config), fresh(config)
    recipe = TrainConfig(**QUIET | {"lr": 1e-12}, steps=1, ema=0.9, out_dir="")
    from rgflow.train import prepare_flow

    prepare_flow(fitted, Indexed(pictures()), recipe)
    fit(flow, pictures(), None, recipe)
    assert not same(fitted, fresh(config))
    for ours, theirs in zip(flow.parameters(), fitted.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_levels_are_named_only_where_there_are_any():
    """Shared weights belong to all levels, and a Real NVP has no steps."""
    recipe = TrainConfig(**QUIET, steps=3, out_dir="")
    for config in (replace(CONFIG, share_levels=True), RealNVPConfig(channels=1, size=8, nres=1, nhidden=4, scales=2)):
        flow = fresh(config)
        name, parameter = next((n, p) for n, p in flow.named_parameters() if p.requires_grad)
        parameter.register_hook(lambda g: g * math.inf)
        with pytest.raises(FloatingPointError) as error:
            fit(flow, pictures(), None, recipe)
        assert str(error.value) == f"the gradient is not finite at step 0: in {name}"
        with torch.no_grad():
            parameter.fill_(math.nan)
        with pytest.raises(FloatingPointError) as error:
            fit(flow, pictures(), None, recipe)
        where = "first at level 0" if config.__class__ is RGFlowConfig else "a RealNVP does not tell the level"
        assert str(error.value) == f"the loss is not finite at step 0: {where}"


def test_weights_whose_next_loss_is_not_finite_are_never_saved(tmp_path):
    """At a learning rate of 1e25 each step's own loss is finite, and the next is not."""
    recipe = TrainConfig(**QUIET | {"lr": 1e25, "save_minutes": 1e-9}, steps=6, out_dir=str(tmp_path / "a"))
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="the loss is not finite at step 1: "):
            fit(fresh(), pictures(), None, recipe)
        assert os.listdir(tmp_path / "a" / "checkpoints") == []
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 1: "):
        fit(fresh(), pictures(), None, replace(recipe, steps=1))  # nor at the end of a run
    assert not (tmp_path / "a" / "model.safetensors").exists()

    recipe = replace(recipe, lr=1e-2, steps=4, out_dir=str(tmp_path / "b"))
    fit(fresh(), pictures(), None, recipe)
    patch, flow = pytest.MonkeyPatch(), fresh()
    patch.setattr(TrainConfig, "learning_rate", lambda self, step, progress: 1e25 if step == 6 else self.lr)
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 7: "):
        fit(flow, pictures(), None, replace(recipe, steps=9))
    patch.undo()
    assert checkpoint(tmp_path / "b")["global_step"] == 6
    assert fit(fresh(), pictures(), None, replace(recipe, steps=9)).steps == 9, "the run cannot go on"


def test_weights_that_are_not_finite_are_never_saved_even_where_the_loss_is(tmp_path):
    flow = fresh()
    flow.spare = torch.nn.Parameter(torch.tensor([1.0, math.inf]))  # no part of the loss
    with pytest.raises(FloatingPointError) as error:
        fit(flow, pictures(), None, TrainConfig(**QUIET, epochs=2, out_dir=str(tmp_path)))
    assert str(error.value) == "the weights are not finite after step 5: in spare"
    assert os.listdir(tmp_path / "checkpoints") == []


def test_the_look_ahead_is_the_loss_of_the_next_step(monkeypatch):
    from rgflow import train

    ahead, seen = [], []

    class Spy(train.Training):
        def _bits(self, images, index, step, now):
            bits, mean = super()._bits(images, index, step, now)
            (seen if torch.is_grad_enabled() else ahead).append((step, float(mean)))
            return bits, mean

        def on_train_batch_end(self, *_):
            self.check_next_step()

    monkeypatch.setattr(train, "Training", Spy)
    fit(fresh(), pictures(flip=True), None, TrainConfig(**QUIET, steps=12, out_dir=""))
    assert len(seen) == 12 and ahead[:-1] == seen[1:]


def test_a_test_score_that_is_not_finite_stops_the_run_before_a_save(tmp_path):
    flow = fresh()
    healthy = flow.bits_per_dim
    black = pictures(9, 1).images
    flow.bits_per_dim = lambda images, draw: healthy(images, draw) + (math.inf if len(images) == 1 else 0)
    with pytest.raises(FloatingPointError) as error:
        fit(flow, pictures(), Pictures(black), TrainConfig(**QUIET, epochs=2, out_dir=str(tmp_path)))
    assert str(error.value) == "the test bits/dim are not finite after step 5"
    assert os.listdir(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("death", ["best.ckpt", "epoch_00002.ckpt", "last.ckpt"])
def test_a_kill_between_the_names_of_a_checkpoint_loses_none(tmp_path, monkeypatch, death):
    """best.ckpt and epoch_2.ckpt are due at step 10; the process dies just before one of the files gets its name."""
    recipe = TrainConfig(**QUIET | {"keep_epoch": 2}, epochs=1, out_dir=str(tmp_path))
    fit(fresh(), pictures(), pictures(9, 1), recipe)
    assert checkpoint(tmp_path, "best.ckpt")["global_step"] == 5
    replaced = os.replace

    def dying(source, target):
        if os.path.basename(target) == death:
            raise Killed
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("rgflow.checkpoints.os.replace", dying)
        with pytest.raises(Killed):
            fit(fresh(), pictures(), pictures(9, 1), replace(recipe, epochs=2))
    assert checkpoint(tmp_path)["global_step"] == 5
    run = fit(fresh(), pictures(), pictures(9, 1), replace(recipe, epochs=3))
    assert run.score.mean < 8 and run.steps == 15
    assert checkpoint(tmp_path, "epoch_00002.ckpt")["global_step"] == 10
    scores = {row["step"]: row["test_bits_per_dim"] for row in run.rows if row["test_bits_per_dim"] != ""}
    assert checkpoint(tmp_path, "best.ckpt")["global_step"] == min(scores, key=scores.get)


@pytest.mark.parametrize(
    ("torchrun", "slurm", "expected"), [(0, 0, None), (1, 0, None), (0, 1, "SLURMEnvironment"), (1, 1, None)]
)
def test_torchrun_inside_a_slurm_job_is_torchrun(monkeypatch, torchrun, slurm, expected):
    from rgflow import train

    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    if slurm:
        monkeypatch.setenv("SLURM_NTASKS", "1")
        monkeypatch.setenv("SLURM_JOB_NAME", "train")
    plugins = train._environment()
    assert (plugins and type(plugins[0]).__name__) == expected
    assert plugins is None or plugins[0].auto_requeue is False


def test_a_run_goes_on_with_less_memory(tmp_path):
    recipe = TrainConfig(**QUIET, steps=4, out_dir=str(tmp_path))
    fit(fresh(), pictures(), None, recipe)
    frugal, whole = fresh(replace(CONFIG, memory="checkpoint")), fresh()
    fit(frugal, pictures(), None, replace(recipe, steps=9))
    fit(whole, pictures(), None, replace(recipe, steps=9, out_dir=""))
    assert same(frugal, whole)
    assert checkpoints.load(tmp_path / "model.safetensors").config.memory == "checkpoint"


def test_the_test_set_is_told_by_a_digest_in_card_and_record(tmp_path):
    recipe = TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path))
    fit(fresh(), pictures(), pictures(9, 1), recipe)
    one, other = digest(pictures(9, 1)), digest(pictures(9, 2))
    assert checkpoints.read_card(tmp_path / "model.safetensors")["card"]["test_digest"] == one != other
    fit(fresh(), pictures(), None, recipe)  # without a test set: nothing to compare
    with pytest.raises(ValueError, match=f"data test_digest is '{one}' there and '{other}' here"):
        fit(fresh(), pictures(), pictures(9, 2), recipe)


def test_digests_see_every_image_in_memory_and_the_indices_of_the_others():
    held = pictures(300)
    changed = Pictures(held.images.clone())
    changed.images[123, 0, 3, 3] += 1
    assert digest(held) == digest(Pictures(held.images.clone())) != digest(changed)
    assert digest(held, 16) == digest(changed, 16), "only 16 images count"
    parts = [torch.utils.data.Subset(held, indices) for indices in ([1, 2, 3], [1, 2, 4])]
    assert digest(parts[0]) != digest(parts[1])


def test_images_of_four_channels_train_without_pictures_and_say_so(tmp_path, caplog):
    images = torch.randint(0, 256, (20, 4, 8, 8), dtype=torch.uint8)
    recipe = TrainConfig(**QUIET | {"plot_epoch": 1}, epochs=1, out_dir=str(tmp_path))
    fit(fresh(replace(CONFIG, channels=4)), Pictures(images), None, recipe)
    assert "images of 4 channels cannot be shown: no pictures of samples" in caplog.text
    assert os.listdir(tmp_path / "samples") == []


def test_the_probe_of_a_folder_has_a_name_of_its_own(tmp_path, monkeypatch):
    """Two nodes may have the same process number: the probe of one must not be the file of the other."""
    names, temporary = [], tempfile.NamedTemporaryFile

    def spy(**options):
        file = temporary(**options)
        names.append(os.path.relpath(file.name, tmp_path))
        return file

    monkeypatch.setattr("rgflow.files.tempfile.NamedTemporaryFile", spy)
    for _ in range(2):
        check_folder(tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == [] and len(set(names)) == len(names) == 2


def test_clipping_bounds_the_gradient_of_nats_per_dimension():
    norms = {}
    for clip in (0.0, 1e-3):
        flow = fresh()
        seen = []
        recipe = TrainConfig(**QUIET | {"clip_grad": clip}, steps=1, out_dir="")
        last = list(flow.parameters())[-1]
        from rgflow import train

        class Spy(train.Training):
            def on_before_zero_grad(self, optimizer, seen=seen):
                seen.append([p.grad.clone() for p in self.flow.parameters() if p.grad is not None])

            def on_train_batch_end(self, *_, seen=seen):
                seen.append([p.grad.clone() for p in self.flow.parameters()])

        patch = pytest.MonkeyPatch()
        patch.setattr(train, "Training", Spy)
        fit(flow, pictures(), None, recipe)
        patch.undo()
        norms[clip] = float(torch.cat([g.flatten() for g in seen[-1]]).norm())
        assert last.grad is not None
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3) and norms[0.0] > 1e-2
    flow = fresh()
    index = torch.tensor(next(iter(BatchStream(44, 8, 0))))
    from rgflow.batches import noise

    images = pictures().images[index]
    loss = flow.bits_per_dim(images, noise(images, 0, 0, index, torch.float32)).mean() * math.log(2)
    loss.backward()
    by_hand = torch.cat([p.grad.flatten() for p in flow.parameters()]).norm()
    assert norms[0.0] == pytest.approx(float(by_hand), rel=1e-5)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    recipe = TrainConfig(**QUIET, steps=5, out_dir=str(tmp_path))
    fit(fresh(), pictures(), None, recipe)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()

    def full(self, filepath, *_, **__):
        with open(filepath, "wb") as file:
            file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pytorch_lightning.Trainer.save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        fit(fresh(), pictures(), None, replace(recipe, steps=9))
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, net="residual", nres=1),
        replace(CONFIG, linear="whitened"),
        replace(CONFIG, coupling="spline"),
    ],
    ids=["plain", "residual", "whitened", "spline"],
)
def test_log_determinants_and_densities_are_added_up_in_float32_under_autocast(monkeypatch, config):
    flow, log_scales = fresh(config), []

    def watched(x: torch.Tensor, shape: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, log_slope = spline(x, shape)
        log_scales.append(log_slope.T)
        return y, log_slope

    monkeypatch.setattr("rgflow.couplings.spline", watched)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for module in flow.modules():
        if isinstance(module, (PlainNet, ResidualNet)):
            turn = isinstance(module, SplineNet)  # which gives features first
            hook = lambda _, given, result, turn=turn: log_scales.append(result[0].T if turn else result[0])  # noqa: E731
            module.register_forward_hook(hook)
        if isinstance(module, PatchLinear):
            module.register_forward_hook(lambda _, given, result: log_scales.append(result[1]))
    images = pictures(4).images
    none = torch.zeros(images.shape)
    x, pixel = to_logit(images, none)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.nn.functional.linear(x, x[0, 0]).dtype == torch.bfloat16, "there is no autocast"
        bits = flow.bits_per_dim(images, none)
        by_hand = sum(part.double().reshape(4, -1).sum(1) for part in log_scales)
        z, ladj = flow.encode(x)
        density = flow.prior.log_prob(z)
    assert {part.dtype for part in (z, ladj, density, pixel, bits, *log_scales)} == {torch.float32}
    torch.testing.assert_close(ladj.double(), by_hand, rtol=1e-6, atol=1e-5)
    total = density.double().flatten(1).sum(1) + by_hand + pixel.double()
    torch.testing.assert_close(bits.double(), 8 - total / (64 * math.log(2)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", ["64", "bf16-mixed"])
def test_other_precisions_train(tmp_path, precision):
    flow = fresh()
    run = fit(flow, pictures(), pictures(9), TrainConfig(**QUIET, precision=precision, steps=10, out_dir=str(tmp_path)))
    untrained = evaluate(fresh(), pictures(9)).mean
    assert run.score.mean < untrained - 0.15, "nothing was learnt"
    assert flow.dtype == (torch.float64 if precision == "64" else torch.float32)
    assert torch.get_default_dtype() == torch.float32
    assert checkpoints.load(tmp_path / "model.safetensors").dtype == flow.dtype


def test_tensorboard_is_written_where_it_is_installed(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.undo()
    fit(fresh(), pictures(), None, TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path)))
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_workers_read_the_same_batches():
    a, b = fresh(), fresh()
    fit(a, pictures(), None, TrainConfig(**QUIET, steps=7, out_dir=""))
    fit(b, pictures(), None, TrainConfig(**QUIET, steps=7, workers=1, out_dir=""))
    assert same(a, b)


def test_read_log_skips_a_half_written_row(tmp_path):
    (tmp_path / "metrics.csv").write_text(",".join(COLUMNS) + "\n1,0,0.5,0.1,3.0,\n2,0,0.6,0.1,2.5,2.75\n3,0,0.")
    rows = read_log(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2] and rows[1]["test_bits_per_dim"] == 2.75
    assert read_log(tmp_path / "nothing.csv") == []


def test_keeping_works_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr("rgflow.callbacks.os.link", refuse)
    fit(fresh(), pictures(), None, TrainConfig(**QUIET, epochs=1, keep_epoch=1, out_dir=str(tmp_path)))
    assert checkpoint(tmp_path, "epoch_00001.ckpt")["global_step"] == 5
    assert isinstance(Checkpoints(tmp_path).state_dict()["best"], float)


@pytest.mark.gpu
def test_a_gpu_trains_to_the_weights_of_the_cpu():
    """float64, 6 steps: the two differ by rounding alone, amplified by Adam's division; 1e-6 is ample for that."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    flows = []
    for accelerator in ("cpu", "gpu"):
        flow = fresh()
        fit(
            flow,
            pictures(flip=True),
            pictures(9),
            TrainConfig(**QUIET, precision="64", steps=6, accelerator=accelerator, out_dir=""),
        )
        flows.append(flow.cpu())
    for a, b in zip(*(f.parameters() for f in flows), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
