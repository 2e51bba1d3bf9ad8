"""The drawing of a block says what the block is: read from the module, checked against what the module does."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from rgflow import block_drawing, build, exactness
from rgflow.block_drawing import Network
from rgflow.configs import RGFlowConfig
from rgflow.flow import Flow
from rgflow.realnvp import RealNVPConfig

SMALL = dict(channels=3, size=8, nlayers=2, nhidden=32, nres=3, nmlp=1)
KINDS = {
    "paper": dict(),
    "full": dict(stream="full", order="authors"),
    "plain": dict(net="plain", nmlp=2, tied=False, nlayers=(3, 1)),
    "deep": dict(net="plain", nmlp=3),
    "shallow": dict(net="plain", nmlp=1),
    "spline": dict(net="plain", nmlp=2, coupling="spline", places=True, linear="whitened", pieces=5),
    "autoregressive": dict(coupling="autoregressive"),
    "small blocks": dict(block=2, channels=1, nlayers=5),
    "shared": dict(share_levels=True),
}


def made(kind: str) -> Flow:
    return build(RGFlowConfig(**{**SMALL, **KINDS[kind]}), torch.Generator().manual_seed(0))


def texts(flow: Flow, **where) -> str:
    fig = block_drawing.draw(block_drawing.read(flow, **where))
    fig.canvas.draw()
    return "\n".join(text.get_text() for axes in fig.axes for text in axes.texts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decimator", [False, True])
def test_numbers_are_those_of_the_module(kind: str, decimator: bool) -> None:
    flow = made(kind)
    for level in range(flow.geometry.depth + 1):
        plan = block_drawing.read(flow, level, decimator)
        half = flow.bijector.step(level).blocks[decimator]
        assert plan.parameters == sum(p.numel() for p in half.parameters())
        assert len(plan.layers) == flow.config.per_level("nlayers")[level]
        assert plan.linear == (decimator and flow.config.linear is not None)
        assert f"{plan.parameters:,} parameters" in texts(flow, level=level, decimator=decimator)


def test_halves_are_those_that_the_couplings_change() -> None:
    """In one layer whose second network is silenced only the second half moves."""
    flow = exactness.awake(build(RGFlowConfig(channels=1, size=4, nlayers=1, nres=1, nhidden=8, tied=False)).double())
    block, plan = flow.bijector.step(0).blocks[1], block_drawing.read(flow, 0, True)
    second = block.bijector.layers[0].nets[1]  # steers the first half
    second.scale.zero_()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    moved = (block(x)[0] != x)[0, 0].numpy()
    assert np.array_equal(moved, plan.sites == 1) and plan.sites.sum() == 8


def test_the_order_of_sites_is_that_of_the_autoregressive_layers() -> None:
    flow = exactness.awake(made("autoregressive").double())
    half, plan = flow.bijector.step(1).blocks[1], block_drawing.read(flow, 1, True)
    assert [layer.reverse for layer in plan.layers] == [False, True]
    layer = half.bijector.layers[0]
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    for i, j in [(0, 0), (1, 2), (3, 3)]:
        other = x.clone()
        other[0, :, i, j] += 1
        changed = half.join(layer(half.cut(other))[0], x.shape) != half.join(layer(half.cut(x))[0], x.shape)
        assert np.array_equal(changed[0].any(0).numpy(), plan.sites >= plan.sites[i, j])


def test_networks() -> None:
    def network(kind: str) -> Network:
        return block_drawing.read(made(kind)).layers[-1].network

    assert network("paper") == Network("residual", ((24, 32), (32, 24)), 3)
    assert network("full") == Network("residual", ((48, 32), (32, 48)), 3)
    assert network("plain") == Network("plain", ((24, 32), (32, 32), (32, 48)), 1)
    assert network("spline") == Network("plain", ((24, 32), (32, 32), (32, 24 * 16)), 1, places=4)
    assert network("autoregressive") == Network("masked", ((48, 32), (32, 48)), 3)
    kinds = [layer.kind for layer in block_drawing.read(made("spline")).layers]
    assert kinds == ["affine", "spline"]


def test_the_drawing_changes_with_the_configuration() -> None:
    paper, spline = texts(made("paper")), texts(made("spline"), decimator=True)
    assert paper.count("affine coupling") == 2 and "× 3" in paper and "the same networks" in paper
    assert "linear 24 → 32" in paper and "linear map" not in paper and "4 × 4 × 3 = 48" in paper
    assert "linear map" in spline and "spline coupling" in spline and "64 places" not in spline and "4 places" in spline
    assert "zeros in the place of the other" in texts(made("full"))
    assert "networks of their own" in texts(made("plain")) and texts(made("plain")).count("affine coupling") == 3
    assert texts(made("plain"), level=1).count("affine coupling") == 1
    assert "2 × 2 × 1 = 4" in texts(made("small blocks"))
    one = texts(made("autoregressive"))
    assert re.findall(r"^\d+$", one, re.MULTILINE) == [str(k) for k in range(1, 17)] and "reversed" in one
    assert len({texts(made(kind)) for kind in KINDS}) == len(KINDS) - 1, "shared levels alone look like the paper's"


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"level must be one of 0..1, not 2"):
        block_drawing.read(made("paper"), 2)
    with pytest.raises(ValueError, match="no blocks"):
        block_drawing.read(build(RealNVPConfig(size=8, nhidden=8)))
    flow = made("paper")
    flow.bijector.step(0).disentanglers[0].bijector.layers[0] = torch.nn.Identity()
    with pytest.raises(ValueError, match="a block of Identity cannot be drawn"):
        block_drawing.read(flow)
