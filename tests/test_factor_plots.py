"""The figures of chapter 04 show what they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rgflow import factor_plots
from rgflow.factor_plots import Walk
from rgflow.statistics import Interval

CONE = np.zeros((4, 6), dtype=bool)
CONE[1:3, 2:4] = True
PICTURES = torch.zeros(3, 3, 4, 6, dtype=torch.uint8)
PICTURES[0, :, 1, 2], PICTURES[2, :, 2, 3] = 30, 15  # 30 darker there at the end, 15 brighter here


def test_ranks_are_sorted_shares() -> None:
    fig = factor_plots.ranks({1: [0.5, 4, 2, 1], 0: torch.tensor([3.0, 6.0])})
    first, second = fig.axes[0].lines
    assert first.get_ydata().tolist() == [4, 2, 1, 0.5] and first.get_xdata().tolist() == [12.5, 37.5, 62.5, 87.5]
    assert second.get_ydata().tolist() == [6, 3] and first.get_label() == "level 1"
    fig.canvas.draw()
    with pytest.raises(ValueError, match="each with latents"):
        factor_plots.ranks({0: []})


def test_walks_end_in_the_change() -> None:
    field = np.zeros((4, 6))
    field[2, 3] = -0.25
    fig = factor_plots.walks([Walk("a", field, CONE, PICTURES), Walk("b", field, CONE, PICTURES)], ["0", "1", "2"])
    assert len(fig.axes) == 10
    assert [axes.get_title() for axes in fig.axes[:5]] == ["receptive\nfield", "0", "1", "2", "change"]
    change = fig.axes[4].images[0].get_array()
    assert change[1, 2] / change[2, 3] == -2 and change[1, 2] == pytest.approx(-1, abs=0.03), "the last less the first"
    assert fig.axes[0].images[0].get_array()[2, 3] < -1 + 0.03 and fig.axes[5].get_ylabel() == "b"
    assert len(fig.axes[0].collections) == 2, "outline of the cone"
    fig.canvas.draw()
    with pytest.raises(ValueError, match="every row must have 2 pictures"):
        factor_plots.walks([Walk("a", field, CONE, PICTURES)], ["0", "1"])


def test_one_pixel_does_not_leave_the_rest_pale() -> None:
    field = np.where(np.arange(1024).reshape(32, 32) % 2, 1.0, -1.0)
    field[3, 4] = 50
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    fig = factor_plots.walks([Walk("a", field, np.ones((32, 32), dtype=bool), pictures)], ["0", "1"])
    drawn = fig.axes[0].images[0].get_array()
    assert drawn[3, 4] == 50 and drawn[0, 1] == 1 and fig.axes[0].images[0].get_clim() == (-1, 1)


def test_correlations_leave_out_the_diagonal() -> None:
    fig = factor_plots.correlations([[1, 0.1], [-0.2, 1]], 0.2)
    image = fig.axes[0].images[0]
    assert np.isnan(np.asarray(image.get_array().filled(np.nan)).diagonal()).all() and image.get_clim() == (-0.2, 0.2)
    fig.canvas.draw()
    with pytest.raises(ValueError, match="square"):
        factor_plots.correlations([[1, 0]], 0.2)


def test_weights_keep_their_swap_and_interval() -> None:
    found = {"colour": [Interval(0, -0.1, 0.1), Interval(0.9, 0.8, 1.1)], "places": [Interval(1, 1, 1)] * 2}
    fig = factor_plots.donor_weights(found, ["0", "3"])
    dots, bars = fig.axes[0].containers[0][0], fig.axes[0].containers[0][2][0].get_segments()
    assert dots.get_ydata().tolist() == [0, 0.9] and bars[1][:, 1] == pytest.approx([0.8, 1.1])
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["0", "3"]
    fig.canvas.draw()
    with pytest.raises(ValueError, match="1 weights"):
        factor_plots.donor_weights(found, ["0"])


def test_seeds_draws_the_runs_that_are_there() -> None:
    scores = {
        "laplace": {0: Interval(0.5, 0.4, 0.6), 2: Interval(0.7, 0.6, 0.8)},
        "gaussian": {2: Interval(0.2, 0.1, 0.3)},
    }
    fig = factor_plots.seeds({"MIG": scores, "DCI": {"laplace": {}, "gaussian": {}}})
    values = [tuple(box[0].get_ydata()) for box in fig.axes[0].containers]
    assert values == [(0.5,), (0.7, 0.2)] and not fig.axes[1].containers
    assert fig.axes[0].get_ylim() == pytest.approx((0, 0.92)), "from zero, with room above the highest interval"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["seed 0", "seed 2"]
    fig.canvas.draw()
    with pytest.raises(ValueError, match="no panels"):
        factor_plots.seeds({})
