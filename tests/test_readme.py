"""What README.md shows can be typed: every flag exists, every snippet of Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rgflow import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("rgflow ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_the_commands_exist(command: str, capsys) -> None:
    words = shlex.split(command, comments=True)[1:]
    chosen = [word for k, name in enumerate(words) if name in ("--energy", "--model") for word in words[k : k + 2]]
    with pytest.raises(SystemExit) as stop:
        cli.main([words[0], *(chosen if words[0] == "train" else []), "--help"])
    assert stop.value.code == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def test_options_of_the_original_have_counterparts_that_exist(capsys) -> None:
    images, energies = TEXT.split("## Learn an energy")
    for text, choice, least in ((images, [], 24), (energies, ["--energy", "ising"], 13)):
        with pytest.raises(SystemExit):
            cli.main(["train", *choice, "--help"])
        known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
        rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| `-")]
        assert len(rows) >= least, "the table of options is gone"
        for _, ours in rows:
            if not any(word in ours for word in ("the same", "convert", "computed")):
                flags = re.findall(r"--[a-z][a-z-]*", ours)
                assert flags and set(flags) <= known, ours


def test_python_runs() -> None:
    snippets = [block for kind, block in BLOCKS if kind == "python"]
    assert snippets
    assert sum("minutes=10" in snippet for snippet in snippets) == 1
    for snippet in snippets:  # ten minutes of training are made one step
        exec(compile(snippet.replace("minutes=10", "steps=1, eval_images=16, quiet=True"), "README.md", "exec"), {})
