"""A flow: a bijector with a prior; and `build`, which makes one from a configuration."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from rgflow import pixels
from rgflow.blocks import Blocks
from rgflow.configs import RGFlowConfig
from rgflow.couplings import AffineCoupling, AutoregressiveCoupling, Chain, CouplingStack, SplineCoupling
from rgflow.hierarchy import Geometry, Hierarchy, RGStep
from rgflow.linears import PatchLinear
from rgflow.nets import MaskedResidualNet, ResidualNet
from rgflow.ode import ODEFlowConfig, ode_hierarchy
from rgflow.plainnets import PlainNet, SplineNet
from rgflow.priors import PRIORS, temperature_map
from rgflow.realnvp import RealNVP, RealNVPConfig

Config = RGFlowConfig | RealNVPConfig | ODEFlowConfig


class Flow(nn.Module):
    """A bijector with a prior on its latents: encodes, decodes, samples and knows its likelihood.

    Arguments:
        bijector: with `.shape` (C, H, W), and `.levels` (H, W) naming the level of every site; or with one or
            three edges in the place of H and W, for neural ODEs (all verbs but `bits_per_dim` go with that).
        prior: with `log_prob` and `sample` as in `priors`.
        config: what `build` made it from; None for a flow put together by hand (it cannot be saved).
    """

    def __init__(self, bijector: nn.Module, prior: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.bijector, self.prior, self.config = bijector, prior, config
        self._shape = tuple(bijector.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self._shape

    @property
    def levels(self) -> Tensor:
        """(H, W), int64: the level of every site, 0 the finest."""
        return self.bijector.levels

    @property
    def geometry(self) -> Geometry:
        """Where the blocks lie.

        Raises:
            ValueError: the flow has no blocks, hence no causal cones (Real NVP, neural ODE).
        """
        geometry = getattr(self.bijector, "geometry", None)
        if geometry is None:
            raise ValueError(f"a flow of {type(self.bijector).__name__} has no blocks and no causal cones")
        return geometry

    @property
    def has_cones(self) -> bool:
        """Whether it has blocks, and hence causal cones."""
        return getattr(self.bijector, "geometry", None) is not None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logit pixels (B, C, H, W) -> latents of the same shape and log|det dz/dx| (B,), nats."""
        self._check(x, "x")
        return self.bijector(x)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C, H, W) -> logit pixels of the same shape and log|det dx/dz| (B,), nats."""
        self._check(z, "z")
        return self.bijector.inverse(z)

    def lattices(self, z: Tensor) -> list[Tensor]:
        """The images of every scale while z is decoded, coarsest first (paper, figure 3a); for RG hierarchies only."""
        self._check(z, "z")
        if not hasattr(self.bijector, "lattices"):
            raise ValueError(f"a flow of {type(self.bijector).__name__} has no images at coarser scales")
        return self.bijector.lattices(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of logit pixels x, (B,), nats (paper, eq. 1 and 6)."""
        z, ladj = self.encode(x)
        return self.prior.log_prob(z).flatten(1).sum(1) + ladj

    def log_prob_by_level(self, x: Tensor) -> Tensor:
        r"""The contribution of each level to log p(x), (B, levels), nats, lowest first; for RG hierarchies only.

        .. math:: \ell_h = \log p_Z(z^{(h)}) + \log|\det R_h|, \qquad \log p(x) = \sum_h \ell_h

        This is :math:`\log p(x^{(h)} | x^{(h+1)})`, and at the top :math:`\log p(x^{(n)})`. Only the sum is unique: a
        level that doubles what it passes on gains at the expense of the next (paper, eq. 1-4 and 7).
        """
        self._check(x, "x")
        if not hasattr(self.bijector, "by_level"):
            raise ValueError(f"a flow of {type(self.bijector).__name__} has no RG steps that contribute to log p")
        z, ladjs = self.bijector.by_level(x)
        of_sites = self.prior.log_prob(z).sum(1)
        return torch.stack([of_sites[:, self.levels == h].sum(1) + ladj for h, ladj in enumerate(ladjs)], 1)

    def bits_per_dim(
        self, images: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Code length of uint8 images, :math:`8 - (\log p(x) + \text{ladj}) / (D \ln 2)` with D = C H W; (B,), bits
        per dimension.

        Arguments as in `pixels.to_logit`.
        """
        x, ladj = pixels.to_logit(images, noise, generator, self.dtype)
        return 8 - (self.log_prob(x) + ladj) / (math.prod(self.shape) * math.log(2))

    def sample_latents(
        self, n: int, temperature: float | Tensor | list | tuple = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws n latents from the prior at a temperature: one number, one per level, or a map (H, W) (paper, eq.
        14)."""
        if n < 0:
            raise ValueError(f"the number of samples must not be negative, not {n}")
        heat = temperature_map(temperature, self.levels)
        heat = heat.to(self.device, self.dtype) if isinstance(heat, Tensor) else heat
        return self.prior.sample((n, *self.shape), heat, generator, self.dtype, self.device)

    def sample(
        self, n: int, temperature: float | Tensor | list | tuple = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws n images as logit pixels (n, C, H, W); `pixels.from_logit` shows them."""
        return self.decode(self.sample_latents(n, temperature, generator))[0]

    def sample_and_log_prob(
        self, n: int, temperature: float | Tensor | list | tuple = 1.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws n images and gives their log density (n,), nats, under the model itself, that is at temperature 1."""
        z = self.sample_latents(n, temperature, generator)
        x, ladj = self.decode(z)
        return x, self.prior.log_prob(z).flatten(1).sum(1) - ladj

    def nonfinite_level(self, x: Tensor) -> int | None:
        """The first level whose step gives a number that is not finite for x; None if all is well or the bijector
        cannot tell."""
        find = getattr(self.bijector, "nonfinite_level", None)
        return find(x) if find else None

    def solved(
        self,
        *,
        solver: str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        nsteps: int | None = None,
        exact: int | None = None,
        probes: int | None = None,
        adjoint: bool | None = None,
    ) -> Flow:
        """The same flow, with copies of its weights, whose equations are solved in another way; neural ODEs only.

        Arguments as in `ODEFlowConfig`; None: as it is.

        Raises:
            ValueError: no neural ODE, or a value that is not allowed.
        """
        if not isinstance(self.config, ODEFlowConfig):
            raise ValueError("only a flow built from an ODEFlowConfig has equations to be solved")
        given = {"solver": solver, "rtol": rtol, "atol": atol, "nsteps": nsteps, "exact": exact, "probes": probes}
        given["adjoint"] = adjoint
        config = replace(self.config, **{name: value for name, value in given.items() if value is not None})
        flow = build(config, torch.Generator().manual_seed(0)).to(self.device, self.dtype)  # its weights are replaced
        flow.load_state_dict(self.state_dict())
        return flow.train(self.training)

    def resized(self, size: int | tuple[int, int]) -> Flow:
        """The same flow, with the very same parameters, on images of another size; only with `share_levels`.

        Raises:
            ValueError: the levels do not share their weights, or the size does not fit.
        """
        if not getattr(self.config, "share_levels", False):
            raise ValueError("only a flow built with share_levels=True runs at other sizes")
        config = replace(self.config, size=size)
        shape = (config.channels, *config.size)
        hierarchy = Hierarchy(list(self.bijector.steps), shape, config.geometry.depth, config.geometry)
        hierarchy.levels = hierarchy.levels.to(self.device)
        return Flow(hierarchy, self.prior, config).train(self.training)

    def coarse(self, level: int) -> Flow:
        r"""The flow of the lattice x(level), the very same steps from that level on; for RG hierarchies only.

        Its density is the model's marginal, :math:`\log p(x^{(h)}) = \sum_{k \ge h} \ell_k` in the terms of
        `log_prob_by_level`, for latents of different levels are independent; -log p is the effective (renormalised)
        energy of the coarse lattice.

        Shapes: images (B, C, *size) of that level, its latents likewise.

        Raises:
            ValueError: no RG hierarchy, or no such level.

        Source: paper, eq. 2-4; Li & Wang 2018 (arXiv:1802.02840), eq. 5, for energies.
        """
        if not isinstance(self.bijector, Hierarchy):
            raise ValueError(f"a flow of {type(self.bijector).__name__} has no images at coarser scales")
        hierarchy = self.bijector.above(level)
        config = None if self.config is None else self.config.above(level)
        return Flow(hierarchy, self.prior, config).train(self.training)

    def _check(self, x: Tensor, name: str) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"{name} must be (B, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}")
        if x.dtype != self.dtype:
            raise ValueError(f"{name} must be {self.dtype} as the weights are, not {x.dtype}")


def build(config: Config, generator: torch.Generator | None = None) -> Flow:
    """Makes a flow with fresh weights: an identity map, ready to be trained.

    Arguments:
        config: `RGFlowConfig`, `RealNVPConfig` or `ODEFlowConfig`.
        generator: source of the initial weights; torch's global one when None.
    """
    if isinstance(config, RealNVPConfig):
        return Flow(RealNVP(config, generator), PRIORS[config.prior](), config)
    if isinstance(config, ODEFlowConfig):
        return Flow(ode_hierarchy(config, generator), PRIORS[config.prior](), config)
    if not isinstance(config, RGFlowConfig):
        known = "an RGFlowConfig, a RealNVPConfig or an ODEFlowConfig"
        raise TypeError(f"build takes {known}, not {type(config).__name__}")
    geometry = config.geometry
    layout = "raster" if config.coupling == "autoregressive" else "checkerboard"
    steps = [
        RGStep([
            Blocks(_patch_bijector(config, level, half % 2, generator), config.channels, config.block, shift, layout)
            for half, shift in enumerate(geometry.shifts)
        ])
        for level in range(1 if config.share_levels else geometry.depth + 1)
    ]  # fmt: skip
    hierarchy = Hierarchy(steps, (config.channels, *config.size), geometry.depth, geometry)
    return Flow(hierarchy, PRIORS[config.prior](), config)


def _patch_bijector(config: RGFlowConfig, level: int, half: int, generator: torch.Generator | None) -> nn.Module:
    """A disentangler (half 0) or decimator (half 1) of a level on patches (N, C m m): coupling layers, and before a
    decimator's the linear map."""
    couplings = _coupling_layers(config, level, generator)
    if config.linear is None or half == 0:
        return couplings
    return Chain([PatchLinear(config.channels * config.block**2), couplings])


def _coupling_layers(config: RGFlowConfig, level: int, generator: torch.Generator | None) -> nn.Module:
    nlayers, nres, nmlp, nhidden = (config.per_level(name)[level] for name in ("nlayers", "nres", "nmlp", "nhidden"))
    sites = config.block**2
    if config.coupling == "autoregressive":
        return Chain(
            [
                AutoregressiveCoupling(
                    MaskedResidualNet(config.channels, sites, nres, nmlp, nhidden, generator),
                    config.channels,
                    j % 2 == 1,
                )
                for j in range(nlayers)
            ],
            config.memory,
        )
    half, places = config.channels * sites // 2, config.geometry.blocks(level) if config.places else 0

    def coupling(last: bool) -> nn.Module:
        count = 1 if config.tied else 2
        if last and config.coupling == "spline":
            return SplineCoupling(
                [SplineNet(half, nhidden, config.pieces, generator, places, nmlp, config.odd) for _ in range(count)]
            )
        if config.net == "plain":
            nets = [PlainNet(half, nhidden, generator, 2, places, nmlp, config.odd) for _ in range(count)]
            return AffineCoupling(nets)
        return AffineCoupling([ResidualNet(half, nres, nmlp, nhidden, config.stream, generator) for _ in range(count)])

    layers = [coupling(j + 1 == nlayers) for j in range(nlayers)]
    return CouplingStack(layers, config.memory)
