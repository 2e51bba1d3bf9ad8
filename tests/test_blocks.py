"""Cutting a lattice into blocks and back."""

from __future__ import annotations

import pytest
import torch
from bijectors import assert_bijector, wake_up
from hypothesis import given
from hypothesis import strategies as st

from rgflow.blocks import Blocks, patch_order
from rgflow.couplings import AffineCoupling, AffineStack
from rgflow.nets import PlainNet


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


def test_checkerboard_halves_by_hand() -> None:
    # One channel, 2 x 2: even row + column are (0, 0) and (1, 1); two channels come one after the other within a half.
    assert patch_order(1, (2, 2), "checkerboard").tolist() == [0, 3, 1, 2]
    assert patch_order(2, (2, 2), "checkerboard").tolist() == [0, 3, 4, 7, 1, 2, 5, 6]
    assert patch_order(2, (2, 2), "raster").tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("shift", [0, 1])
def test_blocks_are_a_bijector(double, shift: int) -> None:
    blocks = wake_up(Blocks(AffineStack([AffineCoupling([PlainNet(4, 8)])]), 2, 2, shift))
    assert_bijector(blocks, torch.randn(2, 2, 4, 6))


def test_bad_lattices_and_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="6 x 8 does not divide into blocks of 4 x 4"):
        Blocks(torch.nn.Identity(), 1, 4).cut(torch.zeros(1, 1, 6, 8))
    with pytest.raises(ValueError, match='"checkerboard" or "raster", not \'spiral\''):
        patch_order(1, (2, 2), "spiral")
