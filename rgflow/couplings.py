"""Bijectors on patches (N, d): affine and autoregressive couplings, and stacks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class AffineCoupling(nn.Module):
    r"""Scales and shifts the second half of a patch by the first, then the first half by the new second.

    .. math:: x_2' = x_2 \odot e^{s(x_1)} + t(x_1), \qquad x_1' = x_1 \odot e^{s'(x_2')} + t'(x_2'), \qquad
        \log\left|\det\frac{\partial x'}{\partial x}\right| = \sum s(x_1) + \sum s'(x_2')

    Shapes: x, z (N, d), the halves being the first and the last d/2 features; ladj (N,), nats.

    Arguments:
        nets: one network from `nets` for both halves (tied: s' = s, t' = t, as in the authors' code) or two.

    Source: paper, eq. 10 and figure 7; Dinh et al. 2017.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(nets) not in (1, 2):
            raise ValueError(f"a coupling has one network (tied) or two, not {len(nets)}")
        self.nets = nn.ModuleList(nets)

    def forward_halves(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Data to latent on the two halves (N, d/2): a', b', ladj (N,)."""
        (net_a, ready_a), (net_b, ready_b) = self._prepared()
        s, t = net_a(a, ready_a, 0)
        b = b * s.exp() + t
        ladj = s.sum(-1)
        s, t = net_b(b, ready_b, 1)
        return a * s.exp() + t, b, ladj + s.sum(-1)

    def inverse_halves(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latent to data on the two halves (N, d/2): a, b, ladj (N,)."""
        (net_a, ready_a), (net_b, ready_b) = self._prepared()
        s, t = net_b(b, ready_b, 1)
        a = (a - t) * (-s).exp()
        ladj = -s.sum(-1)
        s, t = net_a(a, ready_a, 0)
        return a, (b - t) * (-s).exp(), ladj - s.sum(-1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        return _on_halves(x, [self.forward_halves])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        return _on_halves(z, [self.inverse_halves])

    def _prepared(self) -> list[tuple[nn.Module, object]]:
        ready = [(net, net.prepare()) for net in self.nets]
        return ready if len(ready) == 2 else ready * 2


class AffineStack(nn.Module):
    """Affine couplings one after the other: a disentangler or decimator of RG-Flow (paper, figure 7).

    Shapes: x, z (N, d); ladj (N,), nats. The patch is cut into its halves once, not at each layer.

    Arguments:
        memory: "store" keeps all activations for the backward pass; "checkpoint" keeps those between layers and
            computes the others again (paper, appendix A).
    """

    def __init__(self, layers: Sequence[AffineCoupling], memory: str = "store") -> None:
        super().__init__()
        self.layers, self.memory = nn.ModuleList(layers), memory

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        return _on_halves(x, [remember(layer.forward_halves, self.memory) for layer in self.layers])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
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
        memory: as in `AffineStack`.
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
    """Wraps a function of tensors so that its inner activations are kept ("store") or computed again ("checkpoint")."""
    if memory == "store" or not torch.is_grad_enabled():
        return function
    return lambda *tensors: checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def _on_halves(x: Tensor, layers: Sequence[Callable]) -> tuple[Tensor, Tensor]:
    a, b = x.chunk(2, dim=-1)
    total = x.new_zeros(len(x))
    for layer in layers:
        a, b, ladj = layer(a, b)
        total = total + ladj
    return torch.cat([a, b], dim=-1), total
