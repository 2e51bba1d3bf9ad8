"""The figures of chapters 03 and 07 show what they are given, on a symmetric scale."""

from __future__ import annotations

import numpy as np
import pytest

from rgflow import receptive_plots


def test_gallery_scales_each_panel_symmetrically() -> None:
    maps = np.zeros((3, 4, 6))
    maps[0, 1, 2], maps[1, 0, 0] = -0.5, 8.0  # the third is zero everywhere
    cones = np.zeros(maps.shape, dtype=bool)
    cones[:, 1:3, 2:4] = True
    fig = receptive_plots.gallery(maps, cones, ["a", "", "c"], ncols=2)
    panels = [axes for axes in fig.axes if axes.images]
    shown = [axes.images[0].get_array() for axes in panels]
    assert shown[0][1, 2] == -1 and shown[1][0, 0] == 1 and not shown[2].any()
    assert all(axes.images[0].get_clim() == (-1, 1) for axes in panels)
    assert [axes.get_title() for axes in panels] == ["a", "", "c"] and len(panels[0].collections) == 2
    fig.canvas.draw()
    rgba = panels[0].images[0].cmap(0.5)
    assert min(rgba[:3]) > 0.95, "zero must be white"


def test_strengths_count_what_is_above_one() -> None:
    fig = receptive_plots.strengths([0, 0, 0, 1, 1], [0.0, 0.1, 2.0, 5.0, 3.0], bins=8)
    texts = [axes.texts[0].get_text() for axes in fig.axes]
    assert texts == ["level 1: 2 of 2 above 1", "level 0: 1 of 3 above 1"]
    assert [sum(bar.get_height() for bar in axes.patches) for axes in fig.axes] == [2, 3]
    fig.canvas.draw()


def test_strengths_of_zero_stand_apart() -> None:
    fig = receptive_plots.strengths([0, 0, 0, 0, 1, 1], [0.0, 0.0, 0.1, 2.0, 5.0, 3.0], bins=8)
    fig.canvas.draw()
    for axes, zeros in zip(fig.axes, (0, 2), strict=True):
        *others, apart = axes.patches
        assert apart.get_height() == zeros and apart.get_facecolor()[:3] == (1, 1, 1)
        assert apart.get_x() + apart.get_width() < min(bar.get_x() for bar in others) <= 0.1
        assert axes.get_xlim()[0] < apart.get_x(), "the bar is in the figure"
        assert all(tick == int(tick) for tick in axes.get_yticks())
    labels = [label.get_text() for label in fig.axes[-1].get_xticklabels()]
    assert labels[0] == "0" and labels.count("0") == 1 and "$10^{0}$" in labels
    middle = apart.get_x() + apart.get_width() / 2
    assert fig.axes[-1].get_xticks()[0] == pytest.approx(middle, rel=0.05)


def test_strengths_without_a_zero_have_no_place_for_it() -> None:
    fig = receptive_plots.strengths([0, 0, 1], [0.1, 2.0, 5.0], bins=8)
    fig.canvas.draw()
    assert "0" not in [label.get_text() for label in fig.axes[-1].get_xticklabels()]


def test_radii_name_both_medians() -> None:
    fig = receptive_plots.radii([0, 0, 0, 1], [1.0, 2.0, 9.0, 3.0], [3.2, 3.2, 3.2, 8.1])
    assert [text.get_text() for text in fig.axes[0].texts] == ["2.0", "3.2", "3.0", "8.1"]
    fig.canvas.draw()


def test_reaches_of_all_flows_have_one_scale() -> None:
    near, far = np.zeros((2, 4, 4)), np.full((2, 4, 4), 1 / 16)
    near[:, 2, 2] = 1
    fig = receptive_plots.reaches({"near": near, "far": far}, least=1e-3)
    panels = [axes for axes in fig.axes if axes.images]
    assert [axes.get_ylabel() for axes in panels] == ["near", "", "far", ""]
    assert [axes.get_title() for axes in panels] == ["level 0", "level 1", "", ""]
    assert {axes.images[0].get_clim() for axes in panels} == {(1e-3, 1)}
    fig.canvas.draw()
    rgba = panels[0].images[0].to_rgba(panels[0].images[0].get_array())
    assert rgba[0, 0, :3].max() == 0 and rgba[2, 2, :3].min() > 0.5, "nothing is black, all of it is bright"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: receptive_plots.gallery(np.zeros((0, 4, 4))), r"K at least 1, not \(0, 4, 4\)"),
        (lambda: receptive_plots.gallery(np.full((1, 4, 4), np.nan)), "finite"),
        (lambda: receptive_plots.gallery(np.ones((2, 4, 4)), np.ones((1, 4, 4))), r"not \(1, 4, 4\)"),
        (lambda: receptive_plots.gallery(np.ones((2, 4, 4)), titles=["a"]), "1 entries for 2 maps"),
        (lambda: receptive_plots.strengths([0, 1], [0.0, 0.0]), "some above 0"),
        (lambda: receptive_plots.reaches({"a": np.ones((2, 4, 4)), "b": np.ones((1, 4, 4))}), "as many levels"),
        (lambda: receptive_plots.reaches({"a": -np.ones((2, 4, 4))}), "must be shares"),
        (lambda: receptive_plots.reaches({}), "must be shares"),
        (lambda: receptive_plots.radii([0], [1.0, 2.0], [1.0]), r"not \(1,\), \(2,\), \(1,\)"),
    ],
)
def test_figures_refuse_what_they_cannot_show(call: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
