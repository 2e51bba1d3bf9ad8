"""Holes in images: what may fill them, how likely each fill is, the best one, and samples."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rgflow.conditional import Conditional
from rgflow.flow import Flow
from rgflow.hierarchy import whole
from rgflow.holes import HoleDensity, maximise
from rgflow.local import Encoding, Plan, frozen
from rgflow.pixels import from_logit, to_logit

logger = logging.getLogger(__name__)


def plan(flow: Flow, hole: Tensor | Sequence[int]) -> Plan:
    """Which blocks see a hole, for use with many images.

    Arguments:
        hole: (H, W), bool; or a box, (top, left, height, width), that may cross the periodic border.

    Raises:
        TypeError, ValueError: the hole is neither, has another size, or is empty; the flow has no causal cones.
    """
    geometry = flow.geometry
    return Plan(flow, _pixels(hole, (geometry.height, geometry.width)).to(flow.device))


def condition(flow: Flow, x: Tensor, hole: Tensor | Sequence[int] | Plan) -> Conditional | list[Conditional]:
    """Fixes all pixels of an image but those of a hole.

    What is in the hole makes no difference to any density. It may be NaN; where it is finite it is the fill that other
    holes of the image see (`Conditional.at`) until `update` accepts another.

    Shapes: x (C, H, W), logit pixels; of a batch (B, C, H, W) a list comes back.

    Arguments:
        flow: an RG-Flow; its weights are taken as they are now. `local.frozen(flow)` saves the copy when this is called
            many times.
        hole: as in `plan`, or what it gave.

    Raises:
        TypeError, ValueError: as `plan`; x has another shape or dtype, or is not finite outside the hole.
    """
    known = hole if isinstance(hole, Plan) else plan(flow, hole)
    if not known.fits(flow):
        raise ValueError("the plan is one for another flow: its lattice, blocks or channels differ")
    filled = _checked(flow, x, known.pixels)
    fixed = frozen(flow)
    made = [Conditional(fixed, Encoding(fixed, image), known) for image in filled]
    return made if x.ndim == 4 else made[0]


def _pixels(hole: Tensor | Sequence[int], size: tuple[int, int]) -> Tensor:
    """(K, 2), row-major."""
    if isinstance(hole, Tensor) and hole.dtype == torch.bool:
        if tuple(hole.shape) != size:
            raise ValueError(f"the hole must have the shape {size}, not {tuple(hole.shape)}")
        mask = hole.cpu()
    else:
        if isinstance(hole, Tensor) or len(hole) != 4:
            raise TypeError("the hole must be a bool tensor (H, W) or a box (top, left, height, width)")
        top, left, height, width = (whole(n, v, 0) for n, v in zip(("top", "left", "height", "width"), hole))
        if height > size[0] or width > size[1] or top >= size[0] or left >= size[1]:
            raise ValueError(f"the box {tuple(hole)} does not fit an image of {size[0]} x {size[1]}")
        mask = torch.zeros(size, dtype=torch.bool)
        rows, columns = torch.arange(top, top + height) % size[0], torch.arange(left, left + width) % size[1]
        mask[rows[:, None], columns] = True
    if not mask.any():
        raise ValueError("the hole is empty: it must hold at least one pixel")
    return mask.nonzero()


class WholeDensity(HoleDensity):
    """What `Conditional` is, by evaluations of the whole flow: for flows without cones, and to compare with.

    Shapes: as `HoleDensity`; images (1, C, H, W), latents (1, C H W) and free (1, l), places of the free latents in the
    flattened lattice. The other latents are those of the image as it is. (Several rows: candidate i is one of row i.)

    Source: paper, appendix D and figure 6 (Real NVP, and "constrained" with a random part of its latents).
    """

    def __init__(self, flow: Flow, images: Tensor, latents: Tensor, free: Tensor, pixels: Tensor) -> None:
        super().__init__(flow, pixels)
        self._images, self._latents, self.free = images, latents, free

    @property
    def image(self) -> Tensor:
        """(C, H, W)."""
        return self._images[0]

    @property
    def latents(self) -> int:
        """How many latents are free."""
        return self.free.shape[1]

    def paste(self, fills: Tensor) -> Tensor:
        """The image with each of the fills in its hole, (S, C, H, W)."""
        self._check(fills)
        images = self._images.expand(len(fills), *self.flow.shape).clone()
        images[:, :, self.pixels[:, 0], self.pixels[:, 1]] = fills
        return images

    def cone_log_prob(self, fills: Tensor) -> Tensor:
        """log p(x), (S,), nats: all of it may depend on the fill."""
        return self.flow.log_prob(self.paste(fills))

    def outside_log_prob(self) -> Tensor:
        """Nothing: 0."""
        return self._latents.new_zeros(())

    def decode(self, latents: Tensor) -> Tensor:
        """The hole's pixels (S, C, K) when the free latents are these, (S, l), and the others those of the image."""
        free = self.free.expand(len(latents), -1)
        z = self._latents.expand(len(latents), -1).scatter(1, free, latents)
        x = self.flow.decode(z.view(-1, *self.flow.shape))[0]
        return x[:, :, self.pixels[:, 0], self.pixels[:, 1]]

    def widened(self, hole: Tensor) -> WholeDensity:
        """The density of another hole (H, W) in the same image, all latents free."""
        every = torch.arange(self._latents.shape[1], device=hole.device)[None]
        return WholeDensity(self.flow, self._images, self._latents, every, hole.nonzero())

    def _together(self, others: Sequence[WholeDensity]) -> WholeDensity:
        rows = (torch.cat([getattr(other, name) for other in others]) for name in ("_images", "_latents", "free"))
        return WholeDensity(self.flow, *rows, self.pixels)


def condition_whole(
    flow: Flow,
    x: Tensor,
    hole: Tensor | Sequence[int],
    latents: int | None = None,
    generator: torch.Generator | None = None,
) -> WholeDensity | list[WholeDensity]:
    """`condition` for any flow, Real NVP too, at the cost of the whole image; with all latents free or some of them.

    Unlike there, what is in the hole matters to latents that are not free: where it is not finite, it is Gaussian noise
    of variance 1. Each image of a batch has noise and free latents of its own.

    Shapes: x (C, H, W), logit pixels; of a batch (B, C, H, W) a list comes back.

    Arguments:
        latents: how many may vary, drawn by `generator`; None: all.

    Raises:
        TypeError, ValueError: as `condition`; there are not so many latents.
    """
    pixels = _pixels(hole, flow.shape[1:]).to(flow.device)
    draw = {"generator": generator, "device": flow.device}
    images = _checked(flow, x, pixels, torch.randn(x.shape, dtype=flow.dtype, **draw))
    count = math.prod(flow.shape)
    if latents is not None and not 1 <= latents <= count:
        raise ValueError(f"latents must be 1 to {count}, not {latents}")
    fixed = copy.deepcopy(flow).requires_grad_(False)
    made = []
    for image in images:
        free = torch.arange(count, device=flow.device)
        if latents is not None:
            free = torch.randperm(count, **draw)[:latents].sort().values
        with torch.no_grad():
            encoded = fixed.encode(image[None])[0].flatten(1)
        made.append(WholeDensity(fixed, image[None], encoded, free[None], pixels))
    return made if x.ndim == 4 else made[0]


def fill(
    flow: Flow,
    image: Tensor,
    hole: Tensor | Sequence[int],
    method: Literal["latent", "pixel", "sample"] = "latent",
    n: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fills a hole in an image; whatever lies in it is forgotten, all other pixels stay as they are.

    Shapes: image (C, H, W), uint8; the result (n, C, H, W), uint8.

    Arguments:
        hole: as in `plan`.
        method: "latent" or "pixel": a mode, found in this space (`HoleDensity.maximise`), n searches that start from
            other draws, or from the same patches where there are few; "sample": samples of p(hole | rest)
            (`HoleDensity.sample`).

    Raises:
        TypeError, ValueError: as `plan`; the image has another shape or dtype; another method.
    """
    if method not in ("latent", "pixel", "sample"):
        raise ValueError(f"method must be latent, pixel or sample, not {method!r}")
    if image.dtype != torch.uint8 or tuple(image.shape) != flow.shape:
        raise ValueError(f"image must be uint8 of shape {flow.shape}, not {image.dtype} of {tuple(image.shape)}")
    middle = torch.full((1, *flow.shape), 0.5, dtype=flow.dtype, device=flow.device)  # of each grey level
    x = to_logit(image[None].to(flow.device), middle)[0][0]
    density = condition(flow, x, hole) if flow.has_cones else condition_whole(flow, x, hole)
    if method == "sample":
        particles = max(128, 2 * flow.shape[0] * len(density.pixels), -(-n // 4))  # enough for their covariance
        found = density.sample(n=4 * particles, generator=generator)
        if found.rhat_nested > 1.1:
            logger.warning("the populations of samples do not agree: nested R-hat is %.2f", found.rhat_nested)
        fills = found.fills[torch.linspace(0, 4 * particles - 1, n).long()]
    else:
        fills = torch.stack([mode.fill for mode in maximise([density] * n, method, generator=generator)])
    result = image.repeat(n, 1, 1, 1)
    row, column = density.pixels.T.to(image.device)
    result[:, :, row, column] = from_logit(fills).to(image.device)
    return result


def _checked(flow: Flow, x: Tensor, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
    """(B, C, H, W), finite: what is not finite in the hole is noise, or 0."""
    if x.ndim not in (3, 4) or tuple(x.shape[-3:]) != flow.shape:
        shape = ", ".join(map(str, flow.shape))
        raise ValueError(f"x must have the shape ({shape}) or (B, {shape}), not {tuple(x.shape)}")
    if x.dtype != flow.dtype or x.device != flow.device:
        raise ValueError(f"x must be {flow.dtype} on {flow.device}, as the flow is, not {x.dtype} on {x.device}")
    filled, (row, column) = x.detach().clone().reshape(-1, *flow.shape), pixels.T
    inside = filled[..., row, column]
    filled[..., row, column] = inside.where(
        inside.isfinite(), 0 if noise is None else noise.view_as(filled)[..., row, column]
    )
    if not filled.isfinite().all():
        raise ValueError("x is not finite outside the hole")
    return filled
