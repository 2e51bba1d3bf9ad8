"""Figures of chapter 05: what mixtures have of either source, cut by cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from rgflow.plot import COLOURS, figure
from rgflow.shares import Weights

COLOUR = [COLOURS[name] for name in ("blue", "red", "green", "orange", "pink", "black")]
MARKERS = "os^Dv*"  # shape repeats colour, for readers who cannot tell the colours apart
CUT = "cut "  # kinds of mixture so named stand side by side and are joined by lines


def by_cut(kinds: Mapping[str, Mapping[str, Weights]], factors: Sequence[str], height: float = 3.6) -> Figure:
    """The weights of A (left) and of B (right) in each factor, with intervals, for each kind of mixture.

    Arguments:
        kinds: weights by factor of "cut 0", "cut 1", ..., first, and of others, such as "pixels averaged", after them.
        factors: which to show, six at most.
        height: of the figure, inches.

    Raises:
        ValueError: no kinds, no factors or too many, or one that a kind does not have.
    """
    if not kinds or not 0 < len(factors) <= len(MARKERS):
        raise ValueError(f"there must be a kind and 1 to {len(MARKERS)} factors, not {list(kinds)} and {list(factors)}")
    lacking = [(kind, name) for kind, of in kinds.items() for name in factors if name not in of]
    if lacking:
        raise ValueError(f"there is no weight for {lacking[0][1]!r} in {lacking[0][0]!r}")
    cuts = [kind for kind in kinds if kind.startswith(CUT)]
    places = {kind: at if kind in cuts else len(cuts) + 1.8 * (at - len(cuts)) + 0.3 for at, kind in enumerate(kinds)}
    ticks = [kind[len(CUT) :] if kind in cuts else kind.replace(" ", "\n") for kind in kinds]
    fig = figure(7.0, height)
    panels = fig.subplots(1, 2, sharey=True)
    for panel, side, title in zip(panels, ("first", "second"), ("from A", "from B"), strict=True):
        panel.axhline(0, color="0.8", lw=0.8, zorder=0)
        panel.axhline(1, color="0.8", lw=0.8, zorder=0)
        for k, (name, colour, marker) in enumerate(zip(factors, COLOUR, MARKERS)):
            shift = 0.09 * (k - (len(factors) - 1) / 2)
            found = {kind: getattr(of[name], side) for kind, of in kinds.items()}
            panel.plot([places[c] + shift for c in cuts], [found[c].value for c in cuts], color=colour, lw=1, alpha=0.5)
            values = [f.value for f in found.values()]
            ends = [
                [max(0, f.value - f.low) for f in found.values()],
                [max(0, f.high - f.value) for f in found.values()],
            ]
            at = [place + shift for place in places.values()]
            panel.errorbar(at, values, ends, fmt=marker, color=colour, ms=4.5, lw=1.2, label=name)
        panel.set_title(title)
        panel.set_xticks(list(places.values()), ticks, fontsize=8)
        panel.set_xlabel("cut λ" if len(cuts) == len(kinds) else "cut λ, then averages", loc="left")
    panels[0].set_ylabel("regression weight")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(factors)))
    return fig
