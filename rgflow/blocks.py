"""One patch bijector applied to all blocks of a lattice at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Blocks(nn.Module):
    r"""Cuts the lattice into blocks, applies the same patch bijector to each, and puts them back.

    Block (p, q) covers the rows :math:`m p + \text{shift} + a` and columns :math:`m q + \text{shift} + b` with
    :math:`0 \le a, b < m`, modulo the lattice (periodic), as in eq. 5 of the paper.

    Shapes: x, z (B, C, H, W), H and W multiples of the block; ladj (B,), nats. The patch bijector sees (N, C m m), N
        being B times the
    number of blocks, image by image and row by row of blocks.

    Arguments:
        bijector: on patches (N, d).
        channels: C.
        block: m, or (rows, columns).
        shift: in rows and columns, 0 <= shift < m.
        layout: order of a patch's features. "checkerboard": first the sites with even row + column, then the others,
            each channel by channel (the halves of an affine coupling). "raster": site by site (for autoregressive
            couplings).

    Raises:
        ValueError: H or W is not a multiple of the block; unknown layout.
    """

    def __init__(
        self,
        bijector: nn.Module,
        channels: int,
        block: int | tuple[int, int],
        shift: int = 0,
        layout: str = "checkerboard",
    ) -> None:
        super().__init__()
        self.bijector, self.shift = bijector, shift
        self.block = (block, block) if isinstance(block, int) else tuple(block)
        order = patch_order(channels, self.block, layout)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse_order", order.argsort(), persistent=False)
        self._known: dict[tuple, tuple[Tensor, Tensor]] = {}  # the permutations of lattices met so far

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        return self._on_patches(x, self.bijector)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        return self._on_patches(z, self.bijector.inverse)

    def _on_patches(self, x: Tensor, function: nn.Module) -> tuple[Tensor, Tensor]:
        patches, ladj = function(self.cut(x))
        count = x.shape[2] // self.block[0] * (x.shape[3] // self.block[1])
        return self.join(patches, x.shape), ladj.view(len(x), count).sum(1)

    def cut(self, x: Tensor) -> Tensor:
        """Lattice (B, C, H, W) -> patches (N, d)."""
        order, inverse = self._orders(x)
        width = len(self.order)
        return _Permuted.apply(x.flatten(1), order, inverse).view(len(x) * len(order) // width, width)

    def join(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """Patches (N, d) -> lattice of the given shape (B, C, H, W)."""
        order, inverse = self._orders(patches.reshape(shape))
        return _Permuted.apply(patches.reshape(shape[0], len(order)), inverse, order).view(shape)

    def _orders(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The permutation of a flattened image that puts it into patches, and its inverse, both (C H W,)."""
        key = (*x.shape[1:], x.device)
        if key not in self._known:
            with torch.inference_mode(False):  # made once, for all uses
                sites = torch.arange(x.shape[1:].numel(), device=x.device).view(1, *x.shape[1:])
                order = self._sites_in_patches(sites)
                orders = order, order.argsort()
            if type(order) is not Tensor:  # a stand-in of a tracer, not to be met again
                return orders
            self._known[key] = orders
        return self._known[key]

    def _sites_in_patches(self, x: Tensor) -> Tensor:
        """One lattice (1, C, H, W), cut into patches, flat."""
        (_, channels, height, width), (rows, columns) = x.shape, self.block
        if height % rows or width % columns:
            raise ValueError(f"a lattice of {height} x {width} does not divide into blocks of {rows} x {columns}")
        x = x.roll((-self.shift, -self.shift), (2, 3))
        x = x.view(channels, height // rows, rows, width // columns, columns).permute(1, 3, 0, 2, 4)
        return x.flatten(2).flatten(0, 1)[:, self.order].flatten()


class _Permuted(torch.autograd.Function):
    """x (B, n) with its columns in the given order; the gradient takes the inverse one, where autograd would add."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permuted.apply(grad, inverse, order), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        order, inverse = ctx.saved_tensors
        return _Permuted.apply(tangent, order, inverse)


def patch_order(channels: int, block: tuple[int, int], layout: str) -> Tensor:
    """Gives, for each feature of a patch in the given layout, its index in the flattened (C, rows, columns); shape
    (d,)."""
    index = torch.arange(channels * block[0] * block[1]).view(channels, *block)
    if layout == "raster":
        return index.permute(1, 2, 0).flatten()
    if layout == "checkerboard":
        rows, columns = torch.arange(block[0])[:, None], torch.arange(block[1])[None, :]
        even = ((rows + columns) % 2 == 0).expand(index.shape)
        return torch.cat([index[even], index[~even]])
    raise ValueError(f'layout must be "checkerboard" or "raster", not {layout!r}')
