"""What is asked of a flow besides the energy it learns: a symmetry, and how its gradient is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rgflow.flow import Flow
from rgflow.symmetry import Symmetrised, parts


@dataclass(frozen=True)
class Variation:
    """What is asked of a flow besides the energy.

    Arguments:
        symmetry: name of a group, see `symmetry.group`.
        penalty: 0: the density is averaged over the group, exactly; above 0: the flow stays as it is, and this times
            `symmetry.asymmetry` is added to the loss.
        gradient: "total", or "path": without the gradient of log q at fixed x, whose mean is 0 and which alone makes
            the gradient noisy where q is p (Roeder et al. 2017, arXiv:1703.09194). Not for neural ODEs, nor with
            memory other than "store".
        forward: a in [0, 1): this share of the loss is the other divergence, KL(p | q), on fields of persistent chains
            of HMC. The reverse one lets a flow leave out what it does not draw; this one does not.
        hmc: whether evaluations also run chains of HMC, in the fields and in the latents, as the original program does.
        hmc_moves: proposals of these chains.
        hmc_leaps, hmc_step: leapfrog steps of a proposal, and their size.

    Raises:
        ValueError: a value that is not allowed, or a penalty without a symmetry.
    """

    symmetry: str = "none"
    penalty: float = 0.0
    gradient: Literal["total", "path"] = "total"
    forward: float = 0.0
    hmc: bool = False
    hmc_moves: int = 10
    hmc_leaps: int = 10
    hmc_step: float = 0.2

    def __post_init__(self) -> None:
        names = parts(self.symmetry)
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty must be at least 0, not {self.penalty}")
        if self.penalty and not names:
            raise ValueError("a penalty needs a symmetry that is not none")
        if self.gradient not in ("total", "path"):
            raise ValueError(f"gradient must be total or path, not {self.gradient!r}")
        if not 0 <= self.forward < 1:
            raise ValueError(f"forward must be at least 0 and below 1, not {self.forward}")
        if self.hmc_moves < 1 or self.hmc_leaps < 1 or not self.hmc_step > 0:
            given = f"{self.hmc_moves}, {self.hmc_leaps} and {self.hmc_step}"
            raise ValueError(f"hmc_moves and hmc_leaps must be at least 1 and hmc_step positive, not {given}")

    def model(self, flow: Flow) -> Symmetrised:
        """The density that is trained and drawn from: the flow averaged over the group, or the flow itself."""
        return Symmetrised(flow, "none" if self.penalty else self.symmetry)
