"""The command line: the flags, the commands end to end on tiny flows, and one clear line for bad input."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
import subprocess
import sys
import time
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rgflow import checkpoints, commands, flags, options
from rgflow.cli import main
from rgflow.flow import ODEFlowConfig, RealNVPConfig, RGFlowConfig, build
from rgflow.recipes import PRESETS, TrainConfig, divided, levels_of

ROOT = Path(__file__).parent.parent
TINY = "--nhidden 8 --nlayers 1 --net plain --batch-size 16 --print-step 1".split()
STATE = ROOT / "tests" / "data"


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    pytest.importorskip("pytorch_lightning")
    monkeypatch.setattr("rgflow.callbacks.tensorboard", lambda folder, step: None)


@pytest.fixture(autouse=True)
def log_as_before():
    """The command sends the log to stderr, for as long as its process lives; other tests must not notice."""
    logger = logging.getLogger("rgflow")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def pictures(tmp_path):
    """The user's own images, 40 of 8 x 8 colour pixels."""
    path = tmp_path / "mine.npz"
    images = np.random.default_rng(0).integers(0, 200, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images=images)
    return path


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.safetensors"
    config = RGFlowConfig(channels=1, size=8, nlayers=1, net="plain", nhidden=8)
    checkpoints.save(build(config, torch.Generator().manual_seed(0)), path, {"data": "digits8"})
    return path


def run(capsys, *args):
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_commands_of_the_issue_train_and_sample(tmp_path, capsys, pictures):
    out = tmp_path / "runs" / "a"
    command = ["train", "--data", "images", "--data-path", pictures, "--steps", "3", "--out-dir", out, *TINY]
    code, text, err = run(capsys, *command)
    line = r"3 steps, 1 epochs, \d+ s, test \d\.\d{4} bits/dim, standard error 0\.\d{4}, 4 images\n"
    assert code == 0 and re.fullmatch(line + re.escape(f"model: {out / 'model.safetensors'}\n"), text)
    assert re.match(r"training \d+ parameters on 36 images, \d+ threads\n", err) and "bits/dim" in err
    flow = checkpoints.load(out / "model.safetensors")
    assert flow.config == RGFlowConfig(channels=3, size=8, nhidden=8, nlayers=1, net="plain")
    assert (out / "metrics.csv").read_text().count("\n") == 4
    assert str(tmp_path) not in checkpoints.read_card(f"{out}/model.safetensors")["card"]["command"]
    code, text, _ = run(capsys, *command[:5], "--steps", "5", *command[7:], "--quiet")  # the same run, longer
    assert code == 0 and text == ""
    assert checkpoints.read_card(out / "model.safetensors")["card"]["steps"] == 5

    png = tmp_path / "new" / "grid.png"
    code, text, _ = run(capsys, "sample", "--model", out / "model.safetensors", "--out", png, "-n", 6, "--npy")
    assert code == 0 and str(png) in text
    images = np.load(png.with_suffix(".npy"))
    assert images.shape == (6, 8, 8, 3) and images.dtype == np.uint8
    assert Image.open(png).size == (2 * (3 * 9 - 1), 2 * (2 * 9 - 1))
    code, _, err = run(capsys, "train", "--data", "images", "--data-path", pictures, "--out-dir", out, *TINY[2:])
    assert code == 2 and f"rgflow: {out} holds another run: " in err and "model nhidden is 8 there and 512 here" in err


def test_evaluate_prints_bits_per_dim_with_standard_error(capsys, model):
    from rgflow import batches, data

    code, out, err = run(capsys, "evaluate", "--model", model, "--data", "digits8", "-n", "30")
    images = data.load("digits8", "test")
    score = batches.evaluate(checkpoints.load(model), images, indices=batches.spread(len(images), 30))
    assert code == 0 and err == ""
    assert out == f"test {score.mean:.4f} bits/dim, standard error {score.standard_error:.4f}, 30 images\n"


def test_evaluate_says_which_part_it_measures(capsys, model):
    from rgflow import batches, data

    code, out, err = run(capsys, "evaluate", "--model", model, "--data", "digits8", "--split", "train", "-n", "20")
    images = data.load("digits8", "train")
    score = batches.evaluate(checkpoints.load(model), images, indices=batches.spread(len(images), 20))
    assert (code, err) == (0, "")
    assert out == f"train {score.mean:.4f} bits/dim, standard error {score.standard_error:.4f}, 20 images\n"


def test_evaluate_takes_the_test_images_of_the_model(tmp_path, capsys, pictures):
    """Trained with --data-seed 5: other test images may be training images, and this is said."""
    options = ["--data", "images", "--data-path", pictures]
    train = ["train", *options, "--steps", "2", "--quiet", *TINY, "--out-dir"]
    assert run(capsys, *train, tmp_path / "a", "--data-seed", "5")[0] == 0
    model = tmp_path / "a" / "model.safetensors"
    card = checkpoints.read_card(model)["card"]
    assert card["data_seed"] == 5 and "test_index" not in card
    own = f"test {card['test_bits_per_dim']:.4f} bits/dim, standard error {card['test_standard_error']:.4f}, 4 images\n"
    evaluate = ["evaluate", "--model", model, *options]
    assert run(capsys, *evaluate) == (0, own, "")
    assert run(capsys, *evaluate, "--data-seed", "5") == (0, own, "")
    warning = "these are not the test images of the model's card (data images, data_seed {}): "
    warning += "it may have learnt some of them\n"
    code, out, err = run(capsys, *evaluate, "--data-seed", "0")
    assert code == 0 and out != own and out.startswith("test ") and err == warning.format(5)
    code, _, err = run(capsys, *evaluate, "--data-seed", "0", "--split", "train")
    assert (code, err) == (0, ""), "the training set is asked for"

    (tmp_path / "index.txt").write_text("3 7 9")
    (tmp_path / "other.txt").write_text("3 7 8")
    assert run(capsys, *train, tmp_path / "b", "--test-index", tmp_path / "index.txt")[0] == 0
    evaluate[2] = tmp_path / "b" / "model.safetensors"
    card = checkpoints.read_card(evaluate[2])["card"]
    assert card["test_index"] == "index.txt", "a name, and no path of this machine"
    assert run(capsys, *evaluate, "--test-index", tmp_path / "index.txt")[2] == ""
    known = warning.format("0, test_index index.txt")
    assert run(capsys, *evaluate)[2] == run(capsys, *evaluate, "--test-index", tmp_path / "other.txt")[2] == known
    code, _, err = run(capsys, *train, tmp_path / "b", "--test-index", tmp_path / "other.txt")
    assert code == 2 and "data test_index is 'index.txt' there and 'other.txt' here" in err


def test_training_images_are_mirrored_if_asked(tmp_path, capsys, pictures, monkeypatch):
    mirrored = []
    monkeypatch.setattr("rgflow.batches.flipped", lambda images, *_: mirrored.append(len(images)) or images)
    train = ["train", "--data", "images", "--data-path", pictures, "--steps", "2", "--quiet", *TINY, "--out-dir"]
    for name, extra, seen in (("a", [], False), ("b", ["--flip", "no"], False), ("c", ["--flip", "yes"], True)):
        mirrored.clear()
        assert run(capsys, *train, tmp_path / name, *extra)[0] == 0 and bool(mirrored) == seen
    assert checkpoints.read_card(tmp_path / "c" / "model.safetensors")["card"]["flip"] == "yes"
    code, _, err = run(capsys, *train, tmp_path / "c", "--flip", "no")
    assert code == 2 and "data flip is 'yes' there and 'no' here" in err


def test_oblong_images_are_trained_sampled_and_evaluated(tmp_path, capsys):
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).integers(0, 200, (40, 8, 16, 3), dtype=np.uint8))
    options, out = ["--data", "images", "--data-path", tmp_path / "wide.npy"], tmp_path / "r"
    train = ["train", *options, "--size", "8,16", "--steps", "2", "--quiet", *TINY, "--out-dir", out]
    assert run(capsys, *train) == (0, "", "")
    model = out / "model.safetensors"
    card = checkpoints.read_card(model)
    assert card["config"]["size"] == [8, 16]
    own = f"test {card['card']['test_bits_per_dim']:.4f} bits/dim, "
    for size in ([], ["--size", "8,16"]):
        code, text, err = run(capsys, "evaluate", "--model", model, *options, *size)
        assert (code, err) == (0, "") and text.startswith(own)
    code, _, err = run(capsys, "evaluate", "--model", model, "--data", "digits8")
    assert (code, err) == (2, "rgflow: digits8 has square images only, not 8 x 16 pixels\n")
    code, _, err = run(capsys, "evaluate", "--model", model, *options, "--size", "8")
    assert (code, err) == (2, "rgflow: the images are (3, 8, 8), the model takes (3, 8, 16)\n")
    Image.new("RGB", (16, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 8)).save(tmp_path / "b.png")
    code, _, err = run(capsys, "evaluate", "--model", model, "--data", "images", "--data-path", tmp_path)
    line = "rgflow: the images are 32 x 32, only a square size can be made of them, not 8 x 16\n"
    assert (code, err) == (2, line)


def test_cards_name_no_folders() -> None:
    words = ["--data", "a/b", "--data-path=/home/me/faces", "-o", "/srv/runs/x", "--lr", "1e-3", "--name=x"]
    expected = ["--data", "a/b", "--data-path=faces", "-o", "x", "--lr", "1e-3", "--name=x"]
    assert flags.without_folders(words) == expected


def test_the_same_command_goes_on_after_sigkill(tmp_path, capsys, pictures):
    train = ["train", "--data", "images", "--data-path", str(pictures), "--steps", "150", "--quiet", *TINY]
    command = [*train, "--save-minutes", "1e-9", "--plot-epoch", "0", "--out-dir", str(tmp_path / "b")]
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-m", "rgflow", *command], env=environment, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not last.exists():
            assert child.poll() is None and time.monotonic() < deadline, "the child made no checkpoint"
            time.sleep(0.005)
        time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    assert 0 < torch.load(last, weights_only=True)["global_step"] < 150
    assert run(capsys, *command) == (0, "", "")
    assert run(capsys, *train, "--save-epoch", "0", "--out-dir", tmp_path / "a") == (0, "", "")
    one, two = (checkpoints.load(tmp_path / part / "model.safetensors").state_dict() for part in "ab")
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_mixed_temperatures_reach_their_levels(tmp_path, capsys, model):
    grids = {}
    for text in ("1", "1,1", "0.2,0.6", "0.2,1"):
        assert run(capsys, "sample", "--model", model, "--out", tmp_path / "g.png", "--temperature", text)[0] == 0
        grids[text] = (tmp_path / "g.png").read_bytes()
    assert grids["1"] == grids["1,1"] and len(set(grids.values())) == 3


def test_info_shows_the_card(capsys, model):
    code, out, _ = run(capsys, "info", model)
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert code == 0 and lines["model"] == "RGFlowConfig" and lines["card.data"] == "digits8"
    assert lines["config.nhidden"] == "8" and lines["config.size"] == "[8, 8]"


def test_data_make_check_and_preview(tmp_path, capsys):
    code, out, _ = run(capsys, "data", "make", "--data", "digits8")
    assert code == 0 and "train: 1618 images of 1 x 8 x 8" in out and "test: 179 images" in out
    code, out, _ = run(capsys, "data", "check", "--data", "digits8", "--channels", "3")
    assert code == 0 and "3 x 8 x 8" in out and "grey levels 0..255" in out and "never mirrored" in out
    code, _, _ = run(capsys, "data", "preview", "--data", "digits8", "--out", tmp_path / "p.png", "-n", 4)
    assert code == 0 and Image.open(tmp_path / "p.png").size == (34, 34)


def test_convert_reads_the_files_of_the_original_program(tmp_path, capsys):
    state = next(iter(sorted(STATE.rglob("*.state"))), None)
    if state is None:
        pytest.skip("no .state file among the tests' data")
    out = tmp_path / "c.safetensors"
    code, text, _ = run(capsys, "convert", state, "--config", state.with_name("config.json"), "--out", out)
    flow = checkpoints.load(out)
    assert (code, text) == (0, f"{sum(p.numel() for p in flow.parameters())} parameters: {out}\n")
    config = flow.config
    assert (config.order, config.stream) == ("authors", "full")


def test_the_baseline_has_its_own_flags(tmp_path, capsys, pictures):
    arguments = ["--data", "images", "--data-path", pictures, "--steps", "1", "--quiet", "--batch-size", "8"]
    arguments += ["--model", "realnvp", "--nres", "1", "--nhidden", "4", "--scales", "2", "--out-dir", tmp_path / "r"]
    assert run(capsys, "train", *arguments) == (0, "", "")
    config = checkpoints.load(tmp_path / "r" / "model.safetensors").config
    assert config == RealNVPConfig(channels=3, size=8, nres=1, nhidden=4, scales=2)
    assert run(capsys, "train", *arguments) == (0, "", ""), "the finished run is read again"
    code, out, err = run(capsys, "train", *arguments, "--block", "4")
    assert (code, out, err) == (2, "", "rgflow: Unrecognized options: --block, 4 (see rgflow train --help)\n")


def test_neural_odes_have_their_own_flags(tmp_path, capsys, pictures):
    arguments = ["--data", "images", "--data-path", pictures, "--steps", "1", "--quiet", "--batch-size", "4"]
    arguments += ["--model", "ode", "--widths", "3,2", "--nhyper", "2", "--solver", "euler", "--nsteps", "1"]
    arguments += ["--boundary", "zeros", "--kinetic", "0.5", "--preset", "fast", "--no-bias", "--plot-epoch", "0"]
    arguments += ["--out-dir", tmp_path / "r"]
    assert run(capsys, "train", *arguments) == (0, "", "")
    model = tmp_path / "r" / "model.safetensors"
    config = ODEFlowConfig(size=8, widths=(3, 2), nhyper=2, solver="euler", nsteps=1, boundary="zeros", kinetic=0.5)
    assert checkpoints.load(model).config == dataclasses.replace(config, bias=False)
    assert run(capsys, "sample", "--model", model, "--out", tmp_path / "s.png", "-n", 4)[0] == 0


def test_the_preset_sets_defaults_that_flags_override(monkeypatch, capsys, pictures):
    seen = []

    def fit(flow, train_set, test_set, recipe, data, card):
        seen.append((flow.config, recipe))
        raise ValueError("seen")

    monkeypatch.setattr("rgflow.train.fit", fit)
    arguments = ["train", "--data", "images", "--data-path", pictures, "--nhidden", "8", "--nlayers", "2"]
    for extra in ([], ["--preset", "authors"], ["--preset", "authors", "--weight-decay", "0.1", "--stream", "half"]):
        assert run(capsys, *arguments, *extra, "--out-dir", "")[0] == 2
    (paper, p), (authors, a), (mixed, m) = seen
    assert (p.weight_decay, paper.order, paper.stream) == (5e-5, "paper", "half")
    assert (a.weight_decay, authors.order, authors.stream) == (5e-2, "authors", "full")
    assert (m.weight_decay, mixed.order, mixed.stream) == (0.1, "authors", "half")
    assert a.folder is None and paper.nlayers == 2


def test_presets_fit_the_size_of_the_images_and_flags_override_them(tmp_path, monkeypatch, capsys, pictures):
    seen = []

    def fit(flow, train_set, test_set, recipe, data, card):
        seen.append((flow.config, recipe, card["preset"]))
        raise ValueError("seen")

    monkeypatch.setattr("rgflow.train.fit", fit)
    np.save(tmp_path / "wide.npy", np.zeros((40, 64, 128, 1), np.uint8))
    np.save(tmp_path / "usual.npy", np.zeros((40, 32, 32, 1), np.uint8))

    def config(path, *extra):
        code, _, err = run(capsys, "train", "--data", "images", "--data-path", path, *extra, "--out-dir", "")
        assert (code, err) == (2, "rgflow: seen\n"), err
        return seen[-1]

    narrow = ["--nhidden", "8"]
    for name, expected in (("usual", (4, 3, 2, 2)), ("wide", (4, 3, 2, 2, 2))):
        size = ["--size", "64,128"] if name == "wide" else []
        for preset in ("fast", "small"):
            flow, recipe, card = config(tmp_path / f"{name}.npy", "--preset", preset, *size)
            assert flow.nlayers == expected and flow.nhidden == 96 and card == preset
            for key, value in PRESETS[preset].items():
                own = getattr(flow, key) if hasattr(flow, key) else getattr(recipe, key)
                assert own == (expected if key == "nlayers" else value), key
    small, recipe, _ = config(pictures, "--preset", "small", *narrow)
    assert (small.nlayers, small.nres, small.net, small.tied, small.nhidden) == ((4, 3), 1, "residual", True, 8)
    assert recipe == TrainConfig(out_dir="")
    assert config(pictures, "--preset=fast", "--nlayers=2,1", *narrow)[0].nlayers == (2, 1)
    fast, recipe, _ = config(pictures, "--preset", "fast", "--nlayers", "5", "--ema", "0", "--tied", *narrow)
    assert (fast.nlayers, fast.tied, recipe.ema, recipe.schedule) == (5, True, 0.0, "cosine")
    shared = config(pictures, "--preset", "small", "--share-levels", *narrow)[0]
    assert shared.nlayers == 4
    baseline, recipe, _ = config(pictures, "--preset", "fast", "--model", "realnvp", "--scales", "2", *narrow)
    assert baseline == RealNVPConfig(channels=3, size=8, nhidden=8, scales=2) and recipe.ema == PRESETS["fast"]["ema"]
    arguments = ["train", "--data", "images", "--data-path", pictures, "--preset", "fast", "--out-dir", ""]
    code, _, err = run(capsys, *arguments, "--nlayers", "4,3,2,2")
    assert code == 2 and err.startswith("rgflow: nlayers must be one number or 2 "), "a flag of one's own is not cut"


def test_numbers_per_level_are_cut_or_the_last_is_repeated():
    assert levels_of((4, 3, 2, 1), 2) == (4, 3) and levels_of((4, 3, 2, 1), 6) == (4, 3, 2, 1, 1, 1)
    assert levels_of((4, 3), 2) == (4, 3) and levels_of((7,), 3) == (7, 7, 7)


def test_every_preset_is_a_choice_and_names_settings_that_exist():
    hint = typing.get_type_hints(options.TrainFlags)["preset"]
    assert set(typing.get_args(hint)) == set(PRESETS)
    known = {field.name for kind in (RGFlowConfig, TrainConfig) for field in dataclasses.fields(kind)}
    for preset in PRESETS.values():
        assert preset.keys() <= known
        of_model, of_training = divided(preset)
        assert of_model | of_training == preset
        RGFlowConfig(**of_model)
        TrainConfig(**of_training)


def test_a_choice_that_may_be_none_is_a_flag():
    read = lambda *args: flags.parse("x", "", [RGFlowConfig], list(args), {}, {})["linear"]  # noqa: E731
    assert read() is None and read("--linear", "whitened") == "whitened" and read("--linear", "None") is None
    with pytest.raises(ValueError, match="--linear"):
        read("--linear", "blackened")


def test_every_option_is_a_flag_with_help(capsys):
    for model in ("rgflow", "realnvp", "ode"):
        with pytest.raises(SystemExit) as stop:
            main(["train", "--model", model, "--help"])
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert stop.value.code == 0
        for kind in (commands.MODELS[model], TrainConfig, options.DataFlags):
            for field in dataclasses.fields(kind):
                if kind is commands.MODELS[model] and field.name in ("size", "channels"):
                    continue  # the flags of the data say it
                about = flags.field_helps(kind)[field.name]
                flag = rf"--{field.name.replace('_', '-')}\b.{{1,60}}{re.escape(about[:30])}"
                assert re.search(flag, text), field.name
                assert f"{about} (" in text, f"--{field.name} does not end with its default"


def test_per_level_lists_and_units_are_read():
    parts = [RGFlowConfig]
    read = lambda *args: flags.parse("x", "", parts, list(args), {}, {})  # noqa: E731
    assert read("--nlayers", "4,3,2,2")["nlayers"] == (4, 3, 2, 2)
    assert (
        read("--nlayers", "7")["nlayers"] == 7
        and read()["nlayers"] is None
        and read("--nlayers", "none")["nlayers"] is None
    )
    assert read("--no-tied")["tied"] is False
    assert flags.peek(["--a=3", "--b", "4"], "a") == "3" and flags.peek(["--a=3", "--b", "4"], "b") == "4"
    assert flags.peek(["--b"], "b") is None


DIGITS = ["train", "--data", "digits8"]
SAMPLE = ["sample", "--model", "{model}", "--out", "{tmp}/g.png"]
EVALUATE = ["evaluate", "--model", "{model}", "--data"]
HELP = "(see rgflow train --help)"
SETS = "msds1, msds2, patches32, patches64, digits8, mnist32, cifar10, celeba32, chair600, images"

BAD = {  # the whole line on stderr
    "unknown command": (
        ["paint"],
        "unknown command 'paint'; known are train, sample, evaluate, inpaint, data, info, convert",
    ),
    "no data": (
        ["train"],
        "Missing from rgflow train: --data STR name of the set: celeba32, mnist32, cifar10, chair600, msds1, msds2, "
        f"patches32, patches64, digits8, or images for your own. (required) {HELP}",
    ),
    "unknown flag": ([*DIGITS, "--colour", "red"], f"Unrecognized options: --colour, red {HELP}"),
    "unknown data": (["train", "--data", "faces"], f"unknown data set 'faces'; known are {SETS}"),
    "unknown model": (
        [*DIGITS, "--model", "glow"],
        f"invalid choice 'glow' for argument '--model'. Expected one of ('rgflow', 'realnvp', 'ode'). {HELP}",
    ),
    "unknown prior": (
        [*DIGITS, "--prior", "cauchy"],
        f"invalid choice 'cauchy' for argument '--prior'. Expected one of ('laplace', 'gaussian'). {HELP}",
    ),
    "not a number": (
        [*DIGITS, "--lr", "fast"],
        f"Error parsing --lr: could not convert string to float: 'fast' {HELP}",
    ),
    "rate not finite": ([*DIGITS, "--lr", "nan"], "lr must be above 0, not nan"),
    "not integers": (
        [*DIGITS, "--nlayers", "4,b"],
        "nlayers must be an integer or integers with commas between them, not '4,b'",
    ),
    "half a step": (
        [*DIGITS, "--steps", "2.5"],
        f"Error parsing --steps: no type matching {{{{None}}}}|INT could be instantiated from ['2.5']. {HELP}",
    ),
    "zero steps": ([*DIGITS, "--steps", "0"], "steps must be above 0, not 0"),
    "zero devices": ([*DIGITS, "--devices", "0"], "devices must be at least 1, not 0"),
    "devices in words": (
        [*DIGITS, "--devices", "two"],
        "devices must be a number, GPU numbers such as 0,1 or 3, or auto, not 'two'",
    ),
    "one GPU on the cpu": (
        [*DIGITS, "--devices", "3,"],
        "devices 3, must be different GPUs (--accelerator gpu); on the cpu give a number",
    ),
    "zero batch": ([*DIGITS, "--batch-size", "0"], "batch_size must be above 0, not 0"),
    "big batch": (
        [*DIGITS, "--batch-size", "5000"],
        "the training set has 1618 images, fewer than one batch of 5000",
    ),
    "big seed": ([*DIGITS, "--seed", str(2**63)], "seed must be below 2^63, not 9223372036854775808"),
    "precision": ([*DIGITS, "--precision", "16"], "precision must be one of None, 32, 64, bf16-mixed, not '16'"),
    "fixed size": ([*DIGITS, "--size", "16"], "digits8 has images of 8 x 8, size must be 8, got 16"),
    "square only": ([*DIGITS, "--size", "8,16"], "digits8 has square images only, not 8 x 16 pixels"),
    "three sides": ([*DIGITS, "--size", "8,16,4"], "size must be one integer or two equal ones, got (8, 16, 4)"),
    "size in words": (
        [*DIGITS, "--size", "big"],
        "size must be an integer or integers with commas between them, not 'big'",
    ),
    "channels": (
        [*DIGITS, "--channels", "2"],
        "images with 1 channels cannot be turned into 2; only 1 to 3 and 3 to 1 can",
    ),
    "test index": (
        [*DIGITS, "--test-index", "f"],
        "a test index file goes with images only; digits8 has its own test set",
    ),
    "download": ([*DIGITS, "--download"], "digits8 is never downloaded; leave download out"),
    "no images": (
        ["train", "--data", "images", "--data-path", "{tmp}/none"],
        "images: {tmp}/none is neither a folder of pictures nor a .npy or .npz file",
    ),
    "no path": (
        ["train", "--data", "images"],
        "images needs --data-path: a folder of pictures, a .npy or an .npz file",
    ),
    "empty data": (
        ["train", "--data", "images", "--data-path", "{tmp}/empty"],
        "images: no pictures under {tmp}/empty; looked for .bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp",
    ),
    "NaN pixels": (
        ["train", "--data", "images", "--data-path", "{tmp}/nan.npy"],
        "{tmp}/nan.npy: images must be uint8 (0..255), got float32",
    ),
    "NaN pixels, checked": (
        ["data", "check", "--data", "images", "--data-path", "{tmp}/nan.npy"],
        "{tmp}/nan.npy: images must be uint8 (0..255), got float32",
    ),
    "broken data": (
        ["train", "--data", "images", "--data-path", "{tmp}/broken.npz"],
        "{tmp}/broken.npz cannot be read as .npz: File is not a zip file",
    ),
    "oblong of square": (
        ["train", "--data", "images", "--data-path", "{tmp}/square.npy", "--size", "8,16"],
        "the images are 8 x 8, only a square size can be made of them, not 8 x 16",
    ),
    "unwritable": (
        [*DIGITS, "--out-dir", "{tmp}/file/run"],
        "[Errno 20] the output folder {tmp}/file/run cannot be written: Not a directory",
    ),
    "sample: no model": (
        ["sample", "--model", "nobody", "--out", "{tmp}/g.png"],
        f"no model file 'nobody' and no shipped model of that name (shipped: {', '.join(checkpoints.shipped())})",
    ),
    "sample: no out": (
        ["sample", "--model", "{model}"],
        "Missing from rgflow sample: --out STR the PNG file. (required) (see rgflow sample --help)",
    ),
    "sample: out in a file": (
        ["sample", "--model", "{model}", "--out", "{tmp}/file/g.png"],
        "[Errno 17] File exists: '{tmp}/file'",
    ),
    "sample: out a folder": (
        ["sample", "--model", "{model}", "--out", "{tmp}"],
        "{tmp} is a folder, the output must be a file",
    ),
    "sample: two in one": (
        ["sample", "--model", "{model}", "--out", "{tmp}/x.npy", "--npy"],
        "{tmp}/x.npy would hold both the picture and the array: --out needs another ending than .npy",
    ),
    "sample: none": ([*SAMPLE, "-n", "0"], "n must be at least 1, not 0"),
    "sample: no columns": ([*SAMPLE, "--columns", "0"], "columns must be at least 1, not 0"),
    "sample: no scale": ([*SAMPLE, "--scale", "0"], "scale must be at least 1, not 0"),
    "sample: heat": (
        [*SAMPLE, "--temperature", "hot"],
        "temperature must be a number or numbers with commas between them, not 'hot'",
    ),
    "evaluate: other size": ([*EVALUATE, "patches32"], "patches32 has images of 32 x 32, size must be 32, got 8"),
    "evaluate: -n -1": ([*EVALUATE, "digits8", "-n", "-1"], "n must be at least 0, not -1"),
    "evaluate: batch": ([*EVALUATE, "digits8", "--batch-size", "0"], "batch_size must be at least 1, not 0"),
    "evaluate: channels": (
        [*EVALUATE, "digits8", "--channels", "3"],
        "the images are (3, 8, 8), the model takes (1, 8, 8)",
    ),
    "data: no action": (["data"], "data needs one of make, check, preview"),
    "data: other action": (["data", "burn"], "data needs one of make, check, preview, not 'burn'"),
}
BAD_ELSEWHERE = {  # found by the model, by Lightning or by safetensors, whose words these are: the beginning is enough
    "too many levels": ([*DIGITS, "--nlayers", "4,3,2,2"], "nlayers must be one number or 2 "),
    "block too big": ([*DIGITS, "--block", "16"], "size 8 x 8 does not fit blocks of 16"),
    "foreign strategy": (
        [*DIGITS, "--strategy", "sorcery"],
        "You selected an invalid strategy name: `strategy='sorcery'`.",
    ),
    "sample: pickle": (
        ["sample", "--model", "{tmp}/file", "--out", "{tmp}/g.png"],
        "{tmp}/file is no model file of rgflow, or truncated or corrupted: ",
    ),
    "sample: levels": ([*SAMPLE, "--temperature", "1,2,3"], "temperature must be one number, 2 numbers "),
    "sample: cold": ([*SAMPLE, "--temperature", "-1"], "temperature"),
    "info: missing": (["info", "{tmp}/nothing.safetensors"], "no model file '{tmp}/nothing.safetensors'"),
    "convert: missing": (
        ["convert", "{tmp}/0.state", "--config", "{tmp}/c.json", "--out", "{tmp}/c"],
        "no such file: {tmp}/c.json",
    ),
}


@pytest.mark.parametrize("case", [*BAD, *BAD_ELSEWHERE])
def test_bad_input_gives_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, model, case):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 but no archive")
    np.save(tmp_path / "nan.npy", np.full((20, 8, 8, 3), np.nan, np.float32))
    np.save(tmp_path / "square.npy", np.zeros((20, 8, 8, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    arguments, message = (BAD | BAD_ELSEWHERE)[case]
    code, out, err = run(capsys, *(a.format(tmp=tmp_path, model=model) for a in arguments))
    assert code == 2 and out == "" and err.count("\n") == 1 and err.endswith("\n")
    expected = "rgflow: " + message.format(tmp=tmp_path)
    if case in BAD:
        assert err == expected + "\n"
    else:
        assert err.startswith(expected) and len(err) < 500
    if case not in ("foreign strategy", "big batch"):  # found by the trainer, when the folder exists
        assert sorted(os.listdir(tmp_path)) == before, "something was left behind"


def test_no_command_gives_the_usage(capsys):
    code, out, err = run(capsys)
    assert code == 2 and err == "" and out.startswith("usage: rgflow COMMAND [flags]\n")
    assert run(capsys, "--help") == (0, out, "")


def test_a_folder_without_permission_is_named(tmp_path, capsys, monkeypatch):
    """Simulated, for root may write anywhere."""

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("rgflow.files.tempfile.NamedTemporaryFile", denied)
    code, out, err = run(capsys, *DIGITS, "--out-dir", tmp_path / "r")
    assert (code, out) == (2, "")
    assert err == f"rgflow: [Errno 13] the output folder {tmp_path / 'r'} cannot be written: Permission denied\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("file", ["last.ckpt", "model.safetensors", "metrics.csv"])
def test_a_full_disk_gives_one_line(tmp_path, capsys, monkeypatch, pictures, file):
    fsync = os.fsync

    def full(handle):
        if f".{file}." in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr("rgflow.checkpoints.os.fsync", full)
    arguments = ["train", "--data", "images", "--data-path", pictures, "--steps", "2", "--quiet", *TINY]
    assert run(capsys, *arguments, "--out-dir", tmp_path / "r") == (
        2,
        "",
        "rgflow: [Errno 28] No space left on device\n",
    )
    assert not [path for path in (tmp_path / "r").rglob("*") if path.suffix == ".tmp" or path.name == file]


def test_a_failed_run_has_exit_code_1(monkeypatch, capsys, pictures):
    def fit(*_):
        raise FloatingPointError("the loss is not finite at step 3: first at level 1")

    monkeypatch.setattr("rgflow.train.fit", fit)
    arguments = ["train", "--data", "images", "--data-path", pictures, *TINY, "--out-dir", ""]
    code, _, err = run(capsys, *arguments)
    assert code == 1 and err == "rgflow: the loss is not finite at step 3: first at level 1\n"


def test_a_terminated_run_has_exit_code_143(monkeypatch, capsys, pictures, tmp_path):
    import signal

    from rgflow.callbacks import Budget

    tick = Budget._tick

    def terminated(self, trainer, module):
        tick(self, trainer, module)
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Budget, "_tick", terminated)
    arguments = ["train", "--data", "images", "--data-path", pictures, *TINY, "--save-epoch", "0", "--out-dir"]
    assert run(capsys, *arguments, tmp_path / "r")[0] == 143
    saved = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] in (3, 4), "no checkpoint at the signal"


def test_errors_of_our_own_keep_their_traceback(monkeypatch):
    def broken(_):
        raise KeyError("a bug")

    monkeypatch.setitem(commands.COMMANDS, "info", broken)
    with pytest.raises(KeyError):
        main(["info", "x"])


def test_the_module_starts_without_lightning():
    code = (
        "import sys, rgflow.cli; sys.exit(any(m.startswith(('pytorch_lightning', 'torchvision')) for m in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    out = subprocess.run([sys.executable, "-m", "rgflow", "--help"], env=environment, capture_output=True, text=True)
    assert out.returncode == 0 and all(name in out.stdout for name in commands.COMMANDS)
