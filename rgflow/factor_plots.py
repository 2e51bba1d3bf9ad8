"""Figures of the chapter on factors: effects by rank, walks beside receptive fields, correlations, weights, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from rgflow.drawings import outline
from rgflow.plot import COLOURS, figure
from rgflow.receptive_plots import SIGNED
from rgflow.statistics import Interval

STYLES = (("blue", "o"), ("red", "s"), ("green", "^"), ("orange", "D"), ("pink", "v"))
CUT = 0.01  # of the pixels of a signed map


class Walk(NamedTuple):
    """One row of `walks`: a name, a receptive field and its cone (H, W), and pictures uint8 (n, C, H, W)."""

    name: str
    field: ArrayLike
    cone: ArrayLike
    pictures: Tensor


def ranks(strengths: Mapping[int, ArrayLike]) -> Figure:
    """Effects of the latents of each level, the strongest first, against the share of the level's latents.

    ValueError: no levels, or a level without latents.
    """
    if not strengths or not all(len(np.asarray(values)) for values in strengths.values()):
        raise ValueError("there must be levels, each with latents")
    fig = figure(7.0, 3.0)
    axes = fig.subplots()
    for (level, values), (colour, marker) in zip(strengths.items(), STYLES):
        ordered = np.sort(np.asarray(values, dtype=float))[::-1]
        share = 100 * (np.arange(len(ordered)) + 0.5) / len(ordered)
        every = max(1, len(ordered) // 12)
        axes.plot(share, ordered, marker=marker, ms=4, markevery=every, color=COLOURS[colour], label=f"level {level}")
    axes.set(
        yscale="log", xlabel="latents of the level, strongest first, %", ylabel="effect, grey levels", xlim=(0, 100)
    )
    axes.legend()
    return fig


def walks(rows: Sequence[Walk], titles: Sequence[str], width: float = 7.0) -> Figure:
    """A row for each walk: receptive field with its cone, pictures along the walk, and the last less the first of them.

    Field and change are in red (up) and blue (down), each on a scale of its own that cuts the strongest hundredth of
    the cone's pixels; the change is the mean over channels.

    Arguments:
        titles: one per picture.
        width: of the figure, inches.

    ValueError: no rows, or rows of other than two pictures or more with a title each.
    """
    if not rows or len(titles) < 2 or any(len(row.pictures) != len(titles) for row in rows):
        raise ValueError(f"every row must have {len(titles)} pictures, two at least, as there are titles")
    heads = ["receptive\nfield", *titles, "change"]
    cell = (width - 0.75) / len(heads)
    fig = figure(width, len(rows) * cell + 0.4)
    fig.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)
    for line, (panels, row) in enumerate(zip(fig.subplots(len(rows), len(heads), squeeze=False), rows, strict=True)):
        _signed(panels[0], np.asarray(row.field, dtype=float), np.asarray(row.cone))
        for axes, picture in zip(panels[1:-1], row.pictures, strict=True):
            array = picture.cpu().numpy()
            axes.imshow(array[0] if len(array) == 1 else array.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
        first, last = (row.pictures[k].double().mean(0).cpu().numpy() for k in (0, -1))
        _signed(panels[-1], last - first, np.asarray(row.cone))
        panels[0].set_ylabel(row.name, rotation=0, ha="right", va="center", fontsize=8)
        for axes, head in zip(panels, heads, strict=True):
            axes.set(xticks=(), yticks=())
            axes.spines[:].set(visible=True, color="0.8", linewidth=0.6)
            if line == 0:
                axes.set_title(head, fontsize=8, pad=3)
    return fig


def correlations(matrix: ArrayLike, limit: float) -> Figure:
    """A correlation matrix, red above and blue below zero, the diagonal grey; the scale ends at +-limit."""
    shown = np.array(matrix, dtype=float)
    if shown.ndim != 2 or shown.shape[0] != shown.shape[1] or not limit > 0:
        raise ValueError(f"matrix must be square and limit positive, not {shown.shape} and {limit}")
    np.fill_diagonal(shown, np.nan)
    fig = figure(5.2, 4.2)
    axes = fig.subplots()
    image = axes.imshow(shown, cmap=SIGNED.with_extremes(bad="0.6"), vmin=-limit, vmax=limit)
    fig.colorbar(image, ax=axes, label="correlation", shrink=0.9)
    axes.set(xlabel="latent of the top level", ylabel="latent of the top level")
    return fig


def donor_weights(found: Mapping[str, Sequence[Interval]], swaps: Sequence[str]) -> Figure:
    """What a donor brings of each factor (the names of `found`) when each of the `swaps` is made, with intervals.

    ValueError: no factors, or another number of weights than of swaps.
    """
    if not found or any(len(weights) != len(swaps) for weights in found.values()):
        raise ValueError(f"every factor needs {len(swaps)} weights, one for each swap")
    fig = figure(7.0, 3.2)
    axes = fig.subplots()
    for k, ((name, weights), (colour, marker)) in enumerate(zip(found.items(), STYLES)):
        place = np.arange(len(swaps)) + 0.12 * (k - (len(found) - 1) / 2)
        _dots(axes, place, weights, colour, marker, name)
    for height in (0, 1):
        axes.axhline(height, color="0.7", lw=0.8, zorder=0)
    axes.set(xticks=range(len(swaps)), xticklabels=swaps, ylabel="donor's weight", xlabel="levels taken from the donor")
    fig.legend(loc="outside upper center", ncols=len(found))
    return fig


def seeds(panels: Mapping[str, Mapping[str, Mapping[int, Interval]]]) -> Figure:
    """Scores of runs: a panel per measure, in it a column per prior, a dot per seed; runs of one seed are joined.

    Arguments:
        panels: title -> prior -> seed -> score with its interval.

    ValueError: no panels.
    """
    if not panels:
        raise ValueError("there are no panels to draw")
    fig = figure(7.0, 2.9)
    for axes, (title, priors) in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        every = sorted({seed for runs in priors.values() for seed in runs})
        for k, seed in enumerate(every):
            colour, marker = STYLES[k % len(STYLES)]
            joined = [(n + 0.12 * (k - 1), runs[seed]) for n, runs in enumerate(priors.values()) if seed in runs]
            places, scores = zip(*joined, strict=True)
            axes.plot(places, [score.value for score in scores], color=COLOURS[colour], lw=0.8, alpha=0.6)
            _dots(axes, np.array(places), scores, colour, marker, f"seed {seed}")
        axes.set(xticks=range(len(priors)), xticklabels=list(priors), xlim=(-0.5, len(priors) - 0.5))
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        ends = [end for runs in priors.values() for score in runs.values() for end in score[1:]]
        if ends:
            axes.set_ylim(min(0, *ends), 1.15 * max(ends))
    handles = {text: dot for axes in fig.axes for dot, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        fig.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles))
    return fig


def _dots(axes: Axes, places: np.ndarray, scores: Sequence[Interval], colour: str, marker: str, name: str) -> None:
    value, low, high = np.array(scores, dtype=float).T
    axes.errorbar(
        places, value, [value - low, high - value], fmt=marker, ms=4, lw=1.2, color=COLOURS[colour], label=name
    )


def _signed(axes: Axes, values: np.ndarray, cone: np.ndarray) -> None:
    """A map in red and blue; the strongest hundredth of its cone's pixels is cut, since means of derivatives have heavy
    tails and one pixel would leave the rest pale."""
    sizes = np.abs(values[cone]) if cone.any() else np.abs(values)
    largest = np.quantile(sizes, 1 - CUT) or sizes.max() or 1.0
    axes.imshow(values / largest, cmap=SIGNED, vmin=-1, vmax=1)
    if not cone.all():
        outline(axes, cone, COLOURS["black"], 0.6)
