"""Bijectors on patches (N, d): affine, spline and autoregressive couplings, and stacks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rgflow.reversible import reversible
from rgflow.splines import inverse_spline, spline, spline_gradients


class Coupling(nn.Module):
    r"""Changes the second half of a patch by an elementwise map that the first steers, then the first by the second.

    .. math:: x_2' = f(x_2; \theta(x_1)), \qquad x_1' = f(x_1; \theta'(x_2')), \qquad
        \log\left|\det\frac{\partial x'}{\partial x}\right| = \sum \log f'(x_2; \theta) + \sum \log f'(x_1; \theta')

    A kind of coupling is a pair of `forward_map` and `inverse_map`; :math:`\theta` is all that its networks give, as
    they give it. The map f is monotone in every element, and no row of a batch enters what it does to another.

    Shapes: x, z (N, d), the halves being the first and the last d/2 features; ladj (N,), nats.

    Arguments:
        nets: one network from `nets` for both halves (tied: :math:`\theta' = \theta`, as in the authors' code) or two.

    Raises:
        ValueError: another number of networks.

    Source: paper, figure 7; Dinh et al. 2017.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(nets) not in (1, 2):
            raise ValueError(f"a coupling has one network (tied) or two, not {len(nets)}")
        self.nets = nn.ModuleList(nets)

    def forward_map(self, x: Tensor, *theta: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent on one half (N, d/2): f(x; theta), sum of log f' (N,)."""
        raise NotImplementedError

    def inverse_map(self, y: Tensor, *theta: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data on one half (N, d/2): the x with f(x; theta) = y, minus the sum of log f' (N,)."""
        raise NotImplementedError

    def forward_back(
        self, y: Tensor, grad_y: Tensor, grad_ladj: Tensor, *theta: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]] | None:
        """What `reversible` asks at y = f(x; theta): x, the gradients of x and of theta; None: autograd finds them."""
        return None

    def prepare(self) -> list:
        """What the networks need of their weights, computed once for both halves."""
        return [net.prepare() for net in self.nets]

    def theta(self, kept: Tensor, prepared: list, side: int) -> tuple[Tensor, ...]:
        """What the network gives for the half that changes; side 0 reads the first half, side 1 the second."""
        k = side % len(self.nets)
        return self.nets[k](kept, prepared[k], side)

    def forward_halves(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Data to latent on the two halves (N, d/2): a', b', ladj (N,)."""
        prepared = self.prepare()
        b, first = self.forward_map(b, *self.theta(a, prepared, 0))
        a, second = self.forward_map(a, *self.theta(b, prepared, 1))
        return a, b, first + second

    def inverse_halves(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latent to data on the two halves (N, d/2): a, b, ladj (N,)."""
        prepared = self.prepare()
        a, first = self.inverse_map(a, *self.theta(b, prepared, 1))
        b, second = self.inverse_map(b, *self.theta(a, prepared, 0))
        return a, b, first + second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        return _on_halves(x, [self.forward_halves])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        return _on_halves(z, [self.inverse_halves])


class AffineCoupling(Coupling):
    r"""The coupling that scales and shifts; theta = (s, t), each (N, d/2).

    .. math:: f(x; s, t) = x \odot e^s + t, \qquad \sum \log f' = \sum s

    Source: paper, eq. 10 and figure 7; Dinh et al. 2017.
    """

    def forward_map(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x e^s + t, sum of s."""
        return x * s.exp() + t, s.sum(-1)

    def inverse_map(self, y: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(y - t) e^-s, minus the sum of s."""
        return (y - t) * (-s).exp(), -s.sum(-1)

    def forward_back(
        self, y: Tensor, grad_y: Tensor, grad_ladj: Tensor, s: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """With x e^s = y - t: gradients of x, grad_y e^s; of s, grad_y (y - t) + grad_ladj; of t, grad_y."""
        moved, scale = y - t, s.exp()
        return moved / scale, grad_y * scale, (torch.addcmul(grad_ladj[:, None], grad_y, moved), grad_y)


class SplineCoupling(Coupling):
    r"""The coupling that scales, shifts and bends; theta = (s, t, v) of a `plainnets.SplineNet`.

    .. math:: f(x; s, t, v) = \text{spline}(x \odot e^s + t; v), \qquad
        \sum \log f' = \sum s + \sum \log \text{spline}'

    It can turn a box, which is what dequantisation makes of a grey level that is certain, into the prior; an affine map
    of a box costs 0.44 bits/dim under a Laplace prior, however well it is steered.

    Source: Durkan et al. 2019 (neural spline flows); the spline and our departures are those of `splines`.
    """

    def forward_map(self, x: Tensor, s: Tensor, t: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """spline(x e^s + t), sum of s and of the logarithm of the spline's slope."""
        y, slope = spline(x.T * s.exp() + t, shape)
        return y.T, (s + slope).sum(0)

    def inverse_map(self, y: Tensor, s: Tensor, t: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """The x, minus the sums."""
        x, slope = inverse_spline(y.T, shape)
        return ((x - t) * (-s).exp()).T, (slope - s).sum(0)

    def forward_back(
        self, y: Tensor, grad_y: Tensor, grad_ladj: Tensor, s: Tensor, t: Tensor, shape: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """As in an affine coupling, behind the gradients of the spline."""
        inner, scale = inverse_spline(y.T, shape)[0], s.exp()
        grad_inner, grad_shape = spline_gradients(inner, shape, grad_y.T, grad_ladj.expand_as(inner))
        moved = inner - t
        return (moved / scale).T, (grad_inner * scale).T, (grad_inner * moved + grad_ladj, grad_inner, grad_shape)


class CouplingStack(nn.Module):
    """Couplings one after the other: a disentangler or decimator of RG-Flow (paper, figure 7).

    Shapes: x, z (N, d); ladj (N,), nats. The patch is cut into its halves once, not at each layer.

    Arguments:
        layers: kinds of `Coupling`.
        memory: what is kept for the backward pass. "store": all activations. "checkpoint": what passes between the
            layers, the rest being computed again (paper, appendix A). "reversible": the result alone, the layers being
            inverted (`reversible.reversible`); no second derivatives then.
    """

    def __init__(self, layers: Sequence[Coupling], memory: str = "store") -> None:
        super().__init__()
        self.layers, self.memory = nn.ModuleList(layers), memory

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        if self.memory == "reversible":
            return _on_halves(x, [lambda a, b: reversible(self.layers, a, b)])
        return _on_halves(x, [remember(layer.forward_halves, self.memory) for layer in self.layers])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        if self.memory == "reversible":
            return _on_halves(z, [lambda a, b: reversible(self.layers, a, b, inverse=True)])
        return _on_halves(z, [remember(layer.inverse_halves, self.memory) for layer in reversed(self.layers)])


class AutoregressiveCoupling(nn.Module):
    r"""Scales and shifts every site of a patch by the sites before it.

    .. math:: z_k = x_k \odot e^{s_k(x_{<k})} + t_k(x_{<k}), \qquad \text{ladj} = \sum_k s_k

    The inverse solves for one site after the other, so it costs as many network calls as a patch has sites.

    Shapes: x, z (N, sites * channels), site by site; ladj (N,), nats.

    Arguments:
        net: a strictly autoregressive network (`nets.MaskedResidualNet`).
        reverse: takes the sites from the last to the first.

    Source: paper, sec. 3 names any bijector; Papamakarios et al. 2017 (MAF).
    """

    def __init__(self, net: nn.Module, channels: int, reverse: bool = False) -> None:
        super().__init__()
        self.net, self.channels, self.reverse = net, channels, reverse

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        x = self._ordered(x)
        s, t = self.net(x, self.net.prepare())
        return self._ordered(x * s.exp() + t), s.sum(-1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        z, prepared = self._ordered(z), self.net.prepare()
        sites = z.shape[1] // self.channels
        site = torch.arange(sites, device=z.device).repeat_interleave(self.channels)
        x, log_scale = torch.zeros_like(z), torch.zeros_like(z)
        for k in range(sites):  # s and t at site k are final as soon as all sites before k are
            s, t = self.net(x, prepared)
            x = torch.where(site == k, (z - t) * (-s).exp(), x)
            log_scale = torch.where(site == k, s, log_scale)
        return self._ordered(x), -log_scale.sum(-1)

    def _ordered(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.channels).flip(1).flatten(1) if self.reverse else x


class Chain(nn.Module):
    """Bijectors one after the other, on values of any shape with the batch first.

    Arguments:
        memory: "store" or "checkpoint" as in `CouplingStack`. Under "reversible" the chain itself stores, and stacks of
            couplings in it look after themselves.
    """

    def __init__(self, layers: Sequence[nn.Module], memory: str = "store") -> None:
        super().__init__()
        self.layers, self.memory = nn.ModuleList(layers), memory

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, ladj = remember(layer, self.memory)(x)
            total = total + ladj
        return x, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        total = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            z, ladj = remember(layer.inverse, self.memory)(z)
            total = total + ladj
        return z, total


def remember(function: Callable, memory: str) -> Callable:
    """Wraps a function of tensors so that its inner activations are computed again ("checkpoint") or kept (else)."""
    if memory != "checkpoint" or not torch.is_grad_enabled():
        return function
    return lambda *tensors: checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def _on_halves(x: Tensor, layers: Sequence[Callable]) -> tuple[Tensor, Tensor]:
    a, b = x.chunk(2, dim=-1)
    total = x.new_zeros(len(x))
    for layer in layers:
        a, b, ladj = layer(a, b)
        total = total + ladj
    return torch.cat([a, b], dim=-1), total
