"""scripts/held_out.py names the very images that benchmarks/faces.py holds out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from benchmark_files import load

import rgflow

ROOT = Path(__file__).resolve().parent.parent


def test_the_list_is_the_benchmark_s_split(tmp_path):
    people = np.array([-1, 0, 179, 180, 199, 180, 12])
    images = np.random.default_rng(0).integers(0, 256, (len(people), 32, 32, 3), dtype=np.uint8)
    source, target = tmp_path / "faces.npz", tmp_path / "new" / "held-out.txt"
    np.savez(source, images=images, identity200=people, full_res=(people >= 0).astype(np.uint8))
    command = [sys.executable, str(ROOT / "scripts" / "held_out.py"), str(source), str(target)]
    assert "3 test images" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert np.loadtxt(target, dtype=int).tolist() == [3, 4, 5]
    listed = rgflow.data.load("images", "test", source, test_index=target)
    assert torch.equal(torch.stack([listed[k][0] for k in range(3)]), load("faces").split(source, 1)[2].images)
