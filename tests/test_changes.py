"""Changes of pictures described by numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from rgflow import changes


def test_a_change_that_is_the_same_everywhere() -> None:
    found = changes.describe(torch.full((4, 3, 6, 8), -2.0))
    assert (found.effect, found.constant, found.grey, found.flat, found.odd) == pytest.approx((2, 1, 1, 1, 0))
    assert found.radius == pytest.approx(((6**2 - 1) / 12 + (8**2 - 1) / 12) ** 0.5) and found.size == (6, 8)
    assert changes.words(found) == "the whole picture alike, brightness"


def test_shares_of_a_mixed_change() -> None:
    """Red only, 3 on the left half and -1 on the right one: flat part 1, odd part 2, so 1/5 and 4/5 of the squares."""
    d = torch.zeros(2, 3, 4, 8)
    d[:, 0, :, :4], d[:, 0, :, 4:] = 3, -1
    found = changes.describe(d)
    assert found.flat == pytest.approx(1 / 5) and found.odd == pytest.approx(4 / 5)
    assert found.grey == pytest.approx(1 / 3), "a third of the squares of one channel is in the mean of three"
    assert changes.words(found) == "left against right, colour"


def test_what_differs_from_picture_to_picture() -> None:
    """Pictures of opposite sign beside a common part: squares 1 + 4, of which the mean keeps 1."""
    d = torch.ones(2, 1, 4, 4)
    d[:, :, 0] = torch.tensor([3.0, -1.0])[:, None, None]
    q = 16 / (16 + 4 * 4)
    found = changes.describe(d)
    assert found.constant == pytest.approx(2 * q - 1) and "otherwise in each picture" in changes.words(found)
    noise = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert changes.describe(noise).constant < 0.01, "chance alone is taken off"


def test_a_place_and_its_names() -> None:
    for row, column, name in ((2, 2, "top left"), (15, 30, "middle right"), (31, 16, "bottom centre")):
        d = torch.zeros(2, 3, 32, 32)
        d[:, :, row, column] = 5
        found = changes.describe(d)
        assert found.centre == pytest.approx((row, column)) and found.radius == pytest.approx(0)
        assert changes.words(found) == f"{name}, brightness"
    across = torch.zeros(2, 1, 8, 8)
    across[..., [7, 0]] = 1
    assert changes.describe(across).centre[1] == pytest.approx(7.5), "the torus has no edge"


def test_what_surrounds_the_middle_is_no_corner() -> None:
    d = torch.ones(2, 1, 32, 32)
    d[:, :, 4:28, 4:28] = 0
    assert changes.words(changes.describe(d)) == "the rim of the picture, brightness"
    corner = torch.zeros(2, 1, 32, 32)
    corner[:, :, :3, :3] = 1
    assert changes.words(changes.describe(corner)) == "top left, brightness"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (torch.ones(3, 4, 4), "N at least 2"),
        (torch.ones(1, 3, 4, 4), "N at least 2"),
        (torch.full((2, 1, 4, 4), float("nan")), "finite"),
        (torch.zeros(2, 1, 4, 4), "nothing to describe"),
    ],
)
def test_what_cannot_be_described(given: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        changes.describe(given)
