"""The benchmark finds copies, and says nothing of the photographs but distances."""

from __future__ import annotations

import json

import benchmark_files
import numpy as np
import pytest
import torch

from rgflow import RGFlowConfig, build, checkpoints
from rgflow.nearest import nearest
from rgflow.pixels import from_logit

copies = benchmark_files.load("copies")


def test_copies_are_found(tmp_path) -> None:
    flow = build(RGFlowConfig(nlayers=1, nres=1, nhidden=4))  # the identity: its prior is what it draws
    checkpoints.save(flow, tmp_path / "prior.safetensors")
    with torch.no_grad():
        samples = from_logit(flow.sample(3, 1.0, torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (9, 3, 32, 32), generator=generator).to(torch.uint8)
    images[2], images[3] = samples[1].flip(2), samples[2]  # one of them mirrored
    images[6:8] = samples[0]  # two strangers like another sample
    person = np.array([3, -1, 7, 8, 9, 180, 181, 182, 182])
    file = tmp_path / "faces.npz"
    shown = images.permute(0, 2, 3, 1).numpy()
    np.savez(file, images=shown, identity200=person, full_res=np.ones(9, int))
    options = copies.Options(file, str(tmp_path / "prior.safetensors"), counts=(3,), out=tmp_path / "out")
    numbers = copies.main(options)
    assert numbers["training images"] == 5 and numbers["test images"] == 4
    assert numbers["temperature 1, 3 samples: least"] == 0
    strangers = nearest(images[5:], images[:5], mirrored=True).distance
    assert numbers["held-out people: least"] == strangers.min()
    assert numbers["held-out people: median"] == strangers.median()
    assert numbers["held-out people: one in a hundred"] == strangers.quantile(0.01)
    assert numbers["temperature 1, 3 samples: nearer than strangers"] == pytest.approx(2 / 3)
    assert numbers["temperature 0.6, 3 samples: least"] > 0, "a copy at one temperature is none at another"
    content = json.loads((tmp_path / "out" / "prior.json").read_text())
    assert content["numbers"] == numbers and str(tmp_path) not in json.dumps(content)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prior.json"]
