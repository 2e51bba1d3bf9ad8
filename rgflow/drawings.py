"""Drawings of the hierarchy, figures 1 and 2 of the paper, made from the geometry; cones come from `cones`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor
from torch import bool as torch_bool
from torch import zeros as torch_zeros

from rgflow import cones
from rgflow.hierarchy import Geometry
from rgflow.plot import COLOURS, figure, level_colours

GREEN, YELLOW, RED, BLUE = COLOURS["green"], COLOURS["yellow"], COLOURS["red"], COLOURS["blue"]
GREY = "#c4c4c4"
_BOX, _GAP, _FOOT, _HEAD = 0.5, 0.75, 0.4, 0.55  # height of a block, block to block, room below and above the blocks

Lit = list[list[np.ndarray]]


def recursion(geometry: Geometry) -> Figure:
    """The renormalization group as a recursion: each step hands on a smaller image (figure 1 of the paper).

    Above, x -> z by :math:`R_h`; below, z -> x by :math:`G_h`. Squares have the proportions of the lattices.
    """
    levels = geometry.depth + 1
    fig = figure(7.0, 4.3)
    for axes, forward in zip(fig.subplots(2, 1), (True, False), strict=True):
        axes.set_axis_off()
        axes.set_aspect("equal")
        x, names = 0.0, ("R", 1) if forward else ("G", -1)
        for level in range(levels):
            edge = 2.0 * 0.62**level
            axes.add_patch(Rectangle((x, -edge / 2), edge, edge, facecolor=BLUE, alpha=0.75))
            label = f"$x^{{({level})}}$\n{geometry.height >> level} × {geometry.width >> level}"
            axes.text(x + edge / 2, -edge / 2 - 0.1, label, ha="center", va="top", fontsize=9)
            start = x + edge + 0.1
            last = level == levels - 1
            sites = (geometry.height * geometry.width >> 2 * level) * (1 if last else 3) // (1 if last else 4)
            middle = start + 0.75
            ends = ((start, 0.0), (middle + 0.75, 0.0))
            if not last:
                _arrow(axes, *(ends if forward else ends[::-1]))
            elif forward:
                axes.plot([start, middle], [0, 0], color=RED, lw=1.5)
            else:
                _arrow(axes, (middle, 0.0), (start, 0.0), RED)
            axes.text(middle, -0.12, f"${names[0]}_{level}$", ha="center", va="top", fontsize=11)
            if last and not forward:
                axes.plot([middle, middle], [0, 1], color=RED, lw=1.5)
            else:
                ends = ((middle, 0.0), (middle, 1.0))
                _arrow(axes, *(ends if forward else ends[::-1]), RED)
            label = f"$z^{{({level})}}$\n{sites} sites"
            axes.text(middle, 1.08, label, ha="center", va="bottom", fontsize=9, color=RED)
            x = middle + 0.85
        axes.set(xlim=(-0.1, x), ylim=(-1.75, 1.85))
        title = "(a) forward: image to latents" if forward else "(b) inverse: latents to image"
        axes.set_title(title, loc="left")
    return fig


def side_view(geometry: Geometry) -> Figure:
    """The levels seen from the side: a cut along row 0, on which column j has the level min(n, v2(j)) (figure 2a)."""
    fig = figure(7.0, 0.7 + 0.45 * _height(geometry))
    axes = fig.subplots()
    _draw_levels(axes, geometry, None, RED)
    handles = [
        Patch(facecolor=GREEN, edgecolor="black", label="disentangler"),
        Patch(facecolor=YELLOW, edgecolor="black", label="decimator"),
        Line2D([], [], marker="x", color=RED, ls="", mew=2.2, label="latent z"),
        Line2D([], [], marker="o", color=BLUE, ls="", label="visible x"),
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=4)
    return fig


def cone_views(geometry: Geometry, column: int, columns: Sequence[int]) -> Figure:
    """Both causal cones in the side view, a cut along row 0 (figure 2c, d).

    Arguments:
        column: of the latent whose generation cone is drawn, in red.
        columns: of the pixels whose inference cone is drawn, in blue.
    """
    fig = figure(7.0, 2 * (0.4 + 0.38 * _height(geometry)))
    upper, lower = fig.subplots(2, 1)
    _draw_levels(upper, geometry, _generation_cut(geometry, column), RED)
    upper.set_title("(c) generation cone: the pixels that a latent can change, top down", loc="left")
    region = torch_zeros(geometry.height, geometry.width, dtype=torch_bool)
    region[0, list(columns)] = True
    _draw_levels(lower, geometry, _inference_cut(geometry, region), BLUE)
    lower.set_title("(d) inference cone: the latents that these pixels can change, bottom up", loc="left")
    return fig


def top_view(geometry: Geometry) -> Figure:
    """The blocks of the finest step seen from above: outlined disentanglers over yellow decimators (figure 2b)."""
    m, height, width = geometry.block, geometry.height, geometry.width
    fig = figure(5.6, 5.6 * height / width * 0.8 + 0.2)
    axes = fig.subplots()
    green = {"fill": False, "edgecolor": GREEN, "lw": 2.6, "zorder": 3}
    yellow = {"facecolor": "#f8f2a0", "edgecolor": "#b3a600", "lw": 1.0}
    for half, shift in enumerate(geometry.shifts[:2]):
        inset, look = ((0.16, green), (0.05, yellow))[half]
        for top in range(shift - m if shift else 0, height, m):
            for left in range(shift - m if shift else 0, width, m):
                span = m - 2 * inset
                axes.add_patch(Rectangle((left - 0.5 + inset, top - 0.5 + inset), span, span, **look))
    latents = (geometry.levels == 0).numpy()
    rows, columns = np.nonzero(latents)
    axes.plot(columns, rows, "x", color=RED, ms=5, mew=1.5, zorder=4, label="left behind: latents")
    rows, columns = np.nonzero(~latents)
    axes.plot(columns, rows, "o", color=BLUE, ms=5.5, zorder=4, label="passed on to level 1")
    handles = [
        Patch(**green, label="disentangler"),
        Patch(**yellow, label="decimator"),
        *axes.get_legend_handles_labels()[0],
    ]
    fig.legend(handles=handles, loc="outside right center")
    _lattice_axes(axes, geometry)
    return fig


def cone_maps(geometry: Geometry, site: Sequence[int], region: Tensor) -> Figure:
    """Both cones seen from above: the pixels that a latent can change, and the latents that a region can change."""
    fig = figure(7.0, 3.9)
    left, right = fig.subplots(1, 2)
    generation_map(geometry, site, left)
    inference_map(geometry, region, right)
    return fig


def generation_map(geometry: Geometry, site: Sequence[int], axes: Axes | None = None) -> Figure:
    """The pixels (H, W) that the latent at a site can change, with the site marked; drawn into `axes` if given."""
    cone = cones.generation_cone(geometry, site)
    axes = figure(4.2, 4.5).subplots() if axes is None else axes
    picture = np.ones((*cone.shape, 3))
    picture[cone.numpy()] = _rgb(COLOURS["orange"])
    axes.imshow(picture)
    axes.plot(site[1], site[0], "x", color="black", ms=9, mew=2.5)
    level, count = int(geometry.levels[tuple(site)]), int(cone.sum())
    axes.set_title(f"latent at ({site[0]}, {site[1]}), level {level}:\nchanges {count} of {cone.numel()} pixels")
    _lattice_axes(axes, geometry)
    return axes.figure


def inference_map(geometry: Geometry, region: Tensor, axes: Axes | None = None) -> Figure:
    """The latents (H, W) that the pixels of a region can change, coloured by level; drawn into `axes` if given."""
    cone = cones.inference_cone(geometry, region).numpy()
    axes = figure(4.2, 4.9).subplots() if axes is None else axes
    levels = geometry.levels.numpy()
    colours, norm = level_colours(geometry.depth + 1)
    axes.imshow(np.ones((*cone.shape, 3)))
    axes.imshow(np.ma.masked_array(levels, ~cone), cmap=colours, norm=norm)
    outline(axes, region.numpy())
    axes.set_title(f"{int(region.sum())} pixels (outlined):\nchange {int(cone.sum())} of {cone.size} latent sites")
    _lattice_axes(axes, geometry)
    handles = [Patch(facecolor=colours(level), label=str(level)) for level in range(geometry.depth + 1)]
    columns = min(6, len(handles))
    axes.legend(handles=handles, title="level", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns)
    return axes.figure


def _generation_cut(geometry: Geometry, column: int) -> tuple[Lit, Lit]:
    """What is lit in the cut along row 0: blocks [level][half-step]; wires below each half-step and above the last."""
    maps = cones.generation_blocks(geometry, (0, column))
    blocks = [[half.any(0).numpy() for half in halves] for halves in maps]
    wires: Lit = []
    for level in range(geometry.depth, -1, -1):
        top = np.zeros(geometry.width >> level, dtype=bool)
        if column % (1 << level) == 0 and level <= int(geometry.levels[0, column]):
            top[column >> level] = level == int(geometry.levels[0, column])
        if wires:
            top[::2] |= wires[0][0]
        below = [_wires(b, s, geometry.block) for b, s in zip(blocks[level], geometry.shifts, strict=True)]
        wires.insert(0, [*below, top])
    return blocks, wires


def _inference_cut(geometry: Geometry, region: Tensor) -> tuple[Lit, Lit]:
    """As `_generation_cut`, for pixels of row 0."""
    blocks = [[half.any(0).numpy() for half in halves] for halves in cones.inference_blocks(geometry, region)]
    wires, foot = [], region.any(0).numpy()
    for halves in blocks:
        wires.append([foot, *(_wires(b, s, geometry.block) for b, s in zip(halves, geometry.shifts, strict=True))])
        foot = wires[-1][-1][::2]
    return blocks, wires


def _wires(blocks: np.ndarray, shift: int, block: int) -> np.ndarray:
    return np.roll(np.repeat(blocks, block), shift)


def _draw_levels(axes: Axes, geometry: Geometry, lit: tuple[Lit, Lit] | None, colour: str) -> None:
    """The side view; with `lit`, only the blocks and wires of a cone have their colours."""
    m, width, halves = geometry.block, geometry.width, len(geometry.shifts)
    tall = _FOOT + (halves - 1) * _GAP + _BOX + _HEAD
    levels = geometry.levels[0].numpy()
    for level in range(geometry.depth + 1):
        unit, foot, last = 1 << level, level * tall, level == geometry.depth
        heights = [foot + _FOOT + k * _GAP for k in range(halves)]
        bounds = [foot, *(y + _BOX / 2 for y in heights), foot + tall]
        for k in range(width // unit):
            for part in range(halves + 1):
                on = lit is None or lit[1][level][part][k]
                high = bounds[part + 1] if part < halves or not (last or k % 2) else heights[-1] + _BOX + 0.25
                style = {"color": "black" if lit is None else colour, "lw": 1.1 if lit is None else 1.8} if on else {}
                axes.plot([k * unit] * 2, [bounds[part], high], **({"color": GREY, "lw": 0.8} | style), zorder=1 + on)
            if last or k % 2:
                on = lit is None or lit[1][level][halves][k]
                axes.plot(k * unit, heights[-1] + _BOX + 0.25, "x", color=RED if on else GREY, ms=6, mew=2, zorder=5)
        for half, (shift, y) in enumerate(zip(geometry.shifts, heights, strict=True)):
            count = width // (m * unit)
            for p in range(-1 if shift else 0, count):
                left = (m * p + shift) * unit - 0.38
                on = lit is None or lit[0][level][half][p % count]
                face = ((GREEN, YELLOW)[half % 2]) if on else "#f1f1f1"
                box = Rectangle((left, y), (m - 1) * unit + 0.76, _BOX, facecolor=face)
                box.set(edgecolor="black" if on else GREY, linewidth=1.0, zorder=4 if on else 3)
                axes.add_patch(box)
        axes.text(width - 0.1, heights[0] + 0.5 * (heights[-1] + _BOX - heights[0]), f"level {level}", va="center")
    on = levels >= 0 if lit is None else lit[1][0][0]
    axes.scatter(np.arange(width), np.zeros(width), s=26, c=np.where(on, BLUE, GREY), zorder=5)
    axes.set(xlim=(-1.2, width + 0.12 * width), ylim=(-0.4, (geometry.depth + 1) * tall + 0.05))
    axes.set_axis_off()
    for patch in axes.patches:  # blocks that wrap around are cut off at the border of the lattice
        patch.set_clip_path(Rectangle((-0.75, -1), width + 0.5, 1e3, transform=axes.transData))


def _height(geometry: Geometry) -> float:
    """Of the side view, in its own units."""
    return (geometry.depth + 1) * (_FOOT + (len(geometry.shifts) - 1) * _GAP + _BOX + _HEAD)


def _lattice_axes(axes: Axes, geometry: Geometry) -> None:
    axes.set(xlim=(-0.5, geometry.width - 0.5), ylim=(geometry.height - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="column j", ylabel="row i")
    axes.set_xticks(range(0, geometry.width, max(1, geometry.width // 4)))
    axes.set_yticks(range(0, geometry.height, max(1, geometry.height // 4)))
    axes.spines[["top", "right"]].set_visible(True)


def outline(axes: Axes, mask: np.ndarray, colour: str = RED, width: float = 2.4) -> None:
    """Draws the border of the marked sites (H, W); width in points."""
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    axes.hlines(rows - 0.5, columns - 1.5, columns - 0.5, color=colour, lw=width)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    axes.vlines(columns - 0.5, rows - 1.5, rows - 0.5, color=colour, lw=width)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = "black") -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.5, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
