"""The renormalisation group as a bijector: steps on ever coarser lattices, latents left where they are decimated."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

ORDERS = ("paper", "authors")


def whole(name: str, value: object, least: int = 1) -> int:
    """The value as an integer of at least `least`; numpy's integers are welcome, booleans and floats are not.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, bool):
        try:
            if operator.index(value) >= least:
                return operator.index(value)
        except TypeError:
            pass
    raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")


@dataclass(frozen=True)
class Geometry:
    r"""Where the blocks of an RG hierarchy lie: integers only, no weights.

    With n = log2(min(H, W) / m), step h = 0..n acts on the sites whose coordinates are multiples of :math:`2^h`, in
    blocks of m x m of them, and passes on those that are multiples of :math:`2^{h+1}`; the top step passes on nothing.

    Arguments:
        height, width: H and W, multiples of :math:`m 2^n`.
        block: m, even.
        order: "paper": the shifted blocks come first, then the unshifted (eq. 5). "authors": the other way round, as
            in their code.
        repeat: disentangler-decimator pairs in one step.
        deepest: the number of the top level at most, which then has several blocks; H and W need be multiples of
            :math:`m 2^n` only. None: as deep as the lattice allows.

    Raises:
        ValueError: sizes that do not fit (the allowed ones are named), unknown order, repeat < 1.

    Source: paper, eq. 2-5 and figure 2.
    """

    height: int
    width: int
    block: int
    order: str = "paper"
    repeat: int = 1
    deepest: int | None = None

    def __post_init__(self) -> None:
        if self.deepest is not None:
            object.__setattr__(self, "deepest", whole("deepest", self.deepest, 0))
        for name in ("height", "width", "block", "repeat"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))
        if self.block < 2 or self.block % 2:
            raise ValueError(f"block must be an even number of at least 2, not {self.block}")
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {self.order!r}")
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1, not {self.repeat}")
        small = min(self.height, self.width)
        cell = self.block << max(self.depth, 0)
        if small < self.block or (self.deepest is None and small != cell) or self.height % cell or self.width % cell:
            if self.deepest is not None:
                raise ValueError(
                    f"size {self.height} x {self.width} does not fit blocks of {self.block} on levels 0..{self.depth}: "
                    f"both edges must be multiples of {cell}"
                )
            allowed = ", ".join(str(self.block << k) for k in range(5))
            raise ValueError(
                f"size {self.height} x {self.width} does not fit blocks of {self.block}: the smaller edge must be "
                f"one of {allowed}, ... ({self.block} times a power of two), and the larger a multiple of it"
            )

    @property
    def depth(self) -> int:
        """The number n of the top level; there are n + 1 steps."""
        full = (min(self.height, self.width) // self.block).bit_length() - 1
        return full if self.deepest is None else min(full, self.deepest)

    @property
    def levels(self) -> Tensor:
        """(H, W), int64: the step that leaves each site behind, min(n, v2(i), v2(j))."""
        return level_map((self.height, self.width), self.depth + 1)

    def blocks(self, level: int) -> int:
        """The number of blocks of a half-step of a level."""
        return (self.height // self.block >> level) * (self.width // self.block >> level)

    @property
    def shifts(self) -> tuple[int, ...]:
        """Shift of each half-step of a step, first to last in the direction x -> z, in sites of that step's lattice."""
        half = self.block // 2
        return ((half, 0) if self.order == "paper" else (0, half)) * self.repeat


def level_map(size: Sequence[int], steps: int, stride: int = 2, offset: int = 0) -> Tensor:
    """Which step leaves a site behind, if each passes on the sites with index mod stride = offset and the last passes
    on none.

    Shapes: the size of the lattice (any dimension), int64.
    """
    levels = torch.zeros(tuple(size), dtype=torch.int64)
    view, kept = levels, (slice(offset, None, stride),) * len(size)
    for level in range(1, steps):
        view = view[kept]
        view.fill_(level)
    return levels


class RGStep(nn.Module):
    r"""One RG step :math:`R_h` on the lattice of its level: disentangler, then decimator (repeated `repeat` times).

    Shapes: x and y (B, C, H_h, W_h); ladj (B,), nats. What is passed on is the hierarchy's business.

    Arguments:
        blocks: `blocks.Blocks`, alternating disentangler and decimator in the direction x -> z.

    Source: paper, eq. 5.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.disentanglers, self.decimators = nn.ModuleList(blocks[0::2]), nn.ModuleList(blocks[1::2])

    @property
    def blocks(self) -> list[nn.Module]:
        """All half-steps, first to last in the direction x -> z."""
        return [half for pair in zip(self.disentanglers, self.decimators) for half in pair]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> y, log|det dy/dx|."""
        total = x.new_zeros(len(x))
        for blocks in self.blocks:
            x, ladj = blocks(x)
            total = total + ladj
        return x, total

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: y -> x, log|det dx/dy|."""
        total = y.new_zeros(len(y))
        for blocks in reversed(self.blocks):
            y, ladj = blocks.inverse(y)
            total = total + ladj
        return y, total


class Hierarchy(nn.Module):
    r"""RG steps on ever coarser lattices; each leaves its latents on the sites it does not pass on.

    .. math:: x^{(h+1)}, z^{(h)} = R_h(x^{(h)}), \qquad x = G_0(G_1(\dots, z^{(1)}), z^{(0)})

    Shapes: x, z (B, C, *size); ladj (B,), nats. `levels` (*size) names the step that leaves a site behind.

    Arguments:
        steps: bijectors on the dense lattice of their level, finest first; or a single one, used at every level.
        shape: (C, *size) of x.
        depth: number of the top level; with several steps, their number less one.
        geometry: of the blocks, for causal cones; None for steps without blocks.
        stride, offset: the sites passed on are those with index mod stride = offset.

    Source: paper, eq. 2-4.
    """

    def __init__(
        self,
        steps: Sequence[nn.Module],
        shape: tuple[int, ...],
        depth: int | None = None,
        geometry: Geometry | None = None,
        stride: int = 2,
        offset: int = 0,
    ) -> None:
        super().__init__()
        self.depth = len(steps) - 1 if depth is None else depth
        if len(steps) not in (1, self.depth + 1):
            raise ValueError(
                f"a hierarchy of {self.depth + 1} levels needs 1 shared step or one per level, not {len(steps)}"
            )
        self.steps, self.shape, self.geometry = nn.ModuleList(steps), tuple(shape), geometry
        self.stride, self.offset = stride, offset
        self._kept = (Ellipsis, *(slice(offset, None, stride),) * (len(shape) - 1))
        self.register_buffer("levels", level_map(shape[1:], self.depth + 1, stride, offset), persistent=False)

    def step(self, level: int) -> nn.Module:
        """The bijector of a level."""
        return self.steps[level] if len(self.steps) > 1 else self.steps[0]

    def above(self, level: int) -> Hierarchy:
        """The hierarchy of x(level) alone, of the very same steps from that level on.

        ValueError: no such level.
        """
        if not 0 <= level <= self.depth:
            raise ValueError(f"level must be in 0..{self.depth}, not {level}")
        steps = list(self.steps[level:] if len(self.steps) > 1 else self.steps)
        levels = self.levels
        for _ in range(level):
            levels = levels[self._kept]
        shape, geometry = (self.shape[0], *levels.shape), self.geometry
        if geometry is not None:
            deepest = None if geometry.deepest is None else self.depth - level
            geometry = replace(geometry, height=shape[1], width=shape[2], deepest=deepest)
        made = Hierarchy(steps, shape, self.depth - level, geometry, self.stride, self.offset)
        return made.to(levels.device)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        z, ladjs = self.by_level(x)
        return z, sum(ladjs)

    def by_level(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Data to latent, and log|det| of each step by itself: x -> z, [(B,)] lowest first; the sum is `forward`'s."""
        outputs, ladjs = [], []
        for level in range(self.depth + 1):
            y, ladj = self.step(level)(x)
            outputs.append(y)
            ladjs.append(ladj)
            x = y[self._kept]
        z = outputs.pop()
        while outputs:
            z = self._merge(outputs.pop(), z)
        return z, ladjs

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        lattices, total = self._generate(z)
        return lattices[-1], total

    def lattices(self, z: Tensor) -> list[Tensor]:
        """The images of every scale while z is decoded: x(n), ..., x(1), x(0), coarsest first (paper, figure 3a)."""
        return self._generate(z)[0]

    def nonfinite_level(self, x: Tensor) -> int | None:
        """The first level whose step gives a number that is not finite for x, or None."""
        for level in range(self.depth + 1):
            y, ladj = self.step(level)(x)
            if not (y.isfinite().all() and ladj.isfinite().all()):
                return level
            x = y[self._kept]
        return None

    def _generate(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        lattice = [z]
        for _ in range(self.depth):
            lattice.append(lattice[-1][self._kept])
        images, total = [], z.new_zeros(len(z))
        for level in reversed(range(self.depth + 1)):
            y = lattice[level] if not images else self._merge(lattice[level], images[-1])
            x, ladj = self.step(level).inverse(y)
            images.append(x)
            total = total + ladj
        return images, total

    def _merge(self, fine: Tensor, coarse: Tensor) -> Tensor:
        merged = fine.clone()
        merged[self._kept] = coarse
        return merged
