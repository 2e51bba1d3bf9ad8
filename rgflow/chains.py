"""Markov chains of lattice fields: HMC of the fields or of a flow's latents, and Metropolis with a flow's proposals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rgflow.flow import Flow
from rgflow.importance import Model
from rgflow.samplers import LogDensity, hmc, start

Observe = Callable[[Tensor], Tensor]  # (S, C, H, W) -> (S,) or (S, k)
FieldEnergy = Callable[[Tensor], Tensor]  # (S, C, H, W) -> (S,), nats


class Chains(NamedTuple):
    """What S chains saw in T steps.

    Shapes: values (T, S) or (T, S, k), what was observed after each step; last (S, C, H, W), where the chains are.

    Arguments:
        acceptance: mean probability that a proposal was taken.
        step: of the leapfrog, as tuned; 0 for chains without.
        leaps: gradients for each proposal; 0 for chains without.
    """

    values: Tensor
    last: Tensor
    acceptance: float
    step: float
    leaps: int


def hmc_chains(
    log_prob: LogDensity,
    x: Tensor,
    n: int,
    observe: Observe = lambda x: x,
    burn: int = 100,
    length: float = 1.0,
    step: float = 0.1,
    target: float = 0.8,
    jitter: float = 0.2,
    generator: torch.Generator | None = None,
) -> Chains:
    """Hamiltonian Monte Carlo of fields: S chains of n proposals each, after `burn` that tune the step.

    Every trajectory has about the same length: step times leaps. While burning in, the logarithm of the step moves by
    the difference of the acceptance from the target, less and less; afterwards it stays as it is.

    Shapes: x (S, C, H, W), where the chains start.

    Arguments:
        log_prob: of fields (S, C, H, W) -> (S,), nats up to a constant, such as minus an energy or `latent_density`.
        observe: what is kept of the fields after each proposal.
        length: of a trajectory, in units of the field.
        step: of the leapfrog at the start; with burn = 0, to the end.
        target: acceptance in (0, 1).
        jitter: see `samplers.hmc`.

    Raises:
        ValueError: n below 1, burn below 0, a length or step that is not positive, or a target outside (0, 1).
        FloatingPointError: the density is not finite where the chains start.

    Source: Duane et al. 1987; the tuning after Robbins & Monro 1951.
    """
    if n < 1 or burn < 0 or not (length > 0 and step > 0 and 0 < target < 1):
        raise ValueError(
            "n must be at least 1, burn at least 0, length and step positive and target in (0, 1), not "
            f"{n}, {burn}, {length}, {step} and {target}"
        )
    shape = x.shape

    def flat(y: Tensor) -> Tensor:
        return log_prob(y.view(shape))

    at = start(flat, x.flatten(1))
    if not at.log_prob.isfinite().all():
        raise FloatingPointError("the density is not finite where the chains start")
    values, rates = [], []
    for k in range(burn + n):
        leaps = max(1, round(length / step))
        at = hmc(flat, at, step, leaps, generator=generator, jitter=jitter)
        rate = float(at.acceptance.mean())
        if k < burn:
            step *= math.exp((rate - target) / (1 + k / 10) ** 0.6)
        else:
            rates.append(rate)
            with torch.no_grad():
                values.append(observe(at.x.view(shape)))
    return Chains(torch.stack(values), at.x.view(shape), sum(rates) / n, step, leaps)


def latent_density(flow: Flow, energy: FieldEnergy) -> LogDensity:
    r"""The target in the latents of a flow, for `hmc_chains`: a Gaussian, or nearly, where the flow is good.

    .. math:: \log \pi(z) = -E(x(z)) + \log \left|\det \frac{\partial x}{\partial z}\right|

    Chains of z are chains of x = `flow.decode(z)`, exact whatever the flow.

    Source: Li & Wang 2018 (arXiv:1802.02840), eq. 5.
    """

    def log_prob(z: Tensor) -> Tensor:
        x, ladj = flow.decode(z)
        return ladj - energy(x)

    return log_prob


@torch.no_grad()
def metropolis(
    model: Model,
    energy: FieldEnergy,
    n: int,
    chains: int,
    observe: Observe = lambda x: x,
    generator: torch.Generator | None = None,
) -> Chains:
    r"""Metropolis chains whose proposals are independent draws of a model, n steps each after the draw they start with.

    A draw x' is taken with probability :math:`\min(1, w(x') / w(x))`, :math:`w = e^{-E} / q`.

    Raises:
        ValueError: n or chains below 1.

    Source: Hastings 1970; Tierney 1994; Albergo, Kanwar & Shanahan 2019 for flows.
    """
    if n < 1 or chains < 1:
        raise ValueError(f"n and chains must be at least 1, not {n} and {chains}")

    def proposal() -> tuple[Tensor, Tensor]:
        x, log_q = model.sample_and_log_prob(chains, generator=generator)
        return x, -(energy(x) + log_q)

    (x, weight), values, rates = proposal(), [], []
    for _ in range(n):
        new, proposed = proposal()
        chance = (proposed - weight).clamp_max(0).exp().nan_to_num(0)
        taken = torch.rand(chains, dtype=x.dtype, device=x.device, generator=generator) < chance
        x = torch.where(taken.view(-1, *[1] * (x.ndim - 1)), new, x)
        weight = torch.where(taken, proposed, weight)
        rates.append(float(chance.mean()))
        values.append(observe(x))
    return Chains(torch.stack(values), x, sum(rates) / n, 0.0, 0)
