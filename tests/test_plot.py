"""Figures are drawn for every kind of geometry and image, and the player is self-contained."""

from __future__ import annotations

import io
import re

import ipywidgets
import numpy as np
import pytest
import torch

from rgflow import cones, drawings, plot, widgets
from rgflow.hierarchy import Geometry

GEOMETRIES = [Geometry(16, 16, 4), Geometry(8, 16, 4, "authors"), Geometry(8, 8, 2, "authors", 2), Geometry(4, 4, 4)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_drawings_draw(geometry: Geometry) -> None:
    region = torch.zeros(geometry.height, geometry.width, dtype=torch.bool)
    region[1:3, 2:4] = True
    figures = [
        drawings.recursion(geometry),
        drawings.side_view(geometry),
        drawings.top_view(geometry),
        drawings.cone_views(geometry, 2, [0, 3]),
        drawings.cone_maps(geometry, (1, 2), region),
        plot.levels_map(geometry.levels),
    ]
    for figure in figures:
        figure.canvas.draw()


def test_generation_map_shows_the_cone() -> None:
    geometry = Geometry(16, 16, 4)
    figure = drawings.generation_map(geometry, (1, 7))
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert np.array_equal((picture < 1).any(-1), cones.generation_cone(geometry, (1, 7)).numpy())
    assert "level 0" in figure.axes[0].get_title() and "64 of 256 pixels" in figure.axes[0].get_title()


def test_image_grid_shows_what_it_is_given() -> None:
    images = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).view(5, 3, 4, 4)
    shown = [axes.images[0].get_array() for axes in plot.image_grid(images, 2).axes if axes.images]
    assert all(np.array_equal(a, b.permute(1, 2, 0)) for a, b in zip(shown, images, strict=True))
    mixed = plot.image_grid([torch.rand(1, 4, 4), torch.rand(1, 8, 8)], titles=["x(1)", "x(0)"])
    assert [axes.get_title() for axes in mixed.axes] == ["x(1)", "x(0)"]


def test_names_of_image_rows_are_not_cut_off_at_the_left() -> None:
    plot.style()
    images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    figure = plot.image_rows({"A": images, "A above\nλ = 1": images, "latents\naveraged": images, "B": images})
    figure.savefig(io.BytesIO(), dpi="figure")
    assert all(axes.yaxis.label.get_window_extent().x0 >= 0 for axes in figure.axes)


def test_rows_of_images_have_their_names() -> None:
    images = torch.arange(6 * 3 * 4 * 4, dtype=torch.uint8).view(6, 3, 4, 4)
    figure = plot.image_rows({"first": images[:3], "second,\nlonger": images[3:]})
    assert [axes.get_ylabel() for axes in figure.axes] == ["first", "second,\nlonger"]
    strips = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    for strip, row in zip(strips, images.split(3), strict=True):
        assert strip.shape == (6, 18, 3) and (strip[0] == 255).all()
        assert np.array_equal(strip[1:5, 7:11], row[1].permute(1, 2, 0))
    grey = plot.image_rows({"one": torch.rand(2, 1, 4, 4)})
    assert grey.axes[0].images[0].get_array().shape == (6, 12)
    with pytest.raises(ValueError, match=r"as many images each, .* not \[2, 3\]"):
        plot.image_rows({"a": images[:3], "b": images[3:5]})
    with pytest.raises(ValueError, match="all of one size"):
        plot.image_rows({"a": images, "b": images[:, :, :2]})
    with pytest.raises(ValueError, match="as many images"):
        plot.image_rows({})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([],), "no images"),
        ((torch.zeros(2, 2, 4, 4, dtype=torch.uint8),), r"\(1, H, W\) or \(3, H, W\)"),
        ((torch.full((1, 3, 4, 4), 1.5),), "floats in 0..1"),
        ((torch.full((1, 3, 4, 4), torch.nan),), "floats in 0..1"),
        ((torch.rand(2, 3, 4, 4), None, ["one"]), "1 entries for 2 images"),
        ((torch.rand(2, 3, 4, 4), 0), "at least 1"),
    ],
)
def test_image_grid_refuses(arguments: tuple, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plot.image_grid(*arguments)


def test_player_is_self_contained() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    frames = [image, torch.from_numpy(image).permute(2, 0, 1), drawings.recursion(Geometry(4, 4, 4))]
    page = widgets.frames_player(frames, ["<a>", "b", "c"], 'what "it" shows', start=1).data
    assert page == widgets.frames_player(frames, ["<a>", "b", "c"], 'what "it" shows', start=1).data
    assert not re.search(r"https?:|<script|\bid=", page)
    assert page.count("data:image/png;base64,") == 3 and page.count("display:block") == 1
    assert "&lt;a&gt;" in page and "what &quot;it&quot; shows: b" in page


def test_player_plays_when_it_is_told_to() -> None:
    frames = [np.zeros((4, 4), np.uint8)] * 2
    still = widgets.frames_player(frames, ["a", "b"], "alt").data
    moving = widgets.frames_player(frames, ["a", "b"], "alt", every=120).data
    assert "setInterval" not in still and moving.count(">play</button>") == 1
    assert re.search(r"setInterval\(.*,120\)", moving) and "clearInterval" in moving and "https" not in moving
    with pytest.raises(ValueError, match="milliseconds"):
        widgets.frames_player(frames, ["a", "b"], "alt", every=-1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([], [], "alt"), "not 0 for 0"),
        (([np.zeros((4, 4), np.uint8)], [], "alt"), "not 0 for 1"),
        (([np.zeros((4, 4), np.uint8)], ["a"], " "), "alt is empty"),
        (([np.zeros((4, 4), np.uint8)], ["a"], "alt", 1), "start must be in 0..0"),
        (([np.zeros((4, 4))], ["a"], "alt"), "uint8 image"),
        (([np.zeros((4, 4, 4), np.uint8)], ["a"], "alt"), "uint8 image"),
    ],
)
def test_player_refuses(arguments: tuple, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        widgets.frames_player(*arguments)


def test_live_controls_redraw_the_picture() -> None:
    seen = []

    def draw(level: int) -> np.ndarray:
        seen.append(level)
        return np.full((4, 4, 3), 10 * level, dtype=np.uint8)

    slider = ipywidgets.IntSlider(1, 0, 5)
    box = widgets.live(draw, {"level": slider})
    picture = next(child for child in box.children if isinstance(child, ipywidgets.Image))
    before = bytes(picture.value)
    slider.value = 4
    assert seen == [1, 4] and bytes(picture.value) != before and bytes(picture.value).startswith(b"\x89PNG")
    assert not any(isinstance(child, ipywidgets.Output) for child in box.children)
