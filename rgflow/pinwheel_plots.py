"""Figures of the pinwheel chapter: the paper's figure 9, purity over rotation, best rotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rgflow.pinwheel import target_log_prob
from rgflow.plot import COLOURS, figure
from rgflow.priors import PRIORS
from rgflow.purity import Measurement, sector

SECTORS = tuple(COLOURS[name] for name in ("blue", "orange", "green", "pink"))
PRIOR = {"laplace": COLOURS["blue"], "gaussian": COLOURS["red"]}
MARKERS = "os^D"  # shape repeats colour, for readers who cannot tell the colours apart
SPAN = 3.4  # half width of every panel


def figure9(
    latents: Mapping[str, NDArray], images: Mapping[str, NDArray], rotation: float = 0.0, cell: int = 120
) -> Figure:
    """The paper's figure 9: per prior its density, points coloured by sector, their images, and the target's density.

    latents, images: per prior ("laplace", "gaussian"), (N, 2); rotation: of the sectors, degrees, 0 for quadrants;
    cell: points per edge of a density's grid.
    """
    fig = figure(7.2, 1.95 * len(latents) + 0.1)
    axes = fig.subplots(len(latents), 4, sharex=True, sharey=True, squeeze=False)
    target = target_density(cell)
    titles = ("prior density", "latents $z$", "their images $x$", "target density")
    for row, prior in zip(axes, latents, strict=True):
        sectors = sector(torch.as_tensor(latents[prior]), rotation).numpy()
        row[0].imshow(prior_density(prior, cell), origin="lower", extent=(-SPAN, SPAN) * 2, cmap="cividis")
        scatter(row[1], latents[prior], sectors, rotation)
        scatter(row[2], images[prior], sectors)
        row[3].imshow(target, origin="lower", extent=(-SPAN, SPAN) * 2, cmap="cividis")
        row[0].set_ylabel(prior.capitalize())
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    return fig


def target_density(cell: int = 120) -> NDArray:
    """Density of the pinwheel on a (cell, cell) grid over the square of half width `SPAN`."""
    axis = torch.linspace(-SPAN, SPAN, cell)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return target_log_prob(torch.stack([x, y], -1).view(-1, 2), cells=128).exp().view(cell, cell).numpy()


def prior_density(prior: str, cell: int = 120) -> NDArray:
    """Density of two latents on a (cell, cell) grid over the square of half width `SPAN`."""
    line = PRIORS[prior]().log_prob(torch.linspace(-SPAN, SPAN, cell)).exp()
    return torch.outer(line, line).numpy()


def scatter(axis: Axes, points: NDArray, sectors: NDArray, rotation: float | None = None) -> None:
    """Points (N, 2) coloured and marked by sector (N,); with a rotation, the borders of the sectors too."""
    for k in range(4):
        mine = sectors == k
        axis.scatter(*points[mine].T, s=11, c=SECTORS[k], marker=MARKERS[k], linewidths=0.3, edgecolors="black")
    if rotation is not None:
        for side in (0, 90):
            angle = np.deg2rad(rotation + side)
            end = 2 * SPAN * np.array([np.cos(angle), np.sin(angle)])
            axis.plot(*np.stack([-end, end]).T, color="0.45", lw=0.8, ls="--", zorder=0)


def rotated_sectors(
    latents: Mapping[str, NDArray], images: Mapping[str, NDArray], rotation: float, purity: Mapping[str, float]
) -> Figure:
    """One frame of the slider: per prior, latents and images (N, 2) coloured by the sectors at a rotation, degrees."""
    fig = figure(7.2, 2.15)
    axes = fig.subplots(1, 4, sharex=True, sharey=True)
    for (left, right), prior in zip((axes[:2], axes[2:]), latents, strict=True):
        sectors = sector(torch.as_tensor(latents[prior]), rotation).numpy()
        scatter(left, latents[prior], sectors, rotation)
        scatter(right, images[prior], sectors)
        left.set_title(f"{prior.capitalize()}, {rotation:.0f}°")
        right.set_title(f"images, purity {purity[prior]:.2f}")
    for axis in axes:
        axis.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    return fig


def purity_curves(tests: Mapping[str, Mapping[str, Measurement]]) -> Figure:
    """Purity over rotation; rows are tests, columns priors, thin lines seeds, and the thick one is their mean."""
    fig = figure(7.2, 2.4 * len(tests) + 0.3)
    axes = fig.subplots(len(tests), 2, sharex=True, sharey=True, squeeze=False)
    for row, (test, priors) in zip(axes, tests.items(), strict=True):
        for axis, (prior, found) in zip(row, priors.items(), strict=True):
            axis.plot(found.rotations, found.curves.T, color=PRIOR[prior], lw=0.7, alpha=0.55)
            axis.plot(found.rotations, found.curves.mean(0), color="black", lw=2.2)
            axis.axhline(0.25, color="0.5", lw=0.9, ls=":")
            axis.set_title(f"{prior.capitalize()}, {test}")
        row[0].set_ylabel("purity")
    axes[0, 0].set(xlim=(0, 90), ylim=(0.2, 1), xticks=(0, 15, 30, 45, 60, 75, 90))
    axes[0, 0].text(2, 0.262, "chance", color="0.4", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("rotation of the sectors, degrees")
    return fig


def best_rotations(tests: Mapping[str, Mapping[str, Measurement]], resultants: Sequence[Sequence[float]]) -> Figure:
    """Best rotation of each flow on a strip of 0..90 degrees, with the resultant length R of each test and prior."""
    fig = figure(7.2, 0.55 * 2 * len(tests) + 0.9)
    axis = fig.subplots()
    labels = []
    for row, (test, priors) in enumerate(tests.items()):
        for column, (prior, found) in enumerate(priors.items()):
            y = -(2.4 * row + column)
            marks = {"marker": "|", "ms": 17, "mew": 2.2, "color": PRIOR[prior], "alpha": 0.8}
            axis.plot(found.best, np.full(len(found.best), y), ls="", **marks)
            axis.text(92, y, f"R = {resultants[row][column]:.2f}", va="center", fontsize=9)
            labels.append((y, f"{prior.capitalize()}, {test}"))
    axis.set(xlim=(-1, 91), xticks=range(0, 91, 15))
    axis.set_xlabel("best rotation of the sectors, degrees (0 and 90 are the same)")
    axis.set_yticks([y for y, _ in labels], [label for _, label in labels])
    axis.set_ylim(labels[-1][0] - 0.8, 0.8)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return fig
