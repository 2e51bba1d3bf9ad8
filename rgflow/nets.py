"""Small networks that give the log-scale s and the shift t of a coupling.

Every network here has the same two verbs. `prepare()` computes what does not depend on the input (normalised weights),
once per coupling layer and step; `forward(x, prepared, side)` gives (s, t). Fresh networks give s = t = 0: the flow
starts as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = 2.81  # variance gain of swish, the authors' constant


class SwishLinearPair(nn.Module):
    r"""Weights of a swish and the weight-normalised linear layer behind it, for the s and the t network side by side.

    .. math:: y = W\,\bigl(x \odot \sigma(\beta \odot x)\bigr) + b, \qquad W_o = g_o\, v_o / |v_o|

    with one learnable :math:`\beta` per input feature and one g per output row.

    Shapes: v (2, outputs, inputs), index 0 for the s network and 1 for t. The mask (outputs, inputs), if any, sets
    entries of v to zero.

    Source: paper, appendix A (swish, Kaiming initialisation, weight normalisation: Salimans & Kingma 2016); the
    learnable :math:`\beta` and the bound :math:`\sqrt{2.81 \cdot 3 / \text{fan-in}}` are those of the authors' code.
    """

    def __init__(
        self, inputs: int, outputs: int, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        fan_in = torch.full((outputs, 1), float(inputs)) if mask is None else mask.sum(1, keepdim=True)
        v = (2 * torch.rand(2, outputs, inputs, generator=generator) - 1) * (3 * GAIN / fan_in).sqrt()
        self.register_buffer("mask", mask, persistent=False)
        self.v = nn.Parameter(v)
        self.g = nn.Parameter((v if mask is None else v * mask).norm(dim=2, keepdim=True))
        self.bias = nn.Parameter(torch.zeros(2, 1, outputs))
        self.beta = nn.Parameter(torch.ones(2, 1, inputs))

    def weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """Gives W, (2, outputs, inputs), its rows times `scale`, a number or (2, outputs, 1)."""
        v = self.v if self.mask is None else self.v * self.mask
        return v * (self.g * scale / v.norm(dim=2, keepdim=True))


Folded = tuple[Tensor, list[tuple[Tensor, Tensor]]]  # first swish's scale; weights and biases, scales folded in
Trunk = tuple[list[Folded], Tensor]  # the residual blocks of one network; gamma


class ResidualBlock(nn.Module):
    r"""The branch f of a residual block, of the s and of the t network: swish and linear, `nmlp` + 1 times.

    The scales :math:`\beta` are folded into the weights, :math:`x \sigma(\beta x) = \text{silu}(\beta x) / \beta`: of
    every swish but the first only one fused silu is left on the large activations, and the products with :math:`\beta`
    are done once per step. `branch` applies what `prepare` gives.

    Source: paper, appendix A.
    """

    def __init__(self, sizes: list[int], sites: int = 0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        pairs = list(zip(sizes, sizes[1:]))
        masks = [causal_mask(i, o, sites) if sites else None for i, o in pairs]
        self.linears = nn.ModuleList(SwishLinearPair(i, o, m, generator) for (i, o), m in zip(pairs, masks))

    def prepare(self, unit: float = 1.0) -> tuple[Folded, Folded]:
        """Gives what `branch` takes, for s and for t, if the stream carries x / unit: that of x -> f(unit x) / unit."""
        betas = [_not_zero(linear.beta) for linear in self.linears]
        next_betas = [*(beta.transpose(1, 2) for beta in betas[1:]), torch.full_like(betas[0][:, :, :1], 1 / unit)]
        folded = []
        for linear, beta, scale in zip(self.linears, betas, next_betas):
            weight, bias = linear.weight(scale) / beta, linear.bias * scale.transpose(1, 2)
            folded.append((weight.unbind(0), bias.squeeze(1).unbind(0)))
        first = (betas[0] * unit).squeeze(1).unbind(0)
        s, t = ((first[kind], [(w[kind], b[kind]) for w, b in folded]) for kind in (0, 1))
        return s, t


def branch(x: Tensor, folded: Folded) -> Tensor:
    """Applies the branch f of s or of t: a scale, then silu and a matrix product in turns."""
    # One product of matrices for s and one for t: batched as one they were no faster on a CPU at any size.
    beta, layers = folded
    y = beta * x
    for weight, bias in layers:
        y = F.linear(F.silu(y), weight, bias)
    return y


def trunks(blocks: Sequence[ResidualBlock], gamma: Tensor) -> list[Trunk]:
    r"""Gives the residual blocks and gamma of s and of t, without the factors :math:`1 / \sqrt 2`.

    The stream carries :math:`2^{r/2} x_r`, so that a block only adds; blocks and gamma take the powers of two back.
    """
    ready = [block.prepare(0.5 ** (r / 2)) for r, block in enumerate(blocks)]
    gammas = (gamma.squeeze(1) * 0.5 ** (len(blocks) / 2)).unbind(0)
    return [([block[kind] for block in ready], gammas[kind]) for kind in (0, 1)]


def _not_zero(beta: Tensor) -> Tensor:
    """Moves scales away from zero, where they cannot be divided by, no further than rounding notices; gradients pass.

    The gradient of a folded scale is a difference of two terms of size 1 / beta, good to eps / beta relative to it.
    """
    least = torch.finfo(beta.dtype).eps ** (2 / 3)
    return beta + torch.where(beta.abs() < least, least - beta, 0).detach()


def causal_mask(inputs: int, outputs: int, sites: int) -> Tensor:
    """(outputs, inputs), 1 where the input's site is not after the output's; features are grouped site by site."""
    site = torch.arange(sites)
    earlier = (site[:, None] >= site[None, :]).to(torch.get_default_dtype())
    return earlier.repeat_interleave(outputs // sites, 0).repeat_interleave(inputs // sites, 1)


class ResidualNet(nn.Module):
    r"""The paper's s and t networks: residual blocks of swish and weight-normalised linear layers.

    .. math::
        x \leftarrow \bigl(x + f_r(x)\bigr) / \sqrt 2 \quad (r = 1..n_\text{res}), \qquad
        s = \tanh(\gamma_s \odot x_s), \quad t = \gamma_t \odot x_t

    with :math:`\gamma = 0` at the start. Each f has `nmlp` hidden layers of width `nhidden`.

    Shapes: input (N, d/2), the half that is kept; s and t (N, d/2), for the half that changes.

    Arguments:
        half: d/2.
        stream: "half": the residual stream is d/2 wide (paper, appendix A). "full": it is d wide, the changed half
            enters as zeros and only its features leave (the authors' code). The zeros are never multiplied.
        generator: source of the initial weights.

    Source: paper, appendix A, eq. 10 and figure 7.
    """

    def __init__(
        self, half: int, nres: int, nmlp: int, nhidden: int, stream: str, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.half, self.stream = half, stream
        width = half if stream == "half" else 2 * half
        sizes = [width, *[nhidden] * nmlp, width]
        self.blocks = nn.ModuleList(ResidualBlock(sizes, 0, generator) for _ in range(nres))
        self.scale = nn.Parameter(torch.zeros(2, 1, width))

    def prepare(self) -> list[list[Trunk]]:
        """Gives the weights as the blocks use them: for each half that is read, for s and for t."""
        both = trunks(self.blocks, self.scale)
        return [both if self.stream == "half" else [self._cut(trunk, side) for trunk in both] for side in (0, 1)]

    def forward(self, x: Tensor, prepared: list[list[Trunk]], side: int = 0) -> tuple[Tensor, Tensor]:
        """Gives (s, t); `side` says which half is read, 0 or 1 (it matters for the full stream only)."""
        top = len(self.blocks) - 1
        out = []
        for blocks, gamma in prepared[side]:
            y = x
            for r, folded in enumerate(blocks):
                y = self._skip(y, side, r == 0, r == top) + branch(y, folded)
            out.append(gamma * y)
        return torch.tanh(out[0]), out[1]

    def _cut(self, trunk: Trunk, side: int) -> Trunk:
        """The full stream: the first block reads one half of the features, the last one and gamma write the other."""
        first, last = slice(0, self.half), slice(self.half, None)
        read, write = (last, first) if side else (first, last)
        blocks, gamma = [(beta, list(layers)) for beta, layers in trunk[0]], trunk[1]
        (beta, layers), outputs = blocks[0], blocks[-1][1]
        layers[0] = (layers[0][0][:, read], layers[0][1])
        outputs[-1] = (outputs[-1][0][write], outputs[-1][1][write])
        return [(beta[read], layers), *blocks[1:]], gamma[write]

    def _skip(self, x: Tensor, side: int, head: bool, tail: bool) -> Tensor | float:
        """The residual path: on the full stream, the read half is padded by zeros at the head and cut at the tail."""
        if self.stream == "half":
            return x
        if head:
            return 0.0 if tail else F.pad(x, (self.half, 0) if side else (0, self.half))
        if tail:
            return x[..., : self.half] if side else x[..., self.half :]
        return x


class MaskedResidualNet(nn.Module):
    r"""Strictly autoregressive s and t networks: what leaves at a site depends on earlier sites only.

    The residual stream starts as the input moved on by one site (site k carries :math:`x_{k-1}`, site 0 zeros); after
    that every linear layer is masked so that site k reads sites up to k. Both together, skip connections included, are
    strictly autoregressive, which a mask alone is not: with :math:`x_k` itself on the residual path, s and t would see
    the pixel they act on.

    Shapes: input (N, sites * channels), site by site; s and t of the same shape. `nhidden` is a multiple of `sites`.

    Source: paper, appendix A (residual networks); Germain et al. 2015 (MADE) and Papamakarios et al. 2017 (MAF) for
        the masks.
    Departure: the authors' `--subnet ar` lets s and t see their own pixel, so its log-determinant is wrong; this one
        is exact.
    """

    def __init__(
        self, channels: int, sites: int, nres: int, nmlp: int, nhidden: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if nhidden % sites:
            raise ValueError(f"nhidden must be a multiple of the {sites} sites of a block, not {nhidden}")
        self.channels = channels
        width = channels * sites
        sizes = [width, *[nhidden] * nmlp, width]
        self.blocks = nn.ModuleList(ResidualBlock(sizes, sites, generator) for _ in range(nres))
        self.scale = nn.Parameter(torch.zeros(2, 1, width))

    def prepare(self) -> list[Trunk]:
        """Gives the masked weights as the blocks use them, for s and for t."""
        return trunks(self.blocks, self.scale)

    def forward(self, x: Tensor, prepared: list[Trunk]) -> tuple[Tensor, Tensor]:
        """Gives (s, t)."""
        shifted = F.pad(x[:, : -self.channels], (self.channels, 0))
        out = []
        for blocks, gamma in prepared:
            y = shifted
            for folded in blocks:
                y = y + branch(y, folded)
            out.append(gamma * y)
        return torch.tanh(out[0]), out[1]
