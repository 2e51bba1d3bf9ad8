"""Neural ODEs as bijectors on a lattice, and the hierarchy of them (the ODE RG-Flow, arXiv:2203.07975)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from rgflow.hierarchy import Hierarchy, whole
from rgflow.penalties import Penalised
from rgflow.priors import PRIORS
from rgflow.velocity import ACTIVATIONS, BOUNDARIES, Field, LatticeNet, Velocity

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
FIXED = ("euler", "midpoint", "rk4")
MOST_STEPS = 1000  # of an adaptive solver; a flow that needs more has run away


@dataclass(frozen=True)
class ODEFlowConfig:
    """Says which neural-ODE RG-Flow to build; every value is checked and ValueError names what is allowed.

    Arguments:
        channels: of a site, C.
        size: edge of a square lattice, or its one to three edges; any numbers from 1. Kept as a tuple.
        stride: a step passes on the sites whose coordinates are all stride // 2 modulo stride.
        widths: of the hidden layers of the velocity's network, first to last.
        kernel: odd edge of its kernels.
        boundary: what the network sees beyond the edge of the lattice: "circular", "zeros", "reflect" or "replicate".
        activation: "silu", "tanh" or "softplus".
        bias: whether its layers have one.
        nhyper: hidden units of the hypernetwork that makes the weights functions of time; 0: they are constant.
        solver: of torchdiffeq: "dopri5", "dopri8", "bosh3" or "adaptive_heun" with the tolerances rtol and atol;
            "euler", "midpoint" or "rk4" with nsteps equal steps.
        rtol, atol: relative and absolute tolerance, of the worst lattice of a batch.
        nsteps: steps of the solvers without tolerances. Trained with few of them a flow learns where they are wrong,
            and claims densities that it does not have (chapter 10): score it with `Flow.solved` and a tolerance.
        adjoint: gradients from the adjoint equation, in constant memory; else through the operations of the solver.
        exact: the largest number of dimensions of a step whose trace is exact; above it the log-density has the trace
            as `probes` fixed vectors see it.
        exact_training: the same in training, where the probes are drawn anew in each step.
        probes: vectors, +1 or -1 in each entry, with which a trace is estimated.
        kinetic: weight of the integral of |v|^2 in the loss of training.
        jacobian: weight of the integral of |dv/dx|^2 (Frobenius) in the loss of training.
        prior: "gaussian" or "laplace", of variance 1.

    Source: README of the ODE RG-Flow (arXiv:2203.07975); Chen et al. 2018 (arXiv:1806.07366) for neural ODEs and the
        adjoint equation; Grathwohl et al. 2019 (arXiv:1810.01367) for the estimated trace; Finlay et al. 2020
        (arXiv:2002.02798) for the regularisers.
    """

    channels: int = 3
    size: int | tuple[int, ...] = 32
    stride: int = 2
    widths: int | tuple[int, ...] = (16, 16)
    kernel: int = 3
    boundary: Literal["circular", "zeros", "reflect", "replicate"] = "circular"
    activation: Literal["silu", "tanh", "softplus"] = "silu"
    bias: bool = True
    nhyper: int = 16
    solver: Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "euler", "midpoint", "rk4"] = "dopri5"
    rtol: float = 1e-4
    atol: float = 1e-4
    nsteps: int = 8
    adjoint: bool = False
    exact: int = 64
    exact_training: int = 16
    probes: int = 1
    kinetic: float = 0.01
    jacobian: float = 0.01
    prior: Literal["gaussian", "laplace"] = "gaussian"

    def __post_init__(self) -> None:
        allowed = {
            "boundary": BOUNDARIES,
            "activation": tuple(ACTIVATIONS),
            "solver": (*ADAPTIVE, *FIXED),
            "prior": tuple(PRIORS),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        for name in ("bias", "adjoint"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        least = {"channels": 1, "stride": 2, "kernel": 1, "nhyper": 0, "nsteps": 1, "exact": 0, "exact_training": 0,
                 "probes": 1}  # fmt: skip
        for name, number in least.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), number))
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")
        size = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if not 1 <= len(size) <= 3:
            raise ValueError(f"size must be one integer, or one to three edges, not {self.size!r}")
        widths = self.widths if isinstance(self.widths, (tuple, list)) else (self.widths,)
        for name, values in (("size", size), ("widths", widths)):
            object.__setattr__(self, name, tuple(whole(name, value) for value in values))
        for name in ("rtol", "atol", "kinetic", "jacobian"):
            value, positive = getattr(self, name), name.endswith("tol")
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not good or value < 0 or (positive and value == 0):
                raise ValueError(f"{name} must be a number {'above' if positive else 'of at least'} 0, not {value!r}")

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """The edges of the lattice of each level, finest first; the last passes nothing on."""
        found = [self.size]
        while kept := kept_size(found[-1], self.stride):
            found.append(kept)
        return found

    def above(self, level: int) -> ODEFlowConfig:
        """Of the flow of the lattice x(level), the steps from that level on."""
        return replace(self, size=self.sizes[level])


def kept_size(size: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """The edges of the lattice of sites that are kept; () if there are none."""
    edges = tuple(len(range(stride // 2, edge, stride)) for edge in size)
    return edges if all(edges) else ()


def quadratic_forms(field: Field, x: Tensor, probes: Tensor, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    r"""The velocity at x, the trace of its Jacobian J and the square of that one's Frobenius norm, from probes e_p.

    .. math:: \operatorname{tr} J = \sum_p e_p^T J e_p, \qquad |J|^2 = \sum_p |J e_p|^2

    if the probes are all unit vectors (exact), and means over p in the place of sums, unbiased (Hutchinson), for
    probes whose entries are independent, of mean 0 and variance 1.

    Shapes: x, v (B, C, *size); probes (P, b, C, *size) with b = 1 (the same for all x) or B; tr J, |J|^2 (B,).

    Source: Grathwohl et al. 2019, eq. 7, 8; Finlay et al. 2020, sec. 3.2 (with J e in the place of J^T e).
    """
    v, moved = field(x, probes)
    share = 1 if exact else 1 / len(probes)
    traces = (moved * probes).flatten(2).sum(2)
    squares = moved.square().flatten(2).sum(2)
    return v, share * traces.sum(0), share * squares.sum(0)


class NeuralODE(Penalised):
    r"""The flow of a velocity from t = 0 (data) to t = 1 (latent), a bijector on a dense lattice.

    .. math:: \frac{dx}{dt} = v(x, t), \qquad \frac{d}{dt} \log\Bigl|\det\frac{\partial x(t)}{\partial x(0)}\Bigr| =
        \operatorname{tr} \frac{\partial v}{\partial x}

    While it is trained (see `penalties`) it costs, per lattice,

    .. math:: \int_0^1 \lambda_K |v|^2 + \lambda_J \Bigl|\frac{\partial v}{\partial x}\Bigr|^2 dt .

    The log-density is a function of x alone: its probes are fixed. A solver with tolerances chooses its steps for the
    batch, so lattices in other company may differ, within the tolerances; the error that counts is that of the worst
    lattice, which has the root mean square over its sites and its ladj.

    Shapes: x, y (B, C, *size); ladj (B,), nats.

    Arguments:
        velocity: with `at(t)` giving a function of x and directions, as `velocity.Velocity`.
        shape: (C, *size).
        config: solver, traces and weights of the penalties are read from it.
        level: named in errors.

    Raises:
        FloatingPointError: x is not finite, or the velocity runs away.

    Source: Chen et al. 2018, eq. 8 and appendix C.
    """

    def __init__(self, velocity: nn.Module, shape: tuple[int, ...], config: ODEFlowConfig, level: int = 0) -> None:
        super().__init__()
        self.velocity, self.shape, self.config, self.level = velocity, tuple(shape), config, level
        d = math.prod(shape)
        fixed = torch.Generator().manual_seed(0)
        probes = torch.eye(d) if d <= config.exact else signs((config.probes, d), fixed)
        self.register_buffer("probes", probes.view(-1, 1, *shape), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> y, log|det dy/dx|."""
        return self._solve(x, 0.0, 1.0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: y -> x, log|det dx/dy|."""
        return self._solve(y, 1.0, 0.0)

    def path(self, x: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        r"""Where x(0) = x is at some times on its way, and :math:`\log|\det \partial x(t) / \partial x(0)|`.

        Shapes: x (B, C, *size); (T, B, C, *size), and (T, B), nats.

        Arguments:
            times: in any order, usually from 0 to 1.
        """
        found, ladjs, at, total = [], [], 0.0, x.new_zeros(len(x))
        for time in map(float, times):
            if time != at:
                x, ladj = self._solve(x, at, time)
                at, total = time, total + ladj
            found.append(x)
            ladjs.append(total)
        return torch.stack(found), torch.stack(ladjs)

    def _solve(self, x: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        import torchdiffeq  # here, for it imports scipy, and other flows do without

        if not len(x):
            return x, x.new_zeros(0)
        config, d = self.config, math.prod(self.shape)
        costs = self.penalties is not None and config.kinetic + config.jacobian > 0
        probes, exact = self._directions(x)

        def change(t: Tensor, state: Tensor) -> Tensor:
            points = state[:, :d].view(x.shape)
            v, traces, squares = quadratic_forms(self.velocity.at(t), points, probes, exact)
            v = v.flatten(1)
            columns = [v, traces[:, None]]
            if costs:
                columns.append((config.kinetic * v.square().sum(1) + config.jacobian * squares)[:, None])
            return torch.cat(columns, 1)

        def worst(state: Tensor) -> Tensor:
            return state[:, : d + 1].square().mean(1).max().sqrt()

        fixed = config.solver in FIXED
        times = torch.linspace(start, end, config.nsteps + 1 if fixed else 2, dtype=x.dtype, device=x.device)
        stop = torch.tensor([end], dtype=torch.float64)  # a step ends there, so that nothing is seen beyond
        options = None if fixed else {"norm": worst, "first_step": 0.5, "step_t": stop, "max_num_steps": MOST_STEPS}
        settings = {"rtol": config.rtol, "atol": config.atol, "method": config.solver, "options": options}
        before = torch.cat([x.flatten(1), x.new_zeros(len(x), 1 + costs)], 1)
        try:
            if config.adjoint:
                weights = tuple(self.velocity.parameters())
                back = options and {**options, "step_t": torch.tensor([start], dtype=torch.float64)}
                if back:
                    del back["norm"]  # it knows the state of the way there only; torchdiffeq has one for the way back
                settings |= {"adjoint_params": weights, "adjoint_options": back}
                after = torchdiffeq.odeint_adjoint(change, before, times, **settings)[-1]
            else:
                after = torchdiffeq.odeint(change, before, times, **settings)[-1]
        except AssertionError as error:  # torchdiffeq's word for steps that get too short, too many, or not finite
            where = " x ".join(map(str, self.shape[1:]))
            message = " ".join(str(error).split())[:80]
            raise FloatingPointError(f"the ODE of level {self.level} ({where}) cannot be solved: {message}") from error
        if costs:
            self.penalties.add(self, after[:, d + 1] * (end - start))
        return after[:, :d].view(x.shape), after[:, d]

    def _directions(self, x: Tensor) -> tuple[Tensor, bool]:
        """The probes of this map, and whether they are all unit vectors."""
        d, config = math.prod(self.shape), self.config
        if self.penalties is None:
            return self.probes, d <= config.exact
        if d > config.exact_training:
            return signs((config.probes, *x.shape), self.penalties.generator, x), False
        if d <= config.exact:
            return self.probes, True
        return torch.eye(d, dtype=x.dtype, device=x.device).view(d, 1, *self.shape), True


def signs(shape: tuple[int, ...], generator: torch.Generator | None = None, like: Tensor | None = None) -> Tensor:
    """Entries that are +1 or -1 with probability 1/2, of the dtype and on the device of `like`.

    The generator may be on another device, such as the CPU.
    """
    like = torch.empty(0) if like is None else like
    source = like.device if generator is None else generator.device
    return (2 * torch.randint(2, shape, generator=generator, device=source) - 1).to(like)


def ode_hierarchy(config: ODEFlowConfig, generator: torch.Generator | None = None) -> Hierarchy:
    """The hierarchy of neural ODEs with fresh weights: one step for each level, down to nothing left.

    Source: README of the ODE RG-Flow, "RG Layer".
    """
    steps, offset = [], config.stride // 2
    for level, size in enumerate(config.sizes):
        kept = torch.zeros(size, dtype=torch.bool)
        kept[(slice(offset, None, config.stride),) * len(size)] = True
        shape = (config.channels, *size)
        net = LatticeNet(
            shape, kept, config.widths, config.kernel, config.boundary, config.activation, config.bias, generator
        )
        steps.append(NeuralODE(Velocity(net, config.nhyper, generator), shape, config, level))
    shape = (config.channels, *config.size)
    return Hierarchy(steps, shape, stride=config.stride, offset=offset)
