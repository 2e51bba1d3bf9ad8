"""Exact derivatives of the picture by its latents: columns of the Jacobian of the decoder."""

from __future__ import annotations

import warnings

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor

from rgflow.blocks import Blocks
from rgflow.flow import Flow
from rgflow.hierarchy import Hierarchy, whole

PASSED_ON = (Ellipsis, slice(None, None, 2), slice(None, None, 2))


def latents_of(flow: Flow, level: int, count: int | None = None, generator: torch.Generator | None = None) -> Tensor:
    """The latents of a level, or some of them drawn at random without replacement: rows (channel, row, column).

    Shape: (K, 3), int64, in the order of the flattened latents.

    Arguments:
        count: how many; None, or more than there are: all of them.

    Raises:
        ValueError: no such level, or count below 1.
    """
    top = int(flow.levels.max())
    if not 0 <= level <= top:
        raise ValueError(f"level must be one of 0..{top}, not {level}")
    found = (flow.levels.cpu() == level).expand(flow.shape).nonzero()
    if count is None or whole("count", count) >= len(found):
        return found
    return found[torch.randperm(len(found), generator=generator)[:count].sort().values]


def checked_latents(flow: Flow, latents: Tensor) -> Tensor:
    """The rows (channel, row, column), (K, 3), as int64 on the CPU.

    Raises:
        ValueError: another shape or kind, or a latent outside the lattice.
    """
    rows = torch.as_tensor(latents)
    if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows) or rows.is_floating_point() or rows.dtype == torch.bool:
        raise ValueError(f"latents must be integers (K, 3), K at least 1, not {rows.dtype} {tuple(rows.shape)}")
    rows = rows.cpu().long()
    bad = ((rows < 0) | (rows >= torch.tensor(flow.shape))).any(1)
    if bad.any():
        raise ValueError(f"latent {tuple(rows[bad][0].tolist())} lies outside (channel, row, column) < {flow.shape}")
    return rows


def derivatives(flow: Flow, z: Tensor, latents: Tensor) -> Tensor:
    r"""The exact derivatives :math:`\partial G(z) / \partial z_l` of the picture by some latents, at some points z.

    One forward-mode pass through the whole decoder per pair of z and l, all of them in one batch; for any flow
    but neural ODEs whose solver has tolerances (torchdiffeq's cannot be passed forward; see `Flow.solved`).

    Shapes: z (n, C, H, W), of the flow's dtype; latents (K, 3), rows (channel, row, column); (n, K, C, H, W), logit
    pixels per unit of the latent.

    Raises:
        ValueError: latents as in `checked_latents`; z as in `Flow.decode`.

    Source: paper, the derivative in eq. 8.
    """
    latents = checked_latents(flow, latents).to(z.device)
    spread = z.repeat_interleave(len(latents), 0)  # (n K, C, H, W)
    tangent = torch.zeros_like(spread)
    tangent[(torch.arange(len(spread), device=z.device), *latents.repeat(len(z), 1).T)] = 1
    with torch.no_grad(), forward.dual_level():  # no_grad turns off the backward mode alone
        x, _ = flow.decode(_dual(spread, tangent))
        return forward.unpack_dual(x).tangent.unflatten(0, (len(z), len(latents)))


@torch.no_grad()
def block_derivatives(flow: Flow, z: Tensor, latents: Tensor) -> Tensor:
    r"""The same as `derivatives`, for hierarchies of blocks and many latents: fifty times quicker for all of them.

    A half-step is the same small map on every block, so its Jacobian is block-diagonal, and one forward-mode pass gives
    one column of *every* block: d = C m^2 passes give all of it. The chain rule does the rest,

    .. math:: \frac{\partial x}{\partial z} = J_0^\text{dis} J_0^\text{dec}
        \bigl( 1 \oplus J_1^\text{dis} J_1^\text{dec} ( 1 \oplus \cdots ) \bigr),

    in products with d x d matrices, from the top level down; :math:`1 \oplus` adds the latents of a level to what comes
    from above.

    Shapes and errors: as in `derivatives`; and ValueError for a flow without blocks, as in `Flow.geometry`.

    Source: ours; that one pass may serve columns which touch different rows is Curtis, Powell & Reid 1974.
    """
    latents, _ = checked_latents(flow, latents), flow.geometry
    if z.shape[1:] != flow.shape:
        raise ValueError(f"z must be (n, {', '.join(map(str, flow.shape))}), not {tuple(z.shape)}")
    return torch.stack([_through_levels(flow.bijector, point, latents.to(z.device)) for point in z.split(1)])


def _through_levels(hierarchy: Hierarchy, z: Tensor, latents: Tensor) -> Tensor:
    """One z (1, C, H, W) -> (K, C, H, W)."""
    levels = hierarchy.levels[latents[:, 1], latents[:, 2]]
    sites = torch.arange(z.numel(), device=z.device).view(z.shape[1:])
    wanted = (latents * torch.tensor([sites.stride()], device=z.device)).sum(1)  # numbers of the sites and channels
    lattices, numbers = [z], [sites]
    for _ in range(hierarchy.depth):
        lattices.append(lattices[-1][PASSED_ON])
        numbers.append(numbers[-1][PASSED_ON])
    found, rows = z.new_zeros(0, *lattices[-1].shape[1:]), wanted[:0]
    x = lattices[-1][:0]
    for level in reversed(range(hierarchy.depth + 1)):
        y, number = lattices[level].clone(), numbers[level]
        entering = (levels == level).nonzero().flatten()
        tangents = z.new_zeros(len(rows) + len(entering), *number.shape)
        if level < hierarchy.depth:
            y[PASSED_ON] = x
            tangents[: len(rows)][PASSED_ON] = found
        tangents[len(rows) :] = (number == wanted[entering, None, None, None]).to(z.dtype)
        rows = torch.cat([rows, entering])
        for blocks in reversed(hierarchy.step(level).blocks):
            y, tangents = _through_blocks(blocks, y, tangents)
        x, found = y, tangents
    return found[rows.argsort()]


def _through_blocks(blocks: Blocks, y: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """A half-step from latent to data: y (1, C, h, w) and tangents (K, C, h, w), both carried through it."""
    patches = blocks.cut(y)
    count, width = patches.shape
    units = torch.eye(width, dtype=y.dtype, device=y.device).repeat_interleave(count, 0)  # (d N, d)
    with forward.dual_level():
        after, _ = blocks.bijector.inverse(_dual(patches.repeat(width, 1), units))
        after, columns = forward.unpack_dual(after)
    matrices = columns.view(width, count, width).permute(1, 0, 2)  # [block][by which feature][of which feature]
    cut = blocks.cut(tangents).view(len(tangents), count, width).transpose(0, 1)  # (N, K, d)
    moved = torch.bmm(cut, matrices).transpose(0, 1).reshape(-1, width)
    return blocks.join(after[:count], y.shape), blocks.join(moved, tangents.shape)


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    with warnings.catch_warnings():  # some versions of torch warn of what they use themselves here
        warnings.simplefilter("ignore", FutureWarning)
        return forward.make_dual(value, tangent)
