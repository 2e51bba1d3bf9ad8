"""What bijectors add to the loss of a training step, and the noise that they draw in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Penalties:
    """The penalties of one training step, and where its bijectors draw from.

    Arguments:
        generator: source of what they draw; torch's global one when None.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.terms: dict[nn.Module, list[Tensor]] = {}

    def add(self, payer: nn.Module, costs: Tensor) -> None:
        """Takes in what each map of a batch by a bijector costs, (B,), nats."""
        self.terms.setdefault(payer, []).append(costs)

    def mean(self) -> Tensor | float:
        """The cost of a mean map, over all maps since the start, summed over bijectors, nats; 0.0 if none costs."""
        return sum((torch.cat(costs).mean() for costs in self.terms.values()), 0.0)


class Penalised(nn.Module):
    """A bijector with terms of its own in the loss, or noise in training.

    While `penalties` is not None it is being trained: it tells `penalties.add` what each map costs, and draws from
    `penalties.generator`. Else its result is a function of its input alone.
    """

    penalties: Penalties | None = None


@contextlib.contextmanager
def penalised(flow: nn.Module, generator: torch.Generator | None = None) -> Iterator[Penalties]:
    r"""Inside the block a flow is being trained: its bijectors draw from the generator and say what they cost.

    With D the number of dimensions, a step that learns from samples minimises

    .. math:: \frac{1}{D} \bigl( \langle -\log p(x) \rangle + \text{penalties} \bigr)

    and one that learns from an energy the same with :math:`\langle \log q(x) + E(x) \rangle`. Most bijectors have
    neither noise nor penalties; for them the block changes nothing.
    """
    penalties = Penalties(generator)
    payers = [module for module in flow.modules() if isinstance(module, Penalised)]
    for module in payers:
        module.penalties = penalties
    try:
        yield penalties
    finally:
        for module in payers:
            module.penalties = None
