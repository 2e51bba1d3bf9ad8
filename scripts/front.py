"""Draws the figure of the landing page, book/_static/front.png, from the shipped model msds1; --check only compares.

Four samples, the first of their seed; then each again with its finest levels drawn anew: one, two, three, and all.
"""

from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import rgflow
from rgflow import mixing, pixels, plot
from rgflow.files import replacing

FILE = Path(__file__).resolve().parent.parent / "book" / "_static" / "front.png"
ROWS, SEED = 4, 0
TEMPERATURE = [0.2, 0.6, 0.6, 0.6]  # mixed, as in appendix B of the paper
TOLERANCE = 2.0  # grey levels on average: other processors round otherwise


@torch.no_grad()
def pictures() -> Tensor:
    """uint8 (rows, 1 + levels, C, H, W): a sample, then the same with the levels below 1, 2, ... drawn anew."""
    flow, generator = rgflow.load("msds1"), torch.Generator().manual_seed(SEED)
    z = flow.sample_latents(ROWS, TEMPERATURE, generator)
    columns = [z]
    for cut in range(1, flow.geometry.depth + 2):
        columns.append(mixing.mix(flow.levels, z, flow.sample_latents(ROWS, TEMPERATURE, generator), cut))
    return torch.stack([pixels.from_logit(flow.decode(latents)[0]) for latents in columns], 1)


def figure(images: Tensor) -> Figure:
    """The pictures in a grid under headings that can be read on a telephone."""
    plot.style()
    rows, columns = images.shape[:2]
    fig = plot.figure(6.0, 1.2 * rows + 0.5)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    names = ["a sample", "level 0\nnew", *(f"0 to {k}\nnew" for k in range(1, columns - 2)), "all new"]
    for k, axes in enumerate(fig.subplots(rows, columns).flat):
        axes.imshow(images[k // columns, k % columns].permute(1, 2, 0))
        axes.axis("off")
        if k < columns:
            axes.set_title(names[k], fontsize=13)
    return fig


def drawn() -> bytes:
    """The PNG file."""
    buffer = BytesIO()
    figure(pictures()).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def array(png: bytes) -> NDArray[np.float64]:
    """Its pixels, (H, W, 3)."""
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"), dtype=float)


def same(a: bytes, b: bytes) -> bool:
    """Whether two PNG files show the same picture, to `TOLERANCE`."""
    x, y = array(a), array(b)
    return x.shape == y.shape and float(np.abs(x - y).mean()) <= TOLERANCE


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 when --check finds another picture than the shipped model draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the figure is out of date")
    options = parser.parse_args(arguments)
    fresh = drawn()
    if FILE.exists() and same(FILE.read_bytes(), fresh):
        return 0
    if options.check:
        print(f"{FILE.name} is not what msds1 draws; run scripts/front.py", file=sys.stderr)
        return 1
    with replacing(FILE) as partial:
        partial.write_bytes(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
