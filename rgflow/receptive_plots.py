"""Figures of the chapters on receptive fields: signed maps in their cones, strengths, radii, effects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator
from numpy.typing import ArrayLike

from rgflow.drawings import outline
from rgflow.plot import COLOURS, figure

# ColorBrewer's red-blue is told apart with any colour vision; white is 0, red brighter, blue darker.
SIGNED = colormaps["RdBu_r"]


def gallery(
    maps: ArrayLike,
    cones: ArrayLike | None = None,
    titles: Sequence[str] | None = None,
    ncols: int = 8,
    width: float = 7.0,
    label: str = "relative to the largest of its panel",
) -> Figure:
    """Signed maps side by side, each on a symmetric scale of its own, with the outline of its generation cone.

    Shapes: maps (K, H, W); cones (K, H, W), bool.

    Arguments:
        titles: one per map, "" for none.
        ncols: maps in a row.
        width: of the figure, inches.
        label: of the colour bar.

    Raises:
        ValueError: no maps, maps that are not (K, H, W) and finite, another shape of cones, a wrong number of titles.
    """
    maps = np.asarray(maps, dtype=float)
    if maps.ndim != 3 or not len(maps) or not np.isfinite(maps).all():
        raise ValueError(f"maps must be finite and (K, H, W), K at least 1, not {maps.shape}")
    cones = np.ones(maps.shape, dtype=bool) if cones is None else np.asarray(cones)
    if cones.shape != maps.shape:
        raise ValueError(f"cones must have the shape of maps, {maps.shape}, not {cones.shape}")
    if titles is not None and len(titles) != len(maps):
        raise ValueError(f"titles has {len(titles)} entries for {len(maps)} maps")
    ncols = min(ncols, len(maps))
    nrows = math.ceil(len(maps) / ncols)
    cell = 0.9 * width / ncols
    fig = figure(width, nrows * (cell + (0.22 if titles is not None else 0.03)) + 0.1)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    panels = fig.subplots(nrows, ncols, squeeze=False)
    for k, axes in enumerate(panels.flat):
        axes.set(xticks=(), yticks=())
        if k >= len(maps):
            axes.axis("off")
            continue
        largest = np.abs(maps[k]).max() or 1.0
        axes.imshow(maps[k] / largest, cmap=SIGNED, vmin=-1, vmax=1)
        axes.spines[:].set(visible=True, color="0.8", linewidth=0.6)
        if not cones[k].all():
            outline(axes, cones[k], COLOURS["black"], 0.8)
        if titles is not None and titles[k]:
            axes.set_title(titles[k], fontsize=8, pad=2)
    bar = fig.colorbar(ScalarMappable(Normalize(-1, 1), SIGNED), ax=panels, ticks=(-1, 0, 1), shrink=0.9, pad=0.01)
    bar.set_label(label, fontsize=8)
    return fig


def strengths(levels: ArrayLike, values: ArrayLike, bins: int = 40) -> Figure:
    """Histograms of strengths, one row per level on a common logarithmic axis, with the line at one.

    Strengths of 0, of latents whose mean is not above its noise, have no place on such an axis: they are a bar of their
    own on its left, hollow and marked 0.

    Shapes: levels and values (K,).

    Raises:
        ValueError: levels and values of different shapes, or no strength above 0.
    """
    levels, values = np.asarray(levels), np.asarray(values, dtype=float)
    positive = values[values > 0]
    if levels.shape != values.shape or not len(positive):
        raise ValueError(f"levels and values must be (K,), some above 0, not {levels.shape} and {values.shape}")
    low, high = math.log10(min(positive.min(), 0.5)), math.log10(max(positive.max(), 2.0))
    step = (high - low) / (bins - 1)  # one more bin than fits, so that an edge can lie at one
    edges = 10.0 ** (step * np.arange(math.floor(low / step), math.ceil(high / step) + 1))
    decades = range(math.ceil(math.log10(edges[0])), math.floor(math.log10(edges[-1])) + 1)
    ticks, names = [10.0**k for k in decades], [f"$10^{{{k}}}$" for k in decades]
    small = [d * 10.0**k for k in (decades[0] - 1, *decades) for d in range(2, 10)]
    none, width = edges[0] / 10 ** max(0.045 * (high - low), 1.5 * step), 10 ** (step / 2)  # the bar of zeros
    found = sorted(set(levels.tolist()), reverse=True)
    fig = figure(7.0, 0.5 + 1.0 * len(found))
    for axes, level in zip(fig.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0], found, strict=True):
        chosen = values[levels == level]
        counts, _ = np.histogram(chosen[chosen > 0].clip(edges[0], edges[-1]), edges)
        strong, zeros = np.arange(len(counts)) >= -math.floor(low / step), int((chosen == 0).sum())
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=np.where(strong, *_pair()), edgecolor="white")
        axes.axvline(1, color="black", lw=1.2, ls="--")
        if len(positive) < len(values):
            span = none * (width - 1 / width)
            axes.bar(none / width, zeros, span, align="edge", color="white", edgecolor=_pair()[1], lw=1.2)
        axes.set(xscale="log", ylabel="latents", ylim=(0, 1.4 * max(1, counts.max(), zeros)))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        text = f"level {level}: {(chosen > 1).sum()} of {len(chosen)} above 1"
        axes.text(0.01, 0.95, text, transform=axes.transAxes, va="top", fontsize=9)
    if len(positive) < len(values):
        ticks, names = [none, *ticks], ["0", *names]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(FixedLocator([tick for tick in small if edges[0] <= tick <= edges[-1]]))
    axes.set_xlabel("strength, logit pixels per unit of the latent")
    return fig


def radii(levels: ArrayLike, fields: ArrayLike, cones: ArrayLike) -> Figure:
    """The radius of every receptive field by level (dots, scattered sideways) beside that of its cone (bars).

    Shapes: levels, fields and cones (K,), sites.
    """
    levels, fields, cones = np.asarray(levels), np.asarray(fields, dtype=float), np.asarray(cones, dtype=float)
    if not levels.shape == fields.shape == cones.shape or not len(levels):
        raise ValueError(f"all three must have the same shape (K,), not {levels.shape}, {fields.shape}, {cones.shape}")
    fig = figure(7.0, 3.4)
    axes = fig.subplots()
    aside = np.random.default_rng(0).uniform(-0.28, 0.28, len(levels))
    axes.plot(levels + aside, fields, ".", ms=3, color=COLOURS["blue"], alpha=0.35, label="receptive fields")
    for k, level in enumerate(sorted(set(levels.tolist()))):
        here, named = levels == level, k == 0
        median, cone = np.median(fields[here]), np.median(cones[here])
        line = (level - 0.32, level + 0.32)
        axes.hlines(cone, *line, color=COLOURS["red"], lw=3, label="their cones" if named else None)
        axes.hlines(median, *line, color="black", label="median" if named else None)
        axes.annotate(f"{median:.1f}", (level + 0.34, median), va="center", fontsize=9)
        axes.annotate(f"{cone:.1f}", (level + 0.34, cone), va="center", fontsize=9, color=COLOURS["red"])
    axes.set(xlabel="level", ylabel="radius of gyration, sites", xticks=sorted(set(levels.tolist())), ylim=(0, None))
    fig.legend(loc="outside upper center", ncols=3)
    return fig


def reaches(maps: Mapping[str, Sequence[ArrayLike]], least: float = 1e-6) -> Figure:
    """How effects fall off around the site of their latent: one row per flow, one column per level, lowest first.

    Shapes: of each flow one map (H, W) per level, shares of the effect with the site in the middle (`spread.centred`);
    on one logarithmic scale, black where there is less than `least` or nothing.

    Raises:
        ValueError: no maps, flows with different numbers of levels, or maps that are not shares.
    """
    rows = {name: np.asarray(row, dtype=float) for name, row in maps.items()}
    shapes = {row.shape for row in rows.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3 or any((row < 0).any() for row in rows.values()):
        raise ValueError(f"maps must be shares (levels, H, W), of as many levels for every flow, not {sorted(shapes)}")
    levels, height, width = next(iter(shapes))
    colours = colormaps["inferno"].with_extremes(bad="black", under="black")
    fig = figure(7.0, 6.1 / levels * len(rows) * height / width + 0.25)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    panels = fig.subplots(len(rows), levels, squeeze=False)
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        for level, (ax, shares) in enumerate(zip(axes, row, strict=True)):
            shown = ax.imshow(np.ma.masked_less_equal(shares, 0), cmap=colours, norm=LogNorm(least, 1))
            ax.set(xticks=(), yticks=())
            if ax in panels[0]:
                ax.set_title(f"level {level}", fontsize=9)
        axes[0].set_ylabel(name, fontsize=9)
    bar = fig.colorbar(shown, ax=panels, shrink=0.9, pad=0.01)
    bar.set_label("share of the effect", fontsize=8)
    return fig


def _pair() -> tuple[str, str]:
    return COLOURS["red"], COLOURS["sky"]
