"""The page "Use your own images" is run, command by command, on pictures made up here.

What differs from the page stands in `SHORTER`: a budget in steps in place of minutes, narrow networks, a small hole;
and the search for a fill ends after five steps.
"""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rgflow import cli
from rgflow.modes import Ascent

PAGE = (Path(__file__).parent.parent / "book" / "own_images.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TINY = "--nhidden 8 --nlayers 1 --batch-size 4 --fit-images 96 --quiet"
SHORTER = {
    "--minutes 10": f"--steps 2 {TINY}",
    "--minutes 15": f"--steps 4 {TINY}",
    "--box 8,8,16,16": "--box 14,14,4,4",
}
WRITES = {"data": "seen.png", "train": "runs/mine/model.safetensors", "sample": "samples.png", "inpaint": "filled.png"}


def commands() -> list[str]:
    """The lines of the shell blocks, as the page has them."""
    blocks = [block.replace("\\\n", " ") for kind, block in BLOCKS if kind == "sh"]
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def shortened(command: str) -> str:
    for text, short in SHORTER.items():
        command = command.replace(text, short)
    return command


def test_every_shortening_is_still_on_the_page() -> None:
    used = [[text for text in SHORTER if text in command] for command in commands()]
    assert sorted(text for found in used for text in found) == sorted(SHORTER)
    assert all(command.startswith("rgflow ") for command in commands()), "the tests run rgflow and nothing else"
    assert "a few steps in place of the minutes" in PAGE


def make_pictures(folder: Path) -> None:
    """A hundred and ten pictures of colours that run into each other, of several sizes and shapes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(110):
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        name = "one" if k == 0 else f"p{k}"
        corners.resize((40 + k % 7, 50), Image.Resampling.BILINEAR).save(folder / f"{name}.png")


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pytorch_lightning")
    monkeypatch.setattr("rgflow.callbacks.tensorboard", lambda folder, step: None)
    monkeypatch.setattr("rgflow.holes.Ascent", functools.partial(Ascent, steps=5))
    make_pictures(tmp_path / "pictures")
    steps, said = [], ""
    for command in commands():
        words = shlex.split(shortened(command))[1:]
        assert cli.main(words) == 0, command
        said = capsys.readouterr().out
        if words[0] in WRITES and "check" not in words:
            assert (tmp_path / WRITES[words[0]]).stat().st_size > 0, command
        if words[0] == "train":
            rows = (tmp_path / "runs" / "mine" / "metrics.csv").read_text().splitlines()
            steps.append(int(rows[-1].split(",")[0]))
        if words[0] == "evaluate":
            assert re.search(r"\d\.\d+ bits/dim", said), said
    assert steps == [2, 4], "the second training goes on where the first has ended"
    snippets = [block for kind, block in BLOCKS if kind == "python"]
    assert len(snippets) == 1
    space: dict = {}
    exec(compile(snippets[0], "own_images.md", "exec"), space)
    assert (tmp_path / "mixed.png").stat().st_size > 0
    x, mixed = space["x"], space["mixed"]
    assert torch.allclose(mixed[0], x[0], atol=1e-3) and torch.allclose(mixed[-1], x[1], atol=1e-3)
    assert not torch.allclose(mixed[2], x[0], atol=1e-1)
