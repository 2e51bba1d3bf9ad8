"""The lattice to click is self-contained, and its tiles are the pictures it was given."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from rgflow.lattice_player import lattice_player

PICTURES = torch.randint(0, 256, (4, 2, 3, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NAMES = (["a", "b<", 'c"', "d"], ["red"] * 4, ["first", "second"], ["-1", "0", "1"])


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def test_it_is_self_contained_and_names_what_it_shows() -> None:
    page = lattice_player(PICTURES, *NAMES, columns=2, alt='what "it" shows', start=(1, 1, 2), edge=100).data
    assert not re.search(r"https?:|<script|\bid=", page)
    tags = Tags(page)
    buttons = tags.of("button")
    assert [b["aria-label"] for b in buttons] == ["a", "b<", 'c"', "d", "first", "second"]
    assert [b["aria-pressed"] for b in buttons] == ["false", "true", "false", "false", "false", "true"]
    player = tags.of("div")[0]
    assert json.loads(player["data-names"]) == [NAMES[0], NAMES[2], NAMES[3]]
    assert (player["data-site"], player["data-choice"]) == ("1", "1")
    view = next(div for div in tags.of("div") if div.get("class") == "view")
    assert view["aria-label"] == 'what "it" shows: b<, second, 1'
    assert "background-position:-500px -100px" in view["style"] and "background-size:600px 400px" in view["style"]
    (slider,) = tags.of("input")
    assert (slider["max"], slider["value"]) == ("2", "2") and "d.site=" not in slider["oninput"]
    assert "d.site=this.dataset.site;" in buttons[0]["onclick"] and "d.choice=this" in buttons[-1]["onclick"]


def test_tiles_are_the_pictures() -> None:
    page = lattice_player(PICTURES, *NAMES, columns=2, alt="tiles").data
    source = re.search(r"base64,([A-Za-z0-9+/=]+)\)", page)[1]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    assert sheet.shape == (4 * 5, 6 * 5, 3)
    for site, choice, value in ((0, 0, 0), (2, 1, 0), (3, 0, 2)):
        tile = sheet[5 * site : 5 * site + 5, 5 * (3 * choice + value) :][:, :5]
        assert np.array_equal(tile, PICTURES[site, choice, value].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("images", "names", "more", "text"),
    [
        (PICTURES.float(), NAMES, {}, "uint8"),
        (PICTURES[:3], NAMES, {}, "with names"),
        (PICTURES, (*NAMES[:1], ["red"], *NAMES[2:]), {}, "1 colours"),
        (PICTURES, NAMES, {"alt": " "}, "alt is empty"),
        (PICTURES, NAMES, {"start": (4, 0, 0)}, "start must be inside"),
    ],
)
def test_it_refuses(images: torch.Tensor, names: tuple, more: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        lattice_player(images, *names, columns=2, **{"alt": "tiles"} | more)
