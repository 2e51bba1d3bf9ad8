"""Cutting a lattice into blocks and back."""

from __future__ import annotations

import pytest
import torch
from bijectors import assert_bijector, wake_up
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from rgflow.blocks import Blocks, patch_order
from rgflow.couplings import AffineCoupling, CouplingStack
from rgflow.plainnets import PlainNet


@given(
    channels=st.integers(1, 3),
    block=st.sampled_from([2, 4, 6]),
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    layout=st.sampled_from(["checkerboard", "raster"]),
    data=st.data(),
)
def test_every_pixel_is_in_one_block(channels, block, counts, layout, data) -> None:
    shift = data.draw(st.integers(0, block - 1))
    blocks = Blocks(torch.nn.Identity(), channels, block, shift, layout)
    height, width = counts[0] * block, counts[1] * block
    x = torch.arange(2 * channels * height * width).view(2, channels, height, width)
    patches = blocks.cut(x)
    assert patches.shape == (2 * counts[0] * counts[1], channels * block * block)
    assert torch.equal(patches.flatten().sort().values, x.flatten())
    assert torch.equal(blocks.join(patches, x.shape), x)
    # The first patch covers rows and columns shift .. shift + m - 1 of the first image (periodic).
    rows, columns = (torch.arange(block) + shift) % height, (torch.arange(block) + shift) % width
    assert set(patches[0].tolist()) == set(x[0][:, rows][:, :, columns].flatten().tolist())


def cut_by_formula(x: torch.Tensor, blocks: Blocks) -> torch.Tensor:
    """Patches of a lattice: one block after the other, pixel by pixel."""
    (batch, _, height, width), (m, n), shift = x.shape, blocks.block, blocks.shift
    rows = [[(p + shift + a) % height for a in range(m)] for p in range(0, height, m)]
    columns = [[(q + shift + b) % width for b in range(n)] for q in range(0, width, n)]
    patches = [x[k][:, r][:, :, c].flatten()[blocks.order] for k in range(batch) for r in rows for c in columns]
    return torch.stack(patches)


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_cut_join_and_their_gradients(double, shift: int) -> None:
    blocks = Blocks(torch.nn.Identity(), 3, 4, shift)
    for size in [(8, 12), (4, 4), (12, 8), (8, 12)]:  # the permutations of a size must not be used for another
        x = torch.randn(2, 3, *size, requires_grad=True)
        expected = cut_by_formula(x, blocks)
        assert torch.equal(blocks.cut(x), expected)
        weights = torch.randn(expected.shape)
        (gradient,) = torch.autograd.grad((blocks.cut(x) * weights).sum(), x)
        assert torch.equal(gradient, torch.autograd.grad((expected * weights).sum(), x)[0])
        assert torch.equal(gradient, blocks.join(weights, x.shape))
        patches, other = weights.requires_grad_(), torch.randn(x.shape)
        (gradient,) = torch.autograd.grad((blocks.join(patches, x.shape) * other).sum(), patches)
        assert torch.equal(gradient, blocks.cut(other))


def test_cut_under_every_kind_of_derivative() -> None:
    blocks = Blocks(torch.nn.Identity(), 1, 2, 1)
    with torch.inference_mode():
        blocks.cut(torch.randn(1, 1, 4, 4))  # what is kept from here must serve where gradients are wanted
    x, v = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)

    def square(u: torch.Tensor) -> torch.Tensor:
        return blocks.join(blocks.cut(u) ** 2, u.shape)

    assert torch.equal(torch.func.jvp(square, (x,), (v,))[1], 2 * x * v)
    assert torch.equal(torch.func.vmap(lambda u: square(u[None])[0])(x), x**2)
    hessian = torch.autograd.functional.hessian(lambda u: square(u).pow(2).sum() / 12, x).view(32, 32)
    torch.testing.assert_close(hessian, torch.diag((x**2).flatten()))
    assert blocks.cut(x.to("meta")).shape == (8, 4)
    with FakeTensorMode(allow_non_fake_inputs=True):  # a tracer's tensors must not be kept for later
        blocks.cut(torch.empty(1, 1, 8, 8))
    assert all(type(order) is torch.Tensor for orders in blocks._known.values() for order in orders)


def test_checkerboard_halves_by_hand() -> None:
    # One channel, 2 x 2: even row + column are (0, 0) and (1, 1); two channels come one after the other within a half.
    assert patch_order(1, (2, 2), "checkerboard").tolist() == [0, 3, 1, 2]
    assert patch_order(2, (2, 2), "checkerboard").tolist() == [0, 3, 4, 7, 1, 2, 5, 6]
    assert patch_order(2, (2, 2), "raster").tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("shift", [0, 1])
def test_blocks_are_a_bijector(double, shift: int) -> None:
    blocks = wake_up(Blocks(CouplingStack([AffineCoupling([PlainNet(4, 8)])]), 2, 2, shift))
    assert_bijector(blocks, torch.randn(2, 2, 4, 6))


def test_bad_lattices_and_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="6 x 8 does not divide into blocks of 4 x 4"):
        Blocks(torch.nn.Identity(), 1, 4).cut(torch.zeros(1, 1, 6, 8))
    with pytest.raises(ValueError, match='"checkerboard" or "raster", not \'spiral\''):
        patch_order(1, (2, 2), "spiral")
