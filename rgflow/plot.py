"""Figures of arrays; each function returns the matplotlib figure. Drawings of the hierarchy are in `drawings`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# Okabe and Ito (2008): eight colours that people with any colour vision tell apart.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "pink": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}

Images = torch.Tensor | np.ndarray | Sequence[torch.Tensor | np.ndarray]


def style() -> None:
    """Sets matplotlib up for the book: legible at 700 pixels, colours of Okabe and Ito, always on white."""
    cycle = [COLOURS[name] for name in ("blue", "red", "green", "orange", "pink", "sky", "black")]
    mpl.rcParams.update({
        "figure.figsize": (7.0, 3.2),
        "figure.dpi": 144,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "savefig.facecolor": "white",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.labelsize": 10,
        "legend.fontsize": 9,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": mpl.cycler(color=cycle),
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "image.interpolation": "nearest",
        "image.cmap": "cividis",
        "svg.hashsalt": "rgflow",
    })  # fmt: skip


def figure(width: float = 7.0, height: float = 3.2) -> Figure:
    """An empty figure, sizes in inches. pyplot does not keep it: a notebook shows it once, where a cell ends in it."""
    fig = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(fig)
    return fig


def image_grid(
    images: Images, ncols: int | None = None, titles: Sequence[str] | None = None, width: float = 7.0
) -> Figure:
    """Images side by side, row by row, each in a square of the same size.

    Shapes: (N, C, H, W), or a list of (C, H, W), whose sizes may differ; C = 1 or 3. Values: uint8, or floats in 0..1.

    Arguments:
        ncols: images in a row; by default all in one row up to 8.
        titles: one per image, "" for none.
        width: of the figure, inches.

    Raises:
        ValueError: no images, another shape, floats outside 0..1, or a wrong number of titles.
    """
    pictures = [_picture(image) for image in images]
    if not pictures:
        raise ValueError("there are no images to show")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles has {len(titles)} entries for {len(pictures)} images")
    ncols = min(len(pictures), 8) if ncols is None else ncols
    if ncols < 1:
        raise ValueError(f"ncols must be at least 1, not {ncols}")
    nrows = math.ceil(len(pictures) / ncols)
    cell = width / ncols
    titled = sum(any(titles[r * ncols : (r + 1) * ncols]) for r in range(nrows)) if titles is not None else 0
    fig = figure(width, nrows * cell + 0.25 * titled)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    for k, axes in enumerate(fig.subplots(nrows, ncols, squeeze=False).flat):
        axes.axis("off")
        if k < len(pictures):
            axes.imshow(pictures[k], cmap="gray", vmin=0, vmax=255)
            if titles is not None and titles[k]:
                axes.set_title(titles[k], fontsize=9)
    return fig


def image_rows(rows: Mapping[str, Images], width: float = 7.0) -> Figure:
    """Images side by side, one row for each name, which stands at its left.

    Shapes and values: of each row as in `image_grid`, all of one size, as many in every row.

    Arguments:
        width: of the figure, inches; a name takes what its longest line needs.

    Raises:
        ValueError: no rows, rows of different lengths, images of different sizes, or as in `image_grid`.
    """
    pictures = {name: [_picture(image) for image in row] for name, row in rows.items()}
    counts, sizes = {len(row) for row in pictures.values()}, {p.shape for row in pictures.values() for p in row}
    if len(counts) != 1 or len(sizes) != 1:
        raise ValueError(f"rows must have as many images each, all of one size, not {sorted(counts)} of {sizes}")
    (count,), ((height, length, *_),) = counts, sizes
    named = 0.085 * max(len(line) for name in pictures for line in name.split("\n"))
    fig = figure(width, (width - named) / count * height / length * len(pictures) + 0.05)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    for axes, (name, row) in zip(fig.subplots(len(pictures), 1, squeeze=False)[:, 0], pictures.items(), strict=True):
        edges = [(1, 1), (1, 1), *[(0, 0)] * (row[0].ndim - 2)]
        strip = np.concatenate([np.pad(picture, edges, constant_values=255) for picture in row], 1)
        axes.imshow(strip, cmap="gray", vmin=0, vmax=255)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        axes.set_anchor("E")  # what the widest name leaves free lies at the left, where it may be longer than reckoned
        axes.set(xticks=(), yticks=())
        axes.spines[:].set_visible(False)
    return fig


def levels_map(levels: ArrayLike, axes: Axes | None = None) -> Figure:
    """The level of every site of the lattice (H, W), with a colour bar of whole numbers; drawn into `axes` if given."""
    values = np.asarray(levels)
    if values.ndim != 2:
        raise ValueError(f"levels must have the shape (H, W), not {values.shape}")
    if axes is None:
        axes = figure(4.6, 4.6 * min(1.6, max(0.4, values.shape[0] / values.shape[1])) * 0.84).subplots()
    count = int(values.max()) + 1
    colours, norm = level_colours(count)
    shown = axes.imshow(values, cmap=colours, norm=norm)
    bar = axes.figure.colorbar(shown, ax=axes, ticks=range(count), shrink=0.9, label="level")
    bar.ax.tick_params(length=0)
    axes.set(xlabel="column j", ylabel="row i")
    return axes.figure


def level_colours(count: int) -> tuple[ListedColormap, BoundaryNorm]:
    """A colour per level, from dark (0, the finest) to light, and the norm that maps levels to them."""
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    shades = mpl.colormaps["viridis"](np.linspace(0.05, 0.98, count))
    return ListedColormap(shades), BoundaryNorm(np.arange(count + 1) - 0.5, count)


def _picture(image: torch.Tensor | np.ndarray) -> np.ndarray:
    """(C, H, W) -> uint8 (H, W) or (H, W, 3)."""
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise ValueError(f"an image must have the shape (1, H, W) or (3, H, W), not {array.shape}")
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"images must be uint8 or floats in 0..1, not from {array.min()} to {array.max()}")
        array = np.round(255 * array).astype(np.uint8)
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
