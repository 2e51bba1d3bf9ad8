"""Two gloo processes on the CPU train to the weights of one process with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rgflow.flow import RGFlowConfig, build
from rgflow.pictures import Pictures
from rgflow.recipes import TrainConfig

ROOT = Path(__file__).parent.parent
STEPS = 8  # an epoch has 5

# Lightning starts this script once more for the second rank.
SCRIPT = """
import json
import os
import sys

import torch
from rgflow import callbacks, checkpoints
from rgflow.flow import RGFlowConfig, build
from rgflow.pictures import Pictures
from rgflow.recipes import TrainConfig
from rgflow.train import fit

if __name__ == "__main__":
    callbacks.tensorboard = lambda folder, step: None
    torch.set_num_threads(1)
    task = json.loads(sys.argv[1])
    images = torch.load(task["images"], weights_only=True)
    flow = build(RGFlowConfig(**task["config"]), torch.Generator().manual_seed(0))
    recipe = TrainConfig(**task["recipe"])
    run = fit(flow, Pictures(images["train"], flip=True), Pictures(images["test"]), recipe)
    rank = os.environ.get("LOCAL_RANK", "0")
    torch.save(flow.state_dict(), f"{recipe.out_dir}/rank{rank}.pt")
    with open(f"{recipe.out_dir}/rank{rank}.json", "w") as file:
        json.dump([run.steps, list(run.score), run.rows], file)
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    generator = torch.Generator().manual_seed(0)
    ramp = torch.arange(8) * 16
    images = (torch.randint(0, 100, (55, 1, 8, 8), generator=generator) + ramp).to(torch.uint8)
    torch.save({"train": images[:44], "test": images[44:]}, folder / "images.pt")
    (folder / "script.py").write_text(SCRIPT)
    recipe = {"batch_size": 8, "lr": 1e-2, "steps": STEPS, "precision": "64", "quiet": True, "print_step": 1}
    recipe |= {"save_minutes": 1e-9, "plot_epoch": 1, "minutes": 1e9, "schedule": "cosine"}
    config = {"channels": 1, "size": 8, "nlayers": 1, "net": "plain", "nhidden": 8}
    return {"folder": folder, "images": str(folder / "images.pt"), "recipe": recipe, "config": config}


def test_two_ranks_hold_the_weights_of_one_process(task):
    """float64: the two differ in the order of sums only, 1e-9 is ample over 8 Adam steps."""
    from rgflow.train import fit

    folder = task["folder"]
    arguments = {**task, "folder": str(folder)}
    # With minutes the ranks agree on the clock; the schedule follows the steps, which are nearer to their end.
    arguments["recipe"] = {**task["recipe"], "out_dir": str(folder / "two"), "devices": 2, "strategy": "ddp"}
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, str(folder / "script.py"), json.dumps(arguments)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(folder / "two" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, tensor in ranks[0].items():
        assert torch.equal(tensor, ranks[1][name]), f"{name} differs between the ranks"

    images = torch.load(task["images"], weights_only=True)
    flow = build(RGFlowConfig(**task["config"]), torch.Generator().manual_seed(0))
    before = {name: tensor.double() for name, tensor in flow.state_dict().items()}
    recipe = replace(TrainConfig(**task["recipe"]), out_dir="")
    run = fit(flow, Pictures(images["train"], flip=True), Pictures(images["test"]), recipe)
    assert max(float((t - before[n]).abs().max()) for n, t in flow.state_dict().items()) > 1e-2, "nothing was learnt"
    for name, tensor in flow.state_dict().items():
        torch.testing.assert_close(tensor, ranks[0][name], rtol=0, atol=1e-9)

    steps, score, rows = json.loads((folder / "two" / "rank0.json").read_text())
    assert steps == run.steps == STEPS and json.loads((folder / "two" / "rank1.json").read_text())[:2] == [steps, score]
    assert score == pytest.approx(list(run.score), abs=1e-9) and score[2] == 11
    for ours, theirs in zip(run.rows, rows, strict=True):
        assert ours["train_bits_per_dim"] == pytest.approx(theirs["train_bits_per_dim"], abs=1e-9)
    assert (folder / "two" / "model.safetensors").exists() and not list((folder / "two" / "checkpoints").glob(".*"))
    assert done.stdout == ""
    assert done.stderr == "", "a quiet run says nothing, on either rank"
