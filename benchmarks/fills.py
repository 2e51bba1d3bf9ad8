"""How good the fills of holes are (paper, figure 6): python benchmarks/fills.py --rgflow A --realnvp B --data msds1

Holes of 8 x 8 pixels in test images, filled by RG-Flow from the latents of the hole's cone; by Real NVP from as many
latents, drawn at random ("constrained"), and from all; and by biharmonic inpainting, which knows nothing of images. All
flows search as the paper says: the best of 200 draws, then Adam. PSNR over the pixels of the hole, and log p of the
filled image less that of the true one, under the flow that filled it.

Pairs of an image and a hole are drawn by seed; those whose hole is nearly of one colour, which anything can fill, are
passed over. The holes of a few images lie at one place; the intervals are a bootstrap over places. With --out, a run
that was stopped goes on at the place it had reached when the same command is given again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from places import Places, pairs
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from rgflow import data, load
from rgflow.batches import Indexed
from rgflow.files import replacing
from rgflow.flow import Flow
from rgflow.holes import maximise
from rgflow.inpaint import condition, condition_whole, plan
from rgflow.modes import Ascent
from rgflow.pixels import from_logit, to_logit
from rgflow.results import hardware, keep
from rgflow.statistics import bootstrap_interval

Values = dict[str, Tensor]
METHODS = ("RG-Flow in its cone", "Real NVP constrained", "Real NVP", "biharmonic")


@dataclass(frozen=True, kw_only=True)
class Options(Places):
    """What to fill."""

    rgflow: str
    """Model file or shipped model."""
    realnvp: str
    """Model file or shipped model."""
    holes: int = 25
    images: int = 4
    edge: int = 8
    steps: int = 1000
    """Of Adam, at most; fewer where all images have converged."""
    starts: int = 200
    """Draws of the latents to start from the best of."""
    threads: int = 1
    """Threads of torch."""
    out: Path | None = None
    """JSON file for the numbers and their conditions; images and all values lie beside it as .npz."""


def psnr(found: Tensor, true: Tensor) -> Tensor:
    """Of grey levels (n, ...), uint8, each with its truth, dB; errors below half a grey level count as that."""
    square = (found.double() - true.double()).square().flatten(1).mean(1).clamp_min(0.25)
    return 10 * torch.log10(255**2 / square)


def by_flow(
    flow: Flow,
    x: Tensor,
    box: tuple[int, int, int, int],
    latents: int | None,
    options: Options,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """Fills (n, C, K), logit pixels, log p of the filled images (n,), nats, and steps; RG-Flow in its cone."""
    densities = condition(flow, x, box) if flow.has_cones else condition_whole(flow, x, box, latents, generator)
    modes = maximise(densities, "latent", options.starts, ascent=Ascent(steps=options.steps), generator=generator)
    found = torch.tensor([mode.log_prob for mode in modes])
    return torch.stack([mode.fill for mode in modes]), found, len(modes[0].path)


def interval(values: list[float], options: Options) -> tuple[float, float, float]:
    """The mean with its bootstrap interval over places."""
    places = np.array(values).reshape(options.holes, options.images).mean(1)
    return bootstrap_interval(places, np.mean, generator=torch.Generator().manual_seed(0))


def at_place(
    rgflow: Flow, realnvp: Flow, box: tuple[int, int, int, int], images: Tensor, options: Options, seed: int
) -> tuple[Values, Values]:
    """What was found in the images (n, C, H, W) at one place: values by name, and arrays to keep."""
    values: Values = {}
    generator = torch.Generator().manual_seed(seed)
    x = to_logit(images, generator=generator)[0]
    top, left, height, width = box
    mask = torch.zeros(images.shape[2:], dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    noisy = x.clone()
    noisy[:, :, mask] = torch.randn(noisy[:, :, mask].shape, generator=generator)
    cone = len(plan(rgflow, box).sites)
    arrays = {"true": images, "boxes": torch.tensor([box] * len(images)), "latents": torch.tensor([cone] * len(images))}
    for name, flow, latents in zip(METHODS, (rgflow, realnvp, realnvp), (None, cone, None)):
        start = time.perf_counter()
        fills, found, steps = by_flow(flow, noisy, box, latents, options, generator)
        values[f"{name}: seconds"] = torch.tensor([(time.perf_counter() - start) / len(images)])
        values[f"{name}: steps"] = torch.tensor([float(steps)])
        with torch.no_grad():
            values[f"{name}: gap"] = found - flow.log_prob(x)
        arrays[name] = images.clone()
        arrays[name][:, :, mask] = from_logit(fills)
    smooth = [inpaint_biharmonic(i.permute(1, 2, 0).numpy() / 255, mask.numpy(), channel_axis=-1) for i in images]
    grey = torch.from_numpy(np.stack(smooth)).permute(0, 3, 1, 2).mul(255).round().clamp(0, 255).to(torch.uint8)
    arrays["biharmonic"] = torch.where(mask, grey, images)
    for name in METHODS:
        values[f"{name}: psnr"] = psnr(arrays[name][:, :, mask], images[:, :, mask])
    return values, arrays


def unfinished(out: Path) -> Path:
    """Where a run keeps what it has so far."""
    return out.with_suffix(".part")


def found_so_far(options: Options) -> list[tuple[Values, Values]]:
    """What a run with these options that was stopped has left.

    ValueError: the file was left by one with other options.
    """
    if options.out is None or not unfinished(options.out).exists():
        return []
    path = unfinished(options.out)
    left = torch.load(path)
    if left["options"] != named(options):
        raise ValueError(f"{path} is of {left['options']}, not {named(options)}; remove it to start anew")
    return left["found"]


def named(options: Options) -> str:
    """What the values depend on."""
    return str(replace(options, out=None))


def main(options: Options) -> dict[str, float]:
    """Prints the means with their intervals, and gives them."""
    if options.holes < 2:
        raise ValueError(f"holes must be at least 2, for an interval, not {options.holes}")
    torch.set_num_threads(options.threads)
    rgflow, realnvp = load(options.rgflow), load(options.realnvp)
    found = found_so_far(options)
    for k, (box, images) in enumerate(pairs(Indexed(data.load(options.data, "test")), options)):
        if k < len(found):
            continue
        found.append(at_place(rgflow, realnvp, box, images, options, options.seed * 10_000 + k + 1))
        print(box, {m: round(found[k][0][f"{m}: psnr"].mean().item(), 2) for m in METHODS}, flush=True)
        if options.out is not None:
            with replacing(unfinished(options.out)) as temporary:
                torch.save({"options": named(options), "found": found}, temporary)
    values = {name: torch.cat([place[0][name] for place in found]).tolist() for name in found[0][0]}
    arrays = {name: torch.cat([place[1][name] for place in found]).numpy() for name in found[0][1]}
    numbers: dict[str, float] = {"images": len(values[f"{METHODS[0]}: psnr"])}
    for name, each in values.items():
        if name.endswith(("psnr", "gap")):
            numbers |= dict(zip((f"{name}", f"{name} low", f"{name} high"), interval(each, options)))
        else:
            numbers[name] = float(np.mean(each))
    for name in METHODS[1:]:
        pair = zip(values[f"{METHODS[0]}: psnr"], values[f"{name}: psnr"])
        paired = interval([a - b for a, b in pair], options)
        title = f"RG-Flow less {name}: psnr"
        numbers |= dict(zip((title, f"{title} low", f"{title} high"), paired))
    print(hardware())
    for name, value in numbers.items():
        print(f"{name:45s} {value:12,.3f}")
    if options.out is not None:
        keep(options.out, options, numbers)
        arrays |= {name: np.array(each) for name, each in values.items() if name.endswith(("psnr", "gap"))}
        with replacing(options.out.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        unfinished(options.out).unlink()
    return numbers


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(tyro.cli(Options, description=__doc__))
