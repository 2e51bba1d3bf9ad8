"""A drawing of one disentangler or decimator, figure 7 of the paper, made from the block of a flow as it is built."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import NDArray
from torch import nn

from rgflow.blocks import Blocks
from rgflow.couplings import AutoregressiveCoupling, Coupling, SplineCoupling
from rgflow.flow import Flow
from rgflow.linears import PatchLinear
from rgflow.nets import MaskedResidualNet, ResidualNet
from rgflow.plainnets import PlainNet
from rgflow.plot import COLOURS, figure

FIRST, SECOND = "#9ecbe8", "#f2c46d"  # the two halves of a patch
LAYER, NET, LINEAR = "#e9a58b", "#c9dcf2", "#d9d9d9"


@dataclass(frozen=True)
class Network:
    """The networks of one coupling: linear layers (inputs, outputs) of a residual block, or all of a plain network."""

    kind: str
    """"residual", "plain" or "masked"."""
    linears: tuple[tuple[int, int], ...]
    blocks: int
    places: int = 0


@dataclass(frozen=True)
class Layer:
    """One coupling layer."""

    kind: str
    """"affine", "spline" or "autoregressive"."""
    tied: bool
    """Whether both halves are steered by the same networks."""
    reverse: bool
    """Whether an autoregressive layer takes the sites from the last to the first."""
    network: Network


@dataclass(frozen=True)
class Plan:
    """What a block is made of, first to last in the direction x -> z."""

    channels: int
    sites: NDArray[np.int64]
    """(rows, columns): the half of each site, 0 or 1; of autoregressive layers its place in the order."""
    linear: bool
    """Whether a linear map comes before the couplings."""
    layers: tuple[Layer, ...]
    parameters: int
    """Numbers that are stored for it and trained."""


def read(flow: Flow, level: int = 0, decimator: bool = False) -> Plan:
    """Takes the disentangler or decimator of a level apart.

    ValueError: a flow without blocks, no such level, or a module that is not known here.
    """
    if not 0 <= level <= flow.geometry.depth:
        raise ValueError(f"level must be one of 0..{flow.geometry.depth}, not {level}")
    step = flow.bijector.step(level)
    block: Blocks = (step.decimators if decimator else step.disentanglers)[0]
    inner, linear = block.bijector, False
    if isinstance(inner.layers[0], PatchLinear):
        linear, inner = True, inner.layers[1]
    layers = tuple(_layer(module) for module in inner.layers)
    rows, columns = block.block
    site = block.order.numpy() % (rows * columns)  # of each feature of a patch
    channels, where = len(site) // (rows * columns), np.empty(rows * columns, dtype=np.int64)
    where[site] = np.arange(len(site)) // (channels if layers[0].kind == "autoregressive" else len(site) // 2)
    count = sum(p.numel() for p in block.parameters())
    return Plan(channels, where.reshape(rows, columns), linear, layers, count)


def _layer(module: nn.Module) -> Layer:
    if isinstance(module, AutoregressiveCoupling):
        return Layer("autoregressive", True, module.reverse, _network(module.net))
    if not isinstance(module, Coupling):
        raise ValueError(f"a block of {type(module).__name__} cannot be drawn")
    kind = "spline" if isinstance(module, SplineCoupling) else "affine"
    return Layer(kind, len(module.nets) == 1, False, _network(module.nets[0]))


def _network(net: nn.Module) -> Network:
    if isinstance(net, ResidualNet | MaskedResidualNet):
        linears = tuple((pair.v.shape[2], pair.v.shape[1]) for pair in net.blocks[0].linears)
        return Network("residual" if isinstance(net, ResidualNet) else "masked", linears, len(net.blocks))
    if isinstance(net, PlainNet):
        places = 0 if net.places is None else len(net.places)
        return Network("plain", tuple((w.shape[1], w.shape[0]) for w, _ in net.layers), 1, places)
    raise ValueError(f"a network of the kind {type(net).__name__} cannot be drawn")


def draw(plan: Plan) -> Figure:
    """The block (a), its last coupling layer (b), and the networks of that (c); x goes up, z comes down."""
    fig = figure(7.2, 5.4)
    axes = fig.subplots(1, 3, width_ratios=(1.0, 1.55, 1.45))
    _stack(axes[0], plan)
    (_autoregressive if plan.layers[-1].kind == "autoregressive" else _coupling)(axes[1], plan)
    _networks(axes[2], plan)
    titles = ("(a) the block", f"(b) {_name(plan.layers[-1])} layer", "(c) its networks")
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_axis_off()
    return fig


def _name(layer: Layer) -> str:
    return layer.kind if layer.kind == "autoregressive" else f"{layer.kind} coupling"


def _stack(axes: Axes, plan: Plan) -> None:
    """The patch below, the linear map and all layers above it."""
    rows, columns = plan.sites.shape
    size, order = 1.9 / max(rows, columns), plan.layers[-1].kind == "autoregressive"
    foot, left = 0.75, -size * columns / 2
    for (i, j), value in np.ndenumerate(plan.sites):
        colour = "white" if order else (FIRST, SECOND)[value]
        corner = (left + j * size, foot + (rows - 1 - i) * size)
        axes.add_patch(Rectangle(corner, size, size, facecolor=colour, edgecolor="black", lw=0.8))
        if order:
            centre = (corner[0] + size / 2, corner[1] + size / 2)
            axes.text(*centre, str(value + 1), ha="center", va="center", fontsize=8)
    below = "its order" if order else "its two halves"
    numbers = f"{columns} × {rows} × {plan.channels} = {plan.sites.size * plan.channels}"
    axes.text(0, 0.68, f"a patch $x$, {below}:\n{numbers}", ha="center", va="top", fontsize=8)
    names = [("linear map", LINEAR)] if plan.linear else []
    names += [(f"{_name(layer)}{', reversed' if layer.reverse else ''}", LAYER) for layer in plan.layers]
    y, high = foot + size * rows + 0.35, 9.1
    pitch = min(0.9, (high - y) / len(names))
    _arrow(axes, (0, foot + size * rows), (0, y))
    for name, colour in names:
        _box(axes, 0, y + 0.36 * pitch, 2.5, 0.72 * pitch, name, colour, min(8, 10.5 * pitch))
        _arrow(axes, (0, y + 0.72 * pitch), (0, y + pitch))
        y += pitch
    axes.text(0, y + 0.1, f"$x'$\n{plan.parameters:,} parameters", ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-1.4, 1.4), ylim=(0, 10))


def _coupling(axes: Axes, plan: Plan) -> None:
    """Two lanes, the halves; each steers the other in turn."""
    layer, half = plan.layers[-1], plan.sites.size * plan.channels // 2
    one, two, bottom, top = -1.45, 1.45, 1.35, 8.9
    names = ("s", "t") if layer.tied else ("s_1", "t_1", "s_2", "t_2")
    axes.text(0, 0.35, "$x$", ha="center", va="center", fontsize=11)
    for x, colour, name in ((one, FIRST, "x_1"), (two, SECOND, "x_2")):
        _arrow(axes, (0, 0.6), (x, bottom - 0.32))
        _box(axes, x, bottom, 1.25, 0.55, f"${name}$: {half}", colour, 9)
        axes.plot([x, x], [bottom + 0.28, top - 0.3], color="black", lw=1.1, zorder=1)
        _box(axes, x, top, 1.0, 0.55, f"${name}'$", colour, 9)
        _arrow(axes, (x, top + 0.28), (0, 9.65))
    axes.text(0, 9.8, "$x'$", ha="center", va="bottom", fontsize=11)
    nodes = [(r"$\odot e^{%s}$", 0), ("$+ %s$", 1)] + ([("spline", 2)] if layer.kind == "spline" else [])
    for source, target, y, pair in ((one, two, 2.6, names[:2]), (two, one, 5.9, names[-2:])):
        letters = ", ".join(f"${name}$" for name in pair) + (", shape" if len(nodes) > 2 else "")
        _arrow(axes, (source, y), (-0.7 * np.sign(target), y))
        _box(axes, 0, y, 1.35, 0.62, letters, NET, 9 if len(nodes) < 3 else 7)
        for text, k in nodes:
            height = y + 0.15 + 0.72 * k
            label = text % pair[min(k, 1)] if "%" in text else text
            _arrow(axes, (0.68 * np.sign(target), y), (target - 0.42 * np.sign(target), height))
            _box(axes, target, height, 0.82, 0.5, label, "white", 9)
    note = "the same networks\nfor both halves" if layer.tied else "networks of their own\nfor each half"
    axes.text(0, 4.75, note, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-2.15, 2.15), ylim=(0, 10.2))


def _autoregressive(axes: Axes, plan: Plan) -> None:
    """All sites at once going up; one after the other coming down."""
    axes.text(0, 1.0, "$x$", ha="center", va="center", fontsize=11)
    axes.plot([0.9, 0.9], [1.6, 8.4], color="black", lw=1.1, zorder=1)
    axes.plot([0, 0.9], [1.2, 1.6], color="black", lw=1.1, zorder=1)
    axes.plot([0, -0.9], [1.2, 1.6], color="black", lw=1.1, zorder=1)
    _arrow(axes, (-0.9, 1.6), (-0.9, 2.9))
    axes.text(-1.0, 2.2, "sites before $k$", ha="right", va="center", fontsize=8)
    _box(axes, -0.9, 3.3, 1.5, 0.7, "$s_k$, $t_k$", NET, 9)
    for k, label in enumerate((r"$\odot e^{s_k}$", "$+ t_k$")):
        height = 4.6 + 1.1 * k
        _arrow(axes, (-0.9, 3.68), (0.4, height))
        _box(axes, 0.9, height, 0.95, 0.55, label, "white", 9)
    _arrow(axes, (0.9, 8.2), (0.9, 8.7))
    axes.text(0.9, 8.8, "$x'$", ha="center", va="bottom", fontsize=11)
    text = "site $k$ is steered by\nthe sites before it;\nthe inverse finds one\nsite after the other"
    axes.text(-0.2, 7.2, text, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-2.6, 2.1), ylim=(0, 10.2))


def _networks(axes: Axes, plan: Plan) -> None:
    """The linear layers in their order, the way around them, and what becomes of the result."""
    layer, net = plan.layers[-1], plan.layers[-1].network
    steps = [f"linear {a} → {b}" for a, b in net.linears]
    plain = net.kind == "plain"
    parts = [steps[0], *(p for step in steps[1:] for p in ("swish", step))]
    around = [(2 * k, 2 * k + 2) for k in range(1, len(steps) - 1)] if plain else [(0, len(parts) + 1)]
    parts = parts if plain else ["swish", *parts]
    bottom, pitch = 1.35, min(0.85, 5.6 / len(parts))
    below = "the half that is kept" if net.kind != "masked" else "the sites, moved on by one"
    if not plain and net.kind != "masked" and net.linears[0][0] > plan.sites.size * plan.channels // 2:
        below += ",\nzeros in the place of the other"
    axes.text(0, 0.6, below, ha="center", va="top", fontsize=8)
    _arrow(axes, (0, 0.65), (0, bottom))
    y = [bottom + k * pitch for k in range(len(parts) + 1)]  # of the lower ends of the boxes, and of what follows
    for part, foot in zip(parts, y):
        _box(axes, 0, foot + 0.36 * pitch, 2.2, 0.72 * pitch, part, NET if "linear" in part else "white", 8)
        _arrow(axes, (0, foot + 0.72 * pitch), (0, foot + pitch))
    for ends in around:
        low, high = (y[k] - 0.14 * pitch - (0.15 if k == 0 else 0) for k in ends)
        axes.plot([0, 1.4, 1.4, 0.12], [low, low, high, high], color=COLOURS["red"], lw=1.4, zorder=1)
        axes.text(0, high, "+", ha="center", va="center", fontsize=9, color=COLOURS["red"], fontweight="bold", zorder=5,
                  bbox={"boxstyle": "circle,pad=0.08", "fc": "white", "ec": COLOURS["red"]})  # fmt: skip
    if not plain:
        axes.text(1.55, (low + high) / 2, f"× {net.blocks}", ha="left", va="center", fontsize=11)
        axes.text(0.25, high + 0.08, r"$/\sqrt{2}$", ha="left", va="bottom", fontsize=8, color=COLOURS["red"])
    if plain:
        result = r"$s = \gamma\,\tanh u$,  $t$" + (", shape" if layer.kind == "spline" else "")
        note = "one network for all of them"
    else:
        result, note = r"$s = \tanh(\gamma_s y_s)$,  $t = \gamma_t y_t$", "two such networks, for $s$ and $t$"
    note += "\nmasked: site $k$ sees none after it" if net.kind == "masked" else ""
    note += f"\na bias for each of {net.places} places" if net.places else ""
    foot = y[-1] + (0 if plain else 0.35)
    _arrow(axes, (0, y[-1] - 0.28 * pitch), (0, foot))
    _box(axes, 0, foot + 0.35, 2.9, 0.7, result, NET, 8)
    axes.text(0, foot + 0.85, note, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-1.6, 2.2), ylim=(0, 10.2))


def _box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, size: float) -> None:
    """A box around its centre, with text."""
    shape = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08")
    shape.set(facecolor=colour, edgecolor="black", linewidth=0.9, zorder=3)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=size, zorder=4)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=2)
