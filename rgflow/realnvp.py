"""Real NVP, the multi-scale baseline (Dinh, Sohl-Dickstein, Bengio 2017, arXiv:1605.08803, sections 3.4-3.6 and 4.1).

One scale: checkerboard couplings, squeeze, channel-wise couplings, half of the dimensions factored out. The last scale:
checkerboard couplings only. Every squeeze is undone at the end, so z has the shape of x and every site one level.

As in the paper: masks, squeeze, three couplings of each kind, four at the last scale, squeezing until the smaller edge
is 4, hidden width doubled whenever the resolution halves, weight normalisation, s = learned scale times tanh.
Departures: no BatchNorm (train and eval agree, no batch statistics leak into a density); swish instead of relu, as in
RG-Flow, to which this is the baseline; s and t from one network; the fresh flow is the identity (output gain 0); what
is factored out are whole sites, the two off-diagonal ones of each 2 x 2 cell, all channels of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rgflow.convnets import ScaleShiftNet
from rgflow.couplings import remember


@dataclass(frozen=True)
class RealNVPConfig:
    """Says which Real NVP to build; every value is checked and ValueError names what is allowed.

    Arguments:
        channels: colours C of the image, any number from 1.
        size: edge of a square image or (H, W), pixels; kept as (H, W). Both are multiples of 2^(scales - 1).
        scales: number of scales, that is of levels; scales - 1 squeezes. None: squeeze until the smaller edge is below
            8, so 32 -> 4 scales with a last lattice of 4 x 4 (Dinh et al. sec. 4.1; for CIFAR-10 they take scales=2,
            nres=8, nhidden=64). Kept as the number chosen.
        ncouplings: couplings of each kind per scale; the last scale has ncouplings + 1 with checkerboards (sec. 3.6).
        nres: residual blocks per network.
        nhidden: feature maps at full resolution, doubled at each squeeze; or one number per scale, finest first.
        prior: "laplace" or "gaussian", variance 1.
        memory: "store" keeps activations for backward; "checkpoint" recomputes them coupling by coupling.
    """

    channels: int = 3
    size: int | tuple[int, int] = 32
    scales: int | None = None
    ncouplings: int = 3
    nres: int = 4
    nhidden: int | tuple[int, ...] = 32
    prior: Literal["laplace", "gaussian"] = "gaussian"
    memory: Literal["store", "checkpoint"] = "store"

    def __post_init__(self) -> None:
        for name in ("channels", "ncouplings", "nres"):
            if not _positive(getattr(self, name)):
                raise ValueError(f"{name} must be an integer from 1, got {getattr(self, name)!r}")
        size = tuple(self.size) if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if len(size) != 2 or not all(map(_positive, size)):
            raise ValueError(f"size must be an integer from 1 or a pair (H, W) of them, got {self.size!r}")
        scales = self.scales
        if scales is None and all(map(_positive, size)):
            scales = max(1, (min(size) // 4).bit_length())
        if not _positive(scales):
            raise ValueError(f"scales must be an integer from 1 or None, got {scales!r}")
        _check_size(size, scales)
        nhidden = tuple(self.nhidden) if isinstance(self.nhidden, (tuple, list)) else self.nhidden
        widths = nhidden if isinstance(nhidden, tuple) else (nhidden,) * scales
        if len(widths) != scales or not all(map(_positive, widths)):
            raise ValueError(
                f"nhidden must be an integer from 1 or {scales} of them (one per scale), got {self.nhidden!r}"
            )
        for name, allowed in (("prior", ("laplace", "gaussian")), ("memory", ("store", "checkpoint"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name, value in (("size", size), ("scales", scales), ("nhidden", nhidden)):
            object.__setattr__(self, name, value)  # the way to normalise a frozen dataclass

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature maps of the networks at resolution (H, W) / 2^r, r = 0 .. scales - 1."""
        return self.nhidden if isinstance(self.nhidden, tuple) else tuple(self.nhidden << r for r in range(self.scales))


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_size(size: tuple[int, int], scales: int) -> None:
    (height, width), unit = size, 2 ** (scales - 1)
    if height % unit or width % unit:
        near = " or ".join(
            f"{(max(2, height // unit) + k) * unit}x{(max(2, width // unit) + k) * unit}" for k in (0, 1)
        )
        raise ValueError(
            f"size {height}x{width} does not fit {scales} scales: height and width must be multiples of {unit}, "
            f"for example {near}; or choose fewer scales"
        )
    if height * width // unit**2 < 2:
        raise ValueError(
            f"size {height}x{width} with {scales} scales leaves a last lattice of one site: allowed are multiples of "
            f"{unit} with at least one edge from {2 * unit}, or fewer scales"
        )


def squeeze(x: Tensor) -> Tensor:
    """Turns each 2 x 2 cell into channels: (B, K, H, W) -> (B, 4K, H/2, W/2), sites in the order 00, 01, 10, 11.

    Source: Dinh et al. 2017, sec. 3.6, figure 3.
    """
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 3, 5, 1, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


def unsqueeze(x: Tensor) -> Tensor:
    """Undoes `squeeze`: (B, 4K, H, W) -> (B, K, 2H, 2W)."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, 2, 2, channels // 4, height, width)
    return cells.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a squeezed (B, 4K, H, W) into what goes on (sites 00 and 11) and what is factored out (01 and 10).

    Both parts are (B, 2K, H, W). Source: Dinh et al. 2017, sec. 3.6, eq. 14.
    """
    sites = x.unflatten(1, (4, -1))
    return sites[:, ::3].flatten(1, 2), sites[:, 1:3].flatten(1, 2)


def join(kept: Tensor, out: Tensor) -> Tensor:
    """Undoes `split`: two (B, 2K, H, W) -> (B, 4K, H, W)."""
    first, last = kept.chunk(2, dim=1)
    return torch.cat([first, out, last], dim=1)


class Coupling(nn.Module):
    r"""Scales and shifts one part of x, reading only the other: the common half of the two couplings below.

    :math:`z_b = x_b e^{s(x_a)} + t(x_a),\; z_a = x_a, \quad \log|\det \partial z/\partial x| = \sum s(x_a)`.

    Shapes: x, z (B, K, H, W); ladj (B,), nats. Source: Dinh et al. 2017, sec. 3.2-3.4, eqs. 4-9.
    """

    def __init__(self, net: ScaleShiftNet, parity: int) -> None:
        super().__init__()
        self.net, self.parity = net, parity

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        read, free = self._parts(x)
        s, t = self._scale_and_shift(read)
        return self._whole(read, free * s.exp() + t), s.sum(dim=(1, 2, 3))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        read, free = self._parts(z)
        s, t = self._scale_and_shift(read)
        return self._whole(read, (free - t) * (-s).exp()), -s.sum(dim=(1, 2, 3))


class CheckerboardCoupling(Coupling):
    """Reads the sites with i + j even (parity 0) or odd (parity 1) and changes the others, all channels."""

    def __init__(self, net: ScaleShiftNet, parity: int, height: int, width: int) -> None:
        super().__init__(net, parity)
        rows, cols = torch.arange(height)[:, None], torch.arange(width)
        read = ((rows + cols) % 2 == parity).to(torch.get_default_dtype())
        self.register_buffer("read", read, persistent=False)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.read, x

    def _scale_and_shift(self, read: Tensor) -> tuple[Tensor, Tensor]:
        # s = t = 0 at the sites that are read, where x * exp(0) + 0 = x: `free` may be all of x
        s, t = self.net(read)
        return s * (1 - self.read), t * (1 - self.read)

    def _whole(self, read: Tensor, free: Tensor) -> Tensor:
        return free


class ChannelCoupling(Coupling):
    """Reads the first half (parity 0) or the second half (parity 1) of the channels and changes the other half.

    After `squeeze` these are the upper and the lower sites of each cell, not redundant with the checkerboard (fig. 3).
    """

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.parity else (first, second)

    def _scale_and_shift(self, read: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(read)

    def _whole(self, read: Tensor, free: Tensor) -> Tensor:
        return torch.cat((free, read) if self.parity else (read, free), dim=1)


class RealNVP(nn.Module):
    r"""The multi-scale Real NVP as a bijector of logit pixels, with the latents back on the image lattice.

    A site leaves at the first scale r at which its row and column lie in different rows and columns of a 2 x 2 cell,
    that is where bit r of i and j differ: :math:`\mathrm{level}(i, j) = \min(n, v_2(i \oplus j))`, n = scales - 1.
    Levels 0, 1, ..., n - 1, n hold 1/2, 1/4, ..., 2^-n, 2^-n of the sites: for 32 x 32, 512, 256, 128 and 128.

    Shapes: x, z (B, C, H, W), any other raises ValueError; ladj (B,), nats; `levels` (H, W) long, 0 = finest.
    Source: Dinh et al. 2017, sec. 3.6, eqs. 13-16. Departures: see the top of this file.

    Arguments:
        config: what to build.
        generator: draws the initial weights; None: torch's global generator.
    """

    def __init__(self, config: RealNVPConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.shape = config, (config.channels, *config.size)
        self.checkers, self.channels = nn.ModuleList(), nn.ModuleList()  # one list of couplings per scale each
        for scale, (checker, channel) in enumerate(couplings_per_scale(config)):
            edges = (config.size[0] >> scale, config.size[1] >> scale)
            nets = _nets(config, scale, False, checker, generator)
            self.checkers.append(nn.ModuleList(CheckerboardCoupling(net, k % 2, *edges) for k, net in enumerate(nets)))
            if channel:
                nets = _nets(config, scale, True, channel, generator)
                self.channels.append(nn.ModuleList(ChannelCoupling(net, k % 2) for k, net in enumerate(nets)))
        self.register_buffer("levels", _levels(config), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        self._check(x)
        h, ladj, outs = x, x.new_zeros(len(x)), []
        for checkers, channels in zip(self.checkers[:-1], self.channels, strict=True):
            h, ladj = self._run(checkers, h, ladj)
            h, ladj = self._run(channels, squeeze(h), ladj)
            h, out = split(h)
            outs.append(out)
        h, ladj = self._run(self.checkers[-1], h, ladj)
        for out in reversed(outs):
            h = unsqueeze(join(h, out))
        return h, ladj

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        self._check(z)
        h, ladj, outs = z, z.new_zeros(len(z)), []
        for _ in self.channels:
            h, out = split(squeeze(h))
            outs.append(out)
        h, ladj = self._run((c.inverse for c in reversed(self.checkers[-1])), h, ladj)
        for scale in reversed(range(len(outs))):
            h, ladj = self._run((c.inverse for c in reversed(self.channels[scale])), join(h, outs[scale]), ladj)
            h, ladj = self._run((c.inverse for c in reversed(self.checkers[scale])), unsqueeze(h), ladj)
        return h, ladj

    def _run(self, maps: Iterable[Callable], h: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor]:
        for f in maps:
            h, change = remember(f, self.config.memory)(h)
            ladj = ladj + change
        return h, ladj

    def _check(self, x: Tensor) -> None:
        expected = (self.config.channels, *self.config.size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(f"this Real NVP takes (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}")


def _levels(config: RealNVPConfig) -> Tensor:
    height, width = config.size
    sites, levels = torch.arange(height * width).view(1, 1, height, width), torch.empty(height * width).long()
    for scale in range(config.scales - 1):
        sites, out = split(squeeze(sites))
        levels[out.flatten()] = scale
    levels[sites.flatten()] = config.scales - 1
    return levels.view(height, width)


def couplings_per_scale(config: RealNVPConfig) -> list[tuple[int, int]]:
    """Checkerboard and channel-wise couplings of each scale."""
    return [(config.ncouplings, config.ncouplings)] * (config.scales - 1) + [(config.ncouplings + 1, 0)]


def net_shape(config: RealNVPConfig, scale: int, channelwise: bool) -> tuple[int, int, int]:
    """Channels in, channels out (of s, and of t), hidden width; the tensor of a scale has C 2^scale channels."""
    # channel-wise: half of the 4 C 2^scale squeezed channels, at half the resolution, so with the next width
    channels = config.channels << (scale + channelwise)
    return channels, channels, config.widths[scale + channelwise]


def _nets(
    config: RealNVPConfig, scale: int, channelwise: bool, number: int, generator: torch.Generator | None
) -> Iterator[ScaleShiftNet]:
    shape = net_shape(config, scale, channelwise)
    return (ScaleShiftNet(*shape, config.nres, generator) for _ in range(number))
