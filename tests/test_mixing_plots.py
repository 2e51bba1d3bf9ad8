"""The figure of chapter 05 shows each weight at its cut, with its interval."""

from __future__ import annotations

import pytest

from rgflow import mixing_plots
from rgflow.shares import Weights
from rgflow.statistics import Interval

SHARE = Interval(0.5, 0.4, 0.6)
KINDS = {
    "cut 0": {"colour": Weights(Interval(1, 1, 1), Interval(0, 0, 0), SHARE, 9)},
    "cut 1": {"colour": Weights(Interval(0.7, 0.5, 0.8), Interval(0.2, 0.1, 0.4), SHARE, 9)},
    "pixels averaged": {"colour": Weights(Interval(0.5, 0.4, 0.6), Interval(0.45, 0.4, 0.5), SHARE, 9)},
}


def test_weights_of_each_source_stand_at_their_cut() -> None:
    fig = mixing_plots.by_cut(KINDS, ["colour"])
    fig.canvas.draw()
    a, b = fig.axes
    assert [axes.get_title() for axes in fig.axes] == ["from A", "from B"]
    assert [tick.get_text() for tick in a.get_xticklabels()] == ["0", "1", "pixels\naveraged"]
    for axes, values, ends in ((a, [1, 0.7, 0.5], (0.5, 0.8)), (b, [0, 0.2, 0.45], (0.1, 0.4))):
        (line,) = [line for line in axes.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [0, 1]
                   and line.get_alpha() == 0.5]  # fmt: skip
        assert list(line.get_ydata()) == values[:2], "only cuts are joined"
        container = axes.containers[0]
        assert container.lines[0].get_ydata().tolist() == values
        segment = container.lines[2][0].get_segments()[1]
        assert segment[:, 1].tolist() == pytest.approx(ends)


def test_by_cut_refuses_what_it_cannot_show() -> None:
    with pytest.raises(ValueError, match="no weight for 'angle' in 'cut 0'"):
        mixing_plots.by_cut(KINDS, ["angle"])
    with pytest.raises(ValueError, match="1 to 6 factors"):
        mixing_plots.by_cut(KINDS, [])
