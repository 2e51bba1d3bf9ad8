"""The benchmark of figure 14 measures what it says, of flows with blocks and without."""

from __future__ import annotations

import json

import benchmark_files
import numpy as np
import pytest
import torch

from rgflow import RealNVPConfig, RGFlowConfig, build, checkpoints, spread
from rgflow.jacobians import latents_of
from rgflow.receptive import receptive_fields

reach = benchmark_files.load("reach")
CONFIGS = {
    "blocks": RGFlowConfig(channels=1, size=16, nlayers=1, nhidden=4, net="plain"),
    "convolutions": RealNVPConfig(channels=1, size=16, nres=1, nhidden=4),
}


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_it_measures_and_keeps(kind, tmp_path, capsys) -> None:
    flow = build(CONFIGS[kind], torch.Generator().manual_seed(0))
    with torch.no_grad():
        for index, weights in enumerate(flow.parameters()):
            weights.normal_(std=0.3, generator=torch.Generator().manual_seed(index))
    checkpoints.save(flow, tmp_path / f"{kind}.safetensors")
    model = str(tmp_path / f"{kind}.safetensors")
    numbers = reach.main(reach.Options(model=model, latents=5, draws=3, shown=4, out=tmp_path / "out"))
    top = int(flow.levels.max())
    on_top = int((flow.levels == top).sum())
    assert [numbers[f"level {h}: latents"] for h in range(top + 1)] == [5] * top + [on_top]
    assert (numbers["level 0: effect outside the cone"] == 0) == (kind == "blocks")
    assert "level 0: median spread" in capsys.readouterr().out

    generator = torch.Generator().manual_seed(0)  # the same by hand
    latents = [latents_of(flow, h, None if h == top else 5, generator) for h in range(top + 1)]
    fields = receptive_fields(flow, torch.cat(latents), 3, generator=generator)
    radii = spread.radius(spread.effects(fields))
    for level in range(top + 1):
        own = fields.levels == level
        assert numbers[f"level {level}: median spread"] == pytest.approx(np.median(radii[own]))
        assert numbers[f"level {level}: median strength"] == pytest.approx(np.median(fields.strengths[own]))
    with np.load(tmp_path / "out" / f"{kind}.npz") as kept:
        np.testing.assert_allclose(kept["spreads"], radii)
        np.testing.assert_allclose(kept["strengths"], fields.strengths)
        np.testing.assert_array_equal(kept["levels"], fields.levels)
        rows = kept["rows"]
        np.testing.assert_array_equal(kept["latents"], fields.latents[rows])
        np.testing.assert_allclose(kept["effects"], spread.effects(fields)[rows], rtol=1e-5)
        assert kept["maps"].shape == kept["effects"].shape == (4 * top + min(4, on_top), 16, 16)
        assert np.bincount(kept["levels"][rows]).tolist() == [4] * top + [min(4, on_top)]
    content = json.loads((tmp_path / "out" / f"{kind}.json").read_text())
    assert content["options"]["model"] == kind and content["numbers"] == numbers
    assert str(tmp_path) not in json.dumps(content)
