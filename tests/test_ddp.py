"""Two gloo processes on the CPU train to the weights of one process, however they are started and interrupted."""

from __future__ import annotations

import json
import os
import socket
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

# Lightning, or torchrun, starts this script once more for the second rank.
SCRIPT = """
import json
import os
import signal
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
    healthy, left = flow.bits_per_dim, task.get("dies_in_step", 10**9)

    def bits_per_dim(*arguments):
        global left
        left -= torch.is_grad_enabled()
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return healthy(*arguments)

    flow.bits_per_dim = bits_per_dim
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
    recipe |= {"save_minutes": 1e-9, "plot_epoch": 1, "minutes": 1e9, "schedule": "cosine", "ema": 0.8}
    config = {"channels": 1, "size": 8, "nlayers": 1, "net": "plain", "nhidden": 8}
    return {"folder": folder, "images": str(folder / "images.pt"), "recipe": recipe, "config": config}


def start(task, name, launcher=(), environment=(), **extra):
    """Two ranks train into a folder of this name."""
    folder = task["folder"]
    arguments = {**task, "folder": str(folder), **extra}
    # With minutes the ranks agree on the clock; the schedule follows the steps, which are nearer to their end.
    arguments["recipe"] = {**task["recipe"], "out_dir": str(folder / name), "devices": 2, "strategy": "ddp"}
    foreign = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_PORT")
    clean = {k: v for k, v in os.environ.items() if k not in foreign and not k.startswith(("SLURM_", "TORCHELASTIC_"))}
    clean |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **dict(environment)}
    command = [sys.executable, *launcher, str(folder / "script.py"), json.dumps(arguments)]
    return subprocess.run(command, env=clean, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def two(task):
    """The run that was never interrupted, started by Lightning."""
    done = start(task, "two")
    assert done.returncode == 0, done.stderr
    return done


def assert_same_run(task, name):
    for rank in (0, 1):
        ours, theirs = (torch.load(task["folder"] / n / f"rank{rank}.pt", weights_only=True) for n in ("two", name))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items()), f"rank {rank} differs"
    (steps, score, rows), other = (json.loads((task["folder"] / n / "rank0.json").read_text()) for n in ("two", name))
    assert [steps, score] == other[:2]
    for row in [*rows, *other[2]]:
        del row["seconds"]
    assert rows == other[2]


def test_torchrun_inside_a_slurm_job_makes_two_ranks(task, two):
    """With SLURM's variables of one task around it, as on a node of a job that calls torchrun itself."""
    slurm = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "12345"}
    slurm |= {"JOB_NAME": "train", "NNODES": "1", "NODELIST": "127.0.0.1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--nnodes", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    done = start(task, "torchrun", torchrun, {f"SLURM_{key}": value for key, value in slurm.items()})
    assert done.returncode == 0, done.stderr
    assert_same_run(task, "torchrun")


def test_two_killed_ranks_go_on_to_the_same_bits(task, two):
    """Both die in step 6 (of 8, from 0), after the checkpoint of step 5, and the same command is given again."""
    assert start(task, "again", dies_in_step=6).returncode != 0
    saved = torch.load(task["folder"] / "again" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6 and not (task["folder"] / "again" / "rank0.pt").exists()
    done = start(task, "again")
    assert done.returncode == 0, done.stderr
    assert_same_run(task, "again")


def test_two_ranks_hold_the_weights_of_one_process(task, two):
    """float64: the two differ in the order of sums only, 1e-9 is ample over 8 Adam steps."""
    from rgflow.train import fit

    folder, done = task["folder"], two
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
