"""The original code's checkpoints give the original code's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rgflow import RGFlowConfig, authors, pixels

FOLDER = Path(__file__).parent / "data" / "rnvp_laplace"
CONFIG = RGFlowConfig(channels=1, size=8, nlayers=(3, 2), nres=2, nmlp=2, nhidden=16)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    with np.load(FOLDER / "expected.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.mark.parametrize("config", [CONFIG, FOLDER / "config.json"])
def test_the_numbers_of_the_original_code(expected, config) -> None:
    flow = authors.load_state(FOLDER / "0.state", config)
    assert (flow.config.order, flow.config.stream, flow.config.tied) == ("authors", "full", True)
    x, logit_ladj = pixels.to_logit(expected["image_uint8"], expected["noise"])
    z, ladj = flow.encode(x)
    ours = {
        "logit": x,
        "logit_ladj": logit_ladj,
        "z": z,
        "ladj": ladj,
        "log_prob": flow.log_prob(x),
        "bits_per_dim": flow.bits_per_dim(expected["image_uint8"], expected["noise"]),
    }
    for name, value in ours.items():
        assert_close(value, expected[name], rtol=0, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
    assert_close(flow.decode(z)[0], x, rtol=0, atol=1e-9)


def test_bare_and_multi_gpu_files(tmp_path, expected) -> None:
    state = torch.load(FOLDER / "0.state", weights_only=True)["flow"]
    x = pixels.to_logit(expected["image_uint8"], expected["noise"])[0]
    for name, content in {"bare": state, "multi": {f"module.net.{k}": v for k, v in state.items()}}.items():
        torch.save(content, tmp_path / name)
        assert_close(authors.load_state(tmp_path / name, CONFIG).encode(x)[0], expected["z"], rtol=0, atol=1e-9)


def test_bad_files_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        authors.load_state(tmp_path / "none.state", CONFIG)
    (tmp_path / "text").write_text("not a checkpoint")
    with pytest.raises(ValueError, match="not a readable .state file"):
        authors.load_state(tmp_path / "text", CONFIG)
    torch.save({"flow": {"a": torch.zeros(1)}}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="no weight-normalised layers"):
        authors.load_state(tmp_path / "foreign", CONFIG)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(ValueError, match="no dict of tensors"):
        authors.load_state(tmp_path / "list", CONFIG)
    state = torch.load(FOLDER / "0.state", weights_only=True)["flow"]
    for name, change, message in [
        (
            "prior",
            {"prior.scale": 3 * state["prior.scale"]},
            "a prior of scale 2.121 is not the config's laplace of 0.7071",
        ),
        ("mask", {"layers.0.mask_left": state["layers.0.mask_right"]}, "mask_left is not the checkerboard"),
        ("more", {"layers.0.foreign": torch.zeros(1)}, "layers.0.foreign is no tensor of the original code"),
    ]:
        torch.save(state | change, tmp_path / name)
        with pytest.raises(ValueError, match=message):
            authors.load_state(tmp_path / name, CONFIG)
    with pytest.raises(ValueError, match="is not the config's gaussian of 1"):
        authors.load_state(FOLDER / "0.state", replace(CONFIG, prior="gaussian"))
    for change, message in [
        ({"nhidden": 24}, "does not fit the given config"),
        ({"nlayers": (4, 2)}, "nothing in the file for"),
        ({"nlayers": (2, 2)}, "does not fit the given config"),
        ({"block": 2, "nlayers": 2}, "is not the checkerboard"),
        ({"size": 16, "nlayers": 2}, "does not fit|nothing in the file"),
        ({"size": 4, "nlayers": 3}, "does not fit|not a tensor"),
    ]:
        with pytest.raises(ValueError, match=message):
            authors.load_state(FOLDER / "0.state", replace(CONFIG, **change))


def test_bad_settings_files_are_refused(tmp_path) -> None:
    for content, message in [("[1]", "must hold the settings by name, not a list"), ("{", "is not JSON")]:
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(ValueError, match=f"c.json {message}"):
            authors.load_state(FOLDER / "0.state", tmp_path / "c.json")
    with pytest.raises(FileNotFoundError, match="none.json"):
        authors.load_state(FOLDER / "0.state", tmp_path / "none.json")


def test_bad_settings_are_refused() -> None:
    settings = json.loads((FOLDER / "config.json").read_text())
    for change, message in [
        ({"subnet": "ar"}, "only subnet 'rnvp' can be read, not 'ar'"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, not 'float16'"),
        ({"nlayers": "3,x"}, "nlayers must be integers with commas between them, not '3,x'"),
    ]:
        with pytest.raises(ValueError, match=message):
            authors.config_from_args(settings | change)
    with pytest.raises(ValueError, match="settings lack nhidden"):
        authors.config_from_args({k: v for k, v in settings.items() if k != "nhidden"})
