"""A density over what may fill a hole in an image: its modes, its samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from rgflow.flow import Flow
from rgflow.modes import Ascent, Mode, climb
from rgflow.pixels import ALPHA
from rgflow.posterior import Samples, draw

HIGH = math.log((1 - ALPHA) / ALPHA)  # the logit pixel of white
LOW = -HIGH
CHUNK = 256  # fills that are decoded at a time


class HoleDensity(ABC):
    """log p(x) as a function of the pixels in a hole, with all others given; and latents that generate the hole.

    Shapes: fills (S, C, K), logit pixels: S candidates for the K pixels of the hole in row-major order, that is
    `x[..., hole]`; latents (S, l). Densities (S,), nats.

    Arguments:
        flow: its weights are constants here.
        pixels: (K, 2), rows and columns, row-major.

    Generators of random numbers are those of the flow's device. Methods that take fills raise a ValueError for another
    shape or dtype.
    """

    def __init__(self, flow: Flow, pixels: Tensor) -> None:
        self.flow, self.pixels = flow, pixels

    @property
    @abstractmethod
    def image(self) -> Tensor:
        """(C, H, W), with anything finite in the hole."""

    @property
    @abstractmethod
    def latents(self) -> int:
        """How many latents are free."""

    @abstractmethod
    def cone_log_prob(self, fills: Tensor) -> Tensor:
        """The part of log p(x) that depends on the fill, (S,), nats."""

    @abstractmethod
    def outside_log_prob(self) -> Tensor:
        """The rest of log p(x), a number, nats."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """The hole's pixels (S, C, K) that free latents (S, l) generate."""

    @abstractmethod
    def widened(self, hole: Tensor) -> HoleDensity:
        """The density of a larger hole (H, W) in the same image."""

    @abstractmethod
    def _together(self, others: Sequence[Self]) -> Self:
        """What evaluates candidate i in the image of the i-th of others, which have the same hole and flow as this; of
        use for `cone_log_prob` and `decode` only."""

    @property
    def hole(self) -> Tensor:
        """(H, W), bool."""
        hole = torch.zeros(self.flow.shape[1:], dtype=torch.bool, device=self.pixels.device)
        hole[self.pixels[:, 0], self.pixels[:, 1]] = True
        return hole

    def log_prob(self, fills: Tensor) -> Tensor:
        """log p(x) with these fills: what `flow.log_prob` gives for the whole images, (S,), nats."""
        return self.outside_log_prob() + self.cone_log_prob(fills)

    def paste(self, fills: Tensor) -> Tensor:
        """The image with each of the fills in its hole, (S, C, H, W)."""
        self._check(fills)
        images = self.image.repeat(len(fills), 1, 1, 1)
        images[:, :, self.pixels[:, 0], self.pixels[:, 1]] = fills
        return images

    def draw_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of the free latents from the prior, (n, l)."""
        flow = self.flow
        return flow.prior.sample((n, self.latents), 1.0, generator, flow.dtype, flow.device)

    def maximise(
        self,
        space: Literal["latent", "pixel"] = "latent",
        starts: int = 200,
        kept: int | None = None,
        ascent: Ascent | None = None,
        generator: torch.Generator | None = None,
    ) -> Mode:
        """The best fill that a search finds: see `maximise`, which does many images at once."""
        return maximise([self], space, starts, kept, ascent, generator)[0]

    def sample(
        self,
        n: int = 512,
        steps: int = 20,
        populations: int = 4,
        rim: int = 2,
        generator: torch.Generator | None = None,
    ) -> Samples:
        """Samples of p(hole | rest), with what tells whether to believe in them: see `posterior.draw`.

        Arguments:
            n: fills, over all populations; each should have some times C K.
            steps: proposals of each chain after annealing.
            rim: how many pixels around the hole tell where to start, at least 0.

        Raises:
            ValueError, RuntimeError, FloatingPointError: as `posterior.draw`; a negative rim.
        """
        if rim < 0:
            raise ValueError(f"rim must be at least 0, not {rim}")
        marginal, known = self.marginal(max(2000, 8 * n), rim, generator)
        found = draw(self.cone_log_prob, marginal, known, n, steps, populations, generator=generator)
        outside = self.outside_log_prob()
        return replace(
            found,
            log_prob=found.log_prob + outside,
            paths=found.paths + outside,
            log_evidence=found.log_evidence + float(outside),
        )

    @torch.no_grad()
    def marginal(self, n: int, rim: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Samples of the flow of hole and rim, whatever is known: (n, C, K + R), the rim last; and the rim of the image
        (C, R)."""
        hole, wide = self.hole, self.hole
        for axis in (0, 1):
            wide = torch.stack([wide.roll(k, axis) for k in range(-rim, rim + 1)]).any(0)
        around = self.widened(wide)
        drawn = around.draw_latents(n, generator).split(CHUNK)
        pixels = torch.cat([around.decode(part) for part in drawn])
        inside = hole[wide]
        return torch.cat([pixels[..., inside], pixels[..., ~inside]], 2), self.image[:, wide & ~hole]

    @torch.no_grad()
    def _patches(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Up to n patches of the hole's shape from elsewhere in the image, (S, C, K); else draws."""
        size, hole = self.flow.shape[1:], self.hole.double()
        overlap = torch.fft.irfft2(torch.fft.rfft2(hole).abs().square(), s=size)  # of the hole with each shift of it
        shifts = (overlap < 0.5).nonzero()
        if len(shifts):
            chosen = shifts[torch.randperm(len(shifts), generator=generator, device=shifts.device)[:n]]
            row, column = (self.pixels + chosen[:, None]).unbind(2)  # (S, K)
            return self.image[:, row % size[0], column % size[1]].transpose(0, 1)
        return torch.cat([self.decode(part) for part in self.draw_latents(n, generator).split(CHUNK)])

    @torch.no_grad()
    def _starts(self, space: str, n: int, kept: int, generator: torch.Generator | None) -> Tensor:
        """The best of n places to start from, (kept or fewer, ...)."""
        if space == "latent":
            tried = self.draw_latents(n, generator)
            values = torch.cat([self.cone_log_prob(self.decode(part)) for part in tried.split(CHUNK)])
        else:
            tried = self._patches(n, generator).clamp(LOW, HIGH)
            values = torch.cat([self.cone_log_prob(part) for part in tried.split(CHUNK)])
        finite = values.nan_to_num(-math.inf, -math.inf, -math.inf)
        return tried[finite.topk(min(kept, len(values))).indices]

    def _check(self, fills: Tensor) -> None:
        expected = (self.flow.shape[0], len(self.pixels))
        if fills.ndim != 3 or tuple(fills.shape[1:]) != expected or fills.dtype != self.flow.dtype:
            raise ValueError(f"fills must be (S, {expected[0]}, {expected[1]}) of {self.flow.dtype}, not "
                             f"{tuple(fills.shape)} of {fills.dtype}")  # fmt: skip


def maximise(
    densities: Sequence[HoleDensity],
    space: Literal["latent", "pixel"] = "latent",
    starts: int = 200,
    kept: int | None = None,
    ascent: Ascent | None = None,
    generator: torch.Generator | None = None,
) -> list[Mode]:
    r"""The best fill of each image that a search finds, in one of two spaces; all images are searched at once.

    "latent", the paper's: the best of `starts` draws of the free latents, then Adam along these. What they generate
    inside the hole is put into the image, whose known pixels stay as they are:

    .. math:: \max_z \log p\bigl(x_\text{rest},\, G(z)_\text{hole}\bigr).

    "pixel": the density itself, uphill from the best of `starts` fills, which are patches of the image from other
    places (draws of the latents where there are none). Pixels stay within the range of grey levels.

    A mode is not a typical sample: it is smoother, and far more probable than the truth.

    Arguments:
        densities: with the same flow and hole.
        kept: starts of each image that are followed, of which the best wins; None: 1 in latent space, 8 in pixel space.
        ascent: how to climb, and when to stop.

    Raises:
        ValueError: another space, or counts below 1.
        FloatingPointError: there is an image for which the density is finite nowhere that was tried.

    Source: paper, appendix D ("latent").
    """
    if space not in ("latent", "pixel"):
        raise ValueError(f"space must be latent or pixel, not {space!r}")
    kept = kept if kept is not None else {"latent": 1, "pixel": 8}[space]
    if starts < 1 or kept < 1:
        raise ValueError(f"starts and kept must be at least 1, not {starts} and {kept}")
    first = densities[0] if densities else None
    if first is None or any(d.flow is not first.flow or not torch.equal(d.pixels, first.pixels) for d in densities):
        raise ValueError("densities must be at least one, all of the same flow and hole")
    low, high = (LOW, HIGH) if space == "pixel" else (-math.inf, math.inf)
    rows = [density._starts(space, starts, kept, generator) for density in densities]
    owners = [density for density, some in zip(densities, rows) for _ in some]
    joint = first._together(owners)
    fills = joint.decode if space == "latent" else torch.Tensor.clone
    found = iter(climb(joint.cone_log_prob, fills, torch.cat(rows), ascent or Ascent(), low, high))
    modes = []
    for density, some in zip(densities, rows):
        best = max((next(found) for _ in some), key=lambda mode: mode.log_prob)
        if not math.isfinite(best.log_prob):
            raise FloatingPointError("the density is not finite at any of the fills that were tried")
        outside = float(density.outside_log_prob())
        modes.append(replace(best, log_prob=best.log_prob + outside, path=best.path + outside))
    return modes
