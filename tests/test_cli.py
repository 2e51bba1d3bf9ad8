"""The command line: the flags, the commands end to end on tiny flows, and one clear line for bad input."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rgflow import checkpoints, cli, flags
from rgflow.cli import main
from rgflow.flow import RealNVPConfig, RGFlowConfig, build
from rgflow.recipes import TrainConfig

ROOT = Path(__file__).parent.parent
TINY = "--nhidden 8 --nlayers 1 --net plain --batch-size 16 --print-step 1".split()
STATE = ROOT / "tests" / "data"


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    pytest.importorskip("pytorch_lightning")
    monkeypatch.setattr("rgflow.callbacks.tensorboard", lambda folder, step: None)


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
    assert code == 0 and "3 steps" in text and "standard error" in text and "bits/dim" in err and "threads" in err
    flow = checkpoints.load(out / "model.safetensors")
    assert flow.config == RGFlowConfig(channels=3, size=8, nhidden=8, nlayers=1, net="plain")
    assert (out / "metrics.csv").read_text().count("\n") == 4
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
    assert code == 2 and "holds another run" in err and "nhidden is 8 there and 512 here" in err


def test_evaluate_prints_bits_per_dim_with_standard_error(capsys, model):
    from rgflow import batches, data

    code, out, err = run(capsys, "evaluate", "--model", model, "--data", "digits8", "-n", "30")
    images = data.load("digits8", "test")
    score = batches.evaluate(checkpoints.load(model), images, indices=batches.spread(len(images), 30))
    assert code == 0 and err == ""
    assert out == f"test {score.mean:.4f} bits/dim, standard error {score.standard_error:.4f}, 30 images\n"


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
    assert code == 0 and "parameters" in text
    config = checkpoints.load(out).config
    assert (config.order, config.stream) == ("authors", "full")


def test_the_baseline_has_its_own_flags(tmp_path, capsys, pictures):
    arguments = ["--data", "images", "--data-path", pictures, "--steps", "1", "--quiet", "--batch-size", "8"]
    arguments += ["--model", "realnvp", "--nres", "1", "--nhidden", "4", "--scales", "2", "--out-dir", tmp_path / "r"]
    assert run(capsys, "train", *arguments)[0] == 0
    config = checkpoints.load(tmp_path / "r" / "model.safetensors").config
    assert config == RealNVPConfig(channels=3, size=8, nres=1, nhidden=4, scales=2)
    assert "unknown" not in run(capsys, "train", *arguments)[2]
    code, _, err = run(capsys, "train", *arguments, "--block", "4")
    assert code == 2 and "--block" in err


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


def test_every_option_is_a_flag_with_help(capsys):
    for model in ("rgflow", "realnvp"):
        with pytest.raises(SystemExit) as stop:
            main(["train", "--model", model, "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0
        for kind in (cli.MODELS[model], TrainConfig, flags.DataFlags):
            for field in dataclasses.fields(kind):
                assert f"--{field.name.replace('_', '-')}" in text, field.name
                assert flags.field_helps(kind).get(field.name), f"{kind.__name__}.{field.name} has no help"
    assert "8,6,4,2" in text or "(default:" in text


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


BAD = {
    "no command": ([], "usage"),
    "unknown command": (["paint"], "unknown command 'paint'; known are train"),
    "no data": (["train"], "--data"),
    "unknown flag": (["train", "--data", "digits8", "--colour", "red"], "Unrecognized options: --colour"),
    "unknown data": (["train", "--data", "faces"], "unknown data set 'faces'"),
    "unknown model": (["train", "--data", "digits8", "--model", "glow"], "'glow'"),
    "unknown prior": (["train", "--data", "digits8", "--prior", "cauchy"], "cauchy"),
    "not a number": (["train", "--data", "digits8", "--lr", "fast"], "fast"),
    "not integers": (["train", "--data", "digits8", "--nlayers", "4,b"], "nlayers must be an integer"),
    "too many levels": (["train", "--data", "digits8", "--nlayers", "4,3,2,2"], "nlayers must be one number or 2"),
    "block too big": (["train", "--data", "digits8", "--block", "16"], "does not fit blocks of 16"),
    "fixed size": (["train", "--data", "digits8", "--size", "16"], "digits8 has images of 8 x 8"),
    "zero steps": (["train", "--data", "digits8", "--steps", "0"], "steps must be above 0"),
    "zero devices": (["train", "--data", "digits8", "--devices", "0"], "devices must be at least 1, not 0"),
    "zero batch": (["train", "--data", "digits8", "--batch-size", "0"], "batch_size must be above 0"),
    "big batch": (["train", "--data", "digits8", "--batch-size", "5000"], "fewer than one batch of 5000"),
    "no images": (["train", "--data", "images", "--data-path", "{tmp}/none"], "none"),
    "no path": (["train", "--data", "images"], "--data-path"),
    "unwritable": (["train", "--data", "digits8", "--out-dir", "{tmp}/file/run"], "cannot be written"),
    "foreign strategy": (["train", "--data", "digits8", "--strategy", "sorcery"], "sorcery"),
    "sample: no model": (["sample", "--model", "nobody", "--out", "{tmp}/g.png"], "no model file 'nobody'"),
    "sample: pickle": (["sample", "--model", "{tmp}/file", "--out", "{tmp}/g.png"], "no model file of rgflow"),
    "sample: no out": (["sample", "--model", "{model}"], "--out"),
    "sample: out in a file": (["sample", "--model", "{model}", "--out", "{tmp}/file/g.png"], "file"),
    "sample: out a folder": (["sample", "--model", "{model}", "--out", "{tmp}"], "is a folder"),
    "sample: none": (["sample", "--model", "{model}", "--out", "{tmp}/g.png", "-n", "0"], "n must be at least 1"),
    "sample: levels": (["sample", "--model", "{model}", "--out", "{tmp}/g.png", "--temperature", "1,2,3"], "2"),
    "sample: heat": (["sample", "--model", "{model}", "--out", "{tmp}/g.png", "--temperature", "hot"], "'hot'"),
    "sample: cold": (["sample", "--model", "{model}", "--out", "{tmp}/g.png", "--temperature", "-1"], "temperature"),
    "evaluate: other size": (["evaluate", "--model", "{model}", "--data", "patches32"], "patches32 has images of 32"),
    "evaluate: -n -1": (["evaluate", "--model", "{model}", "--data", "digits8", "-n", "-1"], "n must be at least 0"),
    "evaluate: batch": (["evaluate", "--model", "{model}", "--data", "digits8", "--batch-size", "0"], "batch_size"),
    "info: missing": (["info", "{tmp}/nothing.safetensors"], "no model file"),
    "data: no action": (["data"], "make, check, preview"),
    "data: other action": (["data", "burn"], "'burn'"),
    "convert: missing": (["convert", "{tmp}/0.state", "--config", "{tmp}/c.json", "--out", "{tmp}/c"], "c.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, model, case):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    arguments, message = BAD[case]
    code, out, err = run(capsys, *(a.format(tmp=tmp_path, model=model) for a in arguments))
    assert code == 2
    if case == "no command":
        assert message in out
        return
    assert message in err and out == "" and err.startswith("rgflow: ") and err.count("\n") == 1
    assert "Traceback" not in err and len(err) < 500
    if case not in ("foreign strategy", "big batch"):  # found by the trainer, when the folder exists
        assert sorted(os.listdir(tmp_path)) == before, "something was left behind"


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

    monkeypatch.setitem(cli.COMMANDS, "info", broken)
    with pytest.raises(KeyError):
        main(["info", "x"])


def test_the_module_starts_without_lightning():
    code = (
        "import sys, rgflow.cli; sys.exit(any(m.startswith(('pytorch_lightning', 'torchvision')) for m in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    out = subprocess.run([sys.executable, "-m", "rgflow", "--help"], env=environment, capture_output=True, text=True)
    assert out.returncode == 0 and all(name in out.stdout for name in cli.COMMANDS)
