"""The benchmark of claim C2 sees what leaves a cone, and counts every latent."""

from __future__ import annotations

import json

import benchmark_files
import numpy as np
import pytest
import torch

from rgflow import Geometry, RGFlowConfig, build, checkpoints, receptive
from rgflow.jacobians import latents_of

fields = benchmark_files.load("fields")


def model(folder) -> str:
    flow = build(RGFlowConfig(channels=1, size=16, nlayers=2, nhidden=6, net="plain"))
    with torch.no_grad():
        for index, weights in enumerate(flow.parameters()):
            weights.normal_(std=0.3, generator=torch.Generator().manual_seed(index))
    checkpoints.save(flow, folder / "blocks.safetensors")
    return str(folder / "blocks.safetensors")


def test_all_latents_stay_in_their_cones(tmp_path, capsys) -> None:
    numbers = fields.main(
        fields.Options(model=model(tmp_path), draws=6, parts=3, blocks=3, latents=5, out=tmp_path / "out")
    )
    assert numbers["latents"] == 256 and [numbers[f"level {h}: latents"] for h in range(3)] == [192, 48, 16]
    assert numbers["largest outside"] == 0 and numbers["bits of a number"] == 32
    assert numbers["level 0: pixels of a cone, median"] == 64 and numbers["level 2: pixels of a cone, median"] == 256
    assert all(0.5 < numbers[f"level {h}: share of a cone that answers, least"] <= 1 for h in range(3))
    assert all(numbers[f"level {h}: largest inside"] > 0 for h in range(3))
    assert [numbers[f"level {h}: measured"] for h in range(3)] == [5, 5, 16] and numbers["draws"] == 6
    content = json.loads((tmp_path / "out" / "blocks.json").read_text())
    assert content["numbers"] == numbers and content["options"]["model"] == "blocks"
    assert str(tmp_path) not in json.dumps(content) and "largest outside" in capsys.readouterr().out


def test_a_cone_of_other_blocks_is_left(tmp_path, monkeypatch) -> None:
    cones_of, other = receptive.cones_of, Geometry(16, 16, 4, order="authors")
    monkeypatch.setattr(receptive, "cones_of", lambda geometry, latents: cones_of(other, latents))
    numbers = fields.main(fields.Options(model=model(tmp_path), draws=0, tested=3, out=tmp_path / "out"))
    assert numbers["latents"] == 9 and numbers["largest outside"] > 0
    assert numbers["largest outside"] == pytest.approx(max(numbers[f"level {h}: largest outside"] for h in range(3)))


def test_radii_and_strengths_are_those_of_the_package(tmp_path) -> None:
    flow = checkpoints.load(model(tmp_path)).requires_grad_(False)
    numbers = fields.sizes(flow, 5, 12, 3, 3, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    latents = torch.cat([latents_of(flow, h, n, generator) for h, n in enumerate((5, 5, None))])
    parts = [receptive.receptive_fields(flow, latents, 4, generator=generator) for _ in range(3)]
    both = receptive.pooled(parts)
    typical = receptive.median_of_means(parts)
    for level in range(3):
        own = both.levels == level
        radius, strength = both.radii[own].quantile(0.5), both.strengths[own].quantile(0.5)
        assert numbers[f"level {level}, mean: median radius"] == pytest.approx(radius.item())
        assert numbers[f"level {level}, mean: median strength"] == pytest.approx(strength.item())
        radius = receptive.radius(typical[own].square().sum(1)).quantile(0.5)
        assert numbers[f"level {level}, median of means: median radius"] == pytest.approx(radius.item())
        share = (typical[own].flatten(1).norm(dim=1) > 1).double().mean()
        assert numbers[f"level {level}, median of means: share above one"] == pytest.approx(share.item())
        assert 0 < numbers[f"level {level}, mean: share of noise in the square"] <= 1.5


def test_blocks_are_draws_one_after_the_other_and_strengths_are_in_order(tmp_path) -> None:
    flow = checkpoints.load(model(tmp_path)).requires_grad_(False)
    numbers = fields.sizes(flow, 5, 36, 9, 3, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    latents = torch.cat([latents_of(flow, h, n, generator) for h, n in enumerate((5, 5, None))])
    parts = [receptive.receptive_fields(flow, latents, 4, generator=generator) for _ in range(9)]
    both = receptive.pooled(parts)
    for block, some in ((1, receptive.pooled(parts[:3])), (3, receptive.pooled(parts[6:]))):
        for level in range(3):
            own, head = both.levels == level, f"level {level}, block {block}: "
            radius, above = some.radii[own], (some.strengths[own] > 1).double().mean()
            assert numbers[head + "median radius"] == pytest.approx(np.median(radius))
            assert numbers[head + "share above one"] == pytest.approx(above.item())
    assert numbers["level 2, block 1: median radius"] != numbers["level 2, block 3: median radius"]
    ranks = [numbers[f"level 2, mean: strength of rank {k}"] for k in range(1, 17)]
    assert ranks == sorted(both.strengths[both.levels == 2].tolist(), reverse=True) and ranks[0] > ranks[-1]
    assert "level 2, mean: strength of rank 17" not in numbers
    with pytest.raises(ValueError, match="9 parts do not make 4 blocks"):
        fields.sizes(flow, 5, 36, 9, 4, torch.Generator())
