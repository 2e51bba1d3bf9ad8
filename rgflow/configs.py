"""The configuration of an RG-Flow: everything but its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rgflow.hierarchy import ORDERS, Geometry, whole
from rgflow.priors import PRIORS

PerLevel = int | tuple[int, ...]


@dataclass(frozen=True)
class RGFlowConfig:
    """Everything that fixes an RG-Flow but its weights; the defaults are the paper's (appendix A).

    Arguments:
        channels: of the image, C.
        size: edge of the image in pixels, or (H, W): the smaller edge is `block` times a power of two, the larger a
            multiple of it.
        block: edge m of a block, even.
        nlayers: coupling layers per disentangler and decimator; one number, or one per level, lowest first. None: the
            paper's 8, 6, 4, 2, that is max(2, 8 - 2 h) at level h (4 at every level with `share_levels`).
        nres: residual blocks per network (net="residual").
        nmlp: hidden layers per residual block; of the whole network with net="plain".
        nhidden: width of a hidden layer; a multiple of m^2 for coupling="autoregressive".
        coupling: "affine", "autoregressive", or "spline": affine, but that the last coupling of each disentangler and
            decimator bends as well (net="plain" only; not in the paper).
        net: "residual", the paper's, or "plain" (s and t from one network, no weight normalisation).
        places: networks know where their block lies: a bias of their first layer for each block (net="plain" only; not
            in the paper). For pictures that are aligned, such as faces. Not with `share_levels`.
        odd: networks are such that the flow takes -x to -z and finds x and -x equally likely (net="plain", without
            linear maps; not in the paper). For fields whose sign does not matter.
        pieces: of each spline (coupling="spline").
        stream: width of the residual stream: "half" of a patch (paper) or "full" (authors' code); affine residual
            couplings only.
        tied: both halves of an affine coupling use the same networks, as in the authors' code.
        prior: "laplace" or "gaussian", of variance 1.
        order: which blocks come first in the direction x -> z: "paper" the shifted, "authors" the unshifted.
        repeat: disentangler-decimator pairs per step.
        share_levels: all levels share one set of weights (appendix A: scale-invariant); per-level lists are then
            errors.
        linear: "whitened" puts a linear map in front of each decimator's couplings, which `whitening.whiten` fits to
            images; None, as in the paper: no such map. Not with `share_levels`.
        memory: "store", or "checkpoint" to compute activations again in the backward pass (appendix A), or
            "reversible" to compute them from the result by inverting the couplings (not autoregressive ones).
        depth: number of the top level at most, 0 for a single level; None: as deep as the size allows, as in the paper.

    Raises:
        ValueError: a value that is not allowed, with those that are.
    """

    channels: int = 3
    size: int | tuple[int, int] = 32
    block: int = 4
    nlayers: PerLevel | None = None
    nres: PerLevel = 4
    nmlp: PerLevel = 2
    nhidden: PerLevel = 512
    coupling: Literal["affine", "autoregressive", "spline"] = "affine"
    net: Literal["residual", "plain"] = "residual"
    places: bool = False
    odd: bool = False
    pieces: int = 4
    stream: Literal["half", "full"] = "half"
    tied: bool = True
    prior: Literal["laplace", "gaussian"] = "laplace"
    order: Literal["paper", "authors"] = "paper"
    repeat: int = 1
    share_levels: bool = False
    linear: Literal["whitened"] | None = None
    memory: Literal["store", "checkpoint", "reversible"] = "store"
    depth: int | None = None

    def __post_init__(self) -> None:
        allowed = {
            "coupling": ("affine", "autoregressive", "spline"),
            "net": ("residual", "plain"),
            "stream": ("half", "full"),
            "prior": tuple(PRIORS),
            "order": ORDERS,
            "linear": (None, "whitened"),
            "memory": ("store", "checkpoint", "reversible"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(map(str, values))}, not {getattr(self, name)!r}")
        for name in ("tied", "share_levels", "places", "odd"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("channels", "block", "pieces", "repeat"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.depth is not None:
            object.__setattr__(self, "depth", whole("depth", self.depth, 0))
        size = tuple(self.size) if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if len(size) != 2:
            raise ValueError(f"size must be one integer or (H, W), not {self.size!r}")
        object.__setattr__(self, "size", tuple(whole("size", edge) for edge in size))
        depth = self.geometry.depth
        for name in ("nlayers", "nres", "nmlp", "nhidden"):
            value = getattr(self, name)
            if name == "nlayers" and value is None:
                continue
            several = isinstance(value, (list, tuple))
            value = tuple(whole(name, number) for number in value) if several else whole(name, value)
            object.__setattr__(self, name, value)
            if several:
                if self.share_levels:
                    raise ValueError(f"{name} must be one number when levels share their weights, not {value}")
                if len(value) != depth + 1:
                    raise ValueError(
                        f"{name} must be one number or {depth + 1} (one per level, lowest first), not {value}"
                    )
        if self.linear is not None and self.share_levels:
            raise ValueError("linear maps are fitted level by level: linear must be None with share_levels")
        if self.coupling == "spline" and self.net != "plain":
            raise ValueError('coupling "spline" works with net "plain" only, not "residual"')
        if self.places and (self.net != "plain" or self.share_levels):
            raise ValueError('places must be False with net "residual", and with share_levels')
        if self.odd and (self.net != "plain" or self.linear is not None):
            raise ValueError('odd must be False with net "residual", and with linear maps')
        if self.pieces < 2:
            raise ValueError(f"pieces must be at least 2, for one piece is a straight line, not {self.pieces}")
        if self.coupling == "autoregressive":
            if self.memory == "reversible":
                raise ValueError(
                    'memory "reversible" would invert autoregressive couplings site by site: memory must be store or '
                    "checkpoint with them"
                )
            if self.net != "residual":
                raise ValueError('coupling "autoregressive" works with net "residual" only, not "plain"')
            for number in self.per_level("nhidden"):
                if number % self.block**2:
                    raise ValueError(
                        f"nhidden must be a multiple of block^2 = {self.block**2} for autoregressive couplings, "
                        f"not {number}"
                    )

    @property
    def geometry(self) -> Geometry:
        """Where the blocks lie."""
        return Geometry(*self.size, self.block, self.order, self.repeat, self.depth)

    def above(self, level: int) -> RGFlowConfig:
        """Of the flow of the lattice x(level), the steps from that level on."""
        size = tuple(edge >> level for edge in self.size)
        depth = None if self.depth is None else self.geometry.depth - level
        if self.share_levels:
            return replace(self, size=size, depth=depth)
        numbers = {name: self.per_level(name)[level:] for name in ("nlayers", "nres", "nmlp", "nhidden")}
        return replace(self, size=size, depth=depth, **numbers)

    def per_level(self, name: str) -> tuple[int, ...]:
        """The values of `nlayers`, `nres`, `nmlp` or `nhidden` at every level, lowest first."""
        value, count = getattr(self, name), self.geometry.depth + 1
        if value is None:
            return (4,) * count if self.share_levels else tuple(max(2, 8 - 2 * level) for level in range(count))
        return value if isinstance(value, tuple) else (value,) * count
