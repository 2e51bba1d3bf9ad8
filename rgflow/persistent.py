"""Chains of fields that go on beside a training: what the energy asks for, where the flow has not been yet."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from rgflow.chains import hmc_chains
from rgflow.energies import Energy

logger = logging.getLogger(__name__)
BURN = 200  # proposals that tune the step and let the chains forget where they began


class PersistentChains:
    r"""Chains of HMC under :math:`e^{-E}`, some of which move by one proposal at a time.

    They start as independent normal fields: of a symmetric energy about as many end on either side. Trajectories are of
    the length `Energy.trajectory`.

    Arguments:
        energy: E.
        n: chains.

    Source: Tieleman 2008 (persistent chains for the training of an energy); here it is the flow that learns.
    """

    def __init__(self, energy: Energy, n: int) -> None:
        self.energy, self.n = energy, n
        self.fields: Tensor | None = None
        self.step, self.leaps = 0.0, 0

    def begin(self, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> None:
        """Starts the chains, burns them in and says in the log where they are; unless they have been loaded."""
        if self.fields is not None:
            self.fields = self.fields.to(device, dtype)
            return
        x = torch.randn((self.n, *self.energy.shape), dtype=dtype, device=device, generator=generator)
        length = self.energy.trajectory
        found = hmc_chains(self._density, x, 1, lambda y: y[:0], BURN, length, generator=generator)
        self.fields, self.step, self.leaps = found.last, found.step, found.leaps
        squared = float(self.energy.squared_magnetisation(found.last).mean())
        logger.info(
            "%d chains after %d proposals of %d leaps of %.3f: acceptance %.2f, m^2 %.3f",
            self.n, BURN, self.leaps, self.step, found.acceptance, squared,
        )  # fmt: skip

    def moved(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Some chains, chosen at random, after one proposal each: their numbers (count,) and fields (count, C, L, L).

        They stay where they are until `keep`.
        """
        chosen = torch.randperm(self.n, generator=generator, device=self.fields.device)[:count]
        length = self.step * self.leaps
        found = hmc_chains(
            self._density, self.fields[chosen], 1, lambda y: y[:0], 0, length, self.step, generator=generator
        )
        return chosen, found.last

    def keep(self, chosen: Tensor, fields: Tensor) -> None:
        """Puts chains where `moved` found them."""
        self.fields[chosen] = fields

    def state_dict(self) -> dict[str, object]:
        """What a run needs to go on."""
        return {"fields": self.fields, "step": self.step, "leaps": self.leaps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from there."""
        self.fields, self.step, self.leaps = state["fields"], state["step"], state["leaps"]

    def _density(self, x: Tensor) -> Tensor:
        return -self.energy(x)
