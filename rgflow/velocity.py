"""The velocity of a neural ODE on a lattice: a convolutional network whose weights depend on time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BOUNDARIES = ("circular", "zeros", "reflect", "replicate")
# Smooth ones only, each with its derivative: the log-density of a step is an integral over the derivative.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (F.silu, lambda h: torch.sigmoid(h) * (1 + h * torch.sigmoid(-h))),
    "tanh": (torch.tanh, lambda h: 1 - torch.tanh(h).square()),
    "softplus": (F.softplus, torch.sigmoid),
}
Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def beyond(size: int, reach: int, boundary: str) -> Tensor:
    """The sites of a lattice of n sites that stand in the places -reach .. n + reach - 1: the lattice and what
    lies beyond its ends.

    circular: i mod n; replicate: the nearest site; reflect: mirrored at the last site, which is not repeated, again
    and again if need be. For n = 1 all are site 0.

    Shapes: (n + 2 reach,), int64.
    """
    places = torch.arange(-reach, size + reach)
    if boundary == "circular":
        return places % size
    if boundary == "replicate":
        return places.clamp(0, size - 1)
    period = max(1, 2 * (size - 1))
    folded = places % period
    return torch.minimum(folded, period - folded) if size > 1 else folded


class LatticeNet(nn.Module):
    r"""Convolutions without pooling, and how the result moves with the input.

    .. math:: h_1 = W_1 * (x, m) + b_1, \quad h_{k+1} = W_{k+1} * \sigma(h_k) + b_{k+1}, \quad v = h_K

    with m the channel that is 1 at the sites to be kept and 0 elsewhere. For a direction e the derivative of v along it
    is computed beside v, forward:

    .. math:: \dot h_1 = W_1 * (e, 0), \quad \dot h_{k+1} = W_{k+1} * (\sigma'(h_k) \dot h_k), \quad
        \frac{\partial v}{\partial x} e = \dot h_K

    The last layer is 0 at the start, so that nothing moves.

    Shapes: x (B, C, *size); directions (P, b, C, *size) with b = 1 or B; v (B, C, *size), and its derivatives
    (P, B, C, *size).

    Arguments:
        shape: (C, *size) of x, in 1 to 3 dimensions.
        kept: (*size), bool.
        widths: of the hidden layers.
        kernel: odd edge of the kernels.
        boundary: what lies beyond the edge of the lattice, see `beyond`; "zeros": nothing.
        activation: a name of `ACTIVATIONS`.
        bias: whether the layers have one.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        shape: Sequence[int],
        kept: Tensor,
        widths: Sequence[int],
        kernel: int = 3,
        boundary: str = "circular",
        activation: str = "silu",
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        channels, *size = shape
        self.dimensions, self.reach = len(size), kernel // 2
        self.activation = activation
        edges = [channels + 1, *widths, channels]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in zip(edges[:-1], edges[1:]):
            last = len(self.weights) == len(widths)
            scale = 0.0 if last else 1 / math.sqrt(n_in * kernel ** len(size))
            weight = 2 * torch.rand(n_out, n_in, *(kernel,) * len(size), generator=generator) - 1
            self.weights.append(nn.Parameter(weight * scale))
            if bias:
                self.biases.append(nn.Parameter(torch.zeros(n_out)))
        self.register_buffer("marks", kept[None].to(torch.get_default_dtype()), persistent=False)
        sites = None
        if boundary != "zeros" and self.reach:
            sites = torch.arange(math.prod(size)).view(size)
            for axis, n in enumerate(size):
                sites = sites.index_select(axis, beyond(n, self.reach, boundary))
        self.padded = tuple(sites.shape) if sites is not None else None
        self.register_buffer("sites", sites if sites is None else sites.flatten(), persistent=False)

    def forward(self, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """v and its derivatives along the directions."""
        act, slope = ACTIVATIONS[self.activation]
        count = len(directions)
        h = torch.cat([x, self.marks.expand(len(x), *self.marks.shape)], 1)
        moved = directions
        for k, weight in enumerate(self.weights):
            if k:
                moved, h = slope(h) * moved, act(h)
            h = self._convolve(h, weight, self.biases[k] if len(self.biases) else None)
            read = weight if k else weight[:, : x.shape[1]]  # the marks do not move
            moved = self._convolve(moved.flatten(0, 1), read, None).unflatten(0, (count, -1))
        return h.to(x.dtype), moved.to(x.dtype).expand(count, *x.shape)

    def _convolve(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolution = CONVOLUTIONS[self.dimensions]
        if self.sites is None:
            return convolution(h, weight, bias, padding=self.reach)
        around = h.flatten(2).index_select(2, self.sites)
        return convolution(around.view(*h.shape[:2], *self.padded), weight, bias)


class Velocity(nn.Module):
    r"""A `LatticeNet` whose weights are functions of time, given by a small hypernetwork with one hidden layer.

    .. math:: w(t) = w_0 + U \tanh(a t + b)

    for all weights w and biases of the net. The rows of U that belong to the net's last layer are 0 at the start.

    Source: README of the ODE RG-Flow (arXiv:2203.07975), "ODE Function"; Ha et al. 2016 (arXiv:1609.09106) for
        hypernetworks. The form of this one is ours.

    Arguments:
        net: its parameters are :math:`w_0`.
        nhyper: units of the hypernetwork's hidden layer; 0: the weights do not depend on time.
        generator: source of the initial weights.
    """

    def __init__(self, net: LatticeNet, nhyper: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.net = net
        self.names, values = zip(*net.named_parameters())
        self.counts = [value.numel() for value in values]

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=generator) - 1

        # tanh(a (t - t_0)): the units switch at times t_0 spread over the way
        self.rates = nn.Parameter(4 * uniform(nhyper))
        self.phases = nn.Parameter(-self.rates.detach() * (0.5 + 0.5 * uniform(nhyper)))
        # as large as the weights themselves, 0 where these are
        sizes = torch.cat([value.detach().flatten().abs().mean().expand(value.numel()) for value in values])
        self.mixing = nn.Parameter(uniform(sum(self.counts), nhyper) * sizes[:, None] / math.sqrt(max(1, nhyper)))

    def weights(self, t: Tensor) -> dict[str, Tensor]:
        """The weights of the net at a time (a number), by name."""
        values = dict(self.net.named_parameters())
        if not len(self.rates):
            return values
        change = self.mixing @ torch.tanh(self.rates * t + self.phases)
        parts = change.split(self.counts)
        return {name: values[name] + part.view_as(values[name]) for name, part in zip(self.names, parts)}

    def at(self, t: Tensor) -> Field:
        """The velocity at a time: a function of x and directions, see `LatticeNet`."""
        weights = self.weights(t)
        return lambda x, directions: functional_call(self.net, weights, (x, directions))
