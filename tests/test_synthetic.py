"""MSDS1, MSDS2 and the pinwheel: against Pillow, against the ranges of their factors, and from fixed seeds."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from rgflow import synthetic

SETS = [synthetic.msds1, synthetic.msds2]


def by_pillow(position: Tensor, angle: Tensor, colour: Tensor) -> Tensor:
    """The same picture drawn the long way."""
    picture = Image.new("RGB", (32, 32))
    for column in range(4):
        for row in range(4):
            oval = Image.new("L", (8, 8))
            ImageDraw.Draw(oval).ellipse((1, 3, 7, 5), fill=255)
            oval = oval.rotate(angle[row, column].item(), Image.Resampling.BICUBIC)
            down, right = position[row, column].tolist()
            picture.paste(tuple(colour[row, column].tolist()), (8 * column + right, 8 * row + down), oval)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def difference(a: Tensor, b: Tensor) -> int:
    return (a.int() - b.int()).abs().max().item()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(-1000, 1000, width=32), min_size=16, max_size=16))
def test_picture_is_what_pillow_draws(seed: int, degrees: list[float]) -> None:
    generator = seeded(seed)
    position = torch.randint(-1, 2, (1, 4, 4, 2), generator=generator)
    colour = torch.randint(0, 256, (1, 4, 4, 3), generator=generator, dtype=torch.uint8)
    angle = torch.tensor(degrees, dtype=torch.float64).view(1, 4, 4)
    drawn = synthetic.render(position, angle, colour)
    assert difference(drawn[0], by_pillow(position[0], angle[0], colour[0])) <= 2


def test_every_half_degree_is_what_pillow_draws() -> None:
    angle = (
        torch.arange(-8, 728, dtype=torch.float64).view(-1, 4, 4) / 2
    )  # right angles, which Pillow copies, among them
    position = torch.zeros(len(angle), 4, 4, 2, dtype=torch.int8)
    colour = torch.full((len(angle), 4, 4, 3), 255, dtype=torch.uint8)
    drawn = synthetic.render(position, angle, colour)
    assert drawn.max() == 255
    for k in range(len(angle)):
        assert difference(drawn[k], by_pillow(position[k], angle[k], colour[k])) <= 2, angle[k]


@pytest.mark.parametrize("draw", SETS)
def test_drawn_set_is_what_pillow_draws_over_several_chunks(draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_CHUNK", 7)
    images, labels = draw(40, seeded())
    for image, position, angle, colour in zip(
        images, labels["position"], labels["angle"], labels["colour"], strict=True
    ):
        assert difference(image, by_pillow(position, angle, colour)) <= 2


@pytest.mark.parametrize("draw", SETS)
def test_labels_draw_the_images_again(draw) -> None:
    images, labels = draw(30, seeded(3))
    again = synthetic.render(labels["position"], labels["angle"], labels["colour"])
    assert torch.equal(images, again)
    assert images.dtype == torch.uint8 and images.shape == (30, 3, 32, 32) and images.is_contiguous()


def test_later_cells_cover_earlier_ones_column_by_column() -> None:
    position = torch.zeros(1, 4, 4, 2, dtype=torch.int8)
    position[0, 0, 0, 1] = 1  # the oval reaches columns 2..8, that of the next column reaches 8..14 after moving left
    position[0, 0, 1, 1] = -1
    colour = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    colour[0, 0, 0], colour[0, 0, 1] = torch.tensor([200, 0, 0]), torch.tensor([0, 100, 0])
    image = synthetic.render(position, torch.zeros(1, 4, 4), colour)[0]
    assert image[:, 4, 7].tolist() == [200, 0, 0]
    assert image[:, 4, 8].tolist() == [0, 100, 0]


def test_positive_angles_turn_counter_clockwise() -> None:
    position = torch.zeros(1, 4, 4, 2, dtype=torch.int8)
    colour = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    cell = synthetic.render(position, torch.full((1, 4, 4), 45.0), colour)[0, 0, :8, :8]
    assert cell[2, 6] > 200 and cell[2, 2] < 20  # rows count downwards: the right end has risen


def test_msds1_factors_have_their_ranges() -> None:
    _, labels = synthetic.msds1(3000, seeded(1))
    shared, colour = labels["global"].int(), labels["colour"].int()
    assert shared.shape == (3000, 3) and (shared.min(), shared.max()) == (32, 223)
    own = colour - shared[:, None, None]
    assert (own.min(), own.max()) == (-32, 32)
    assert (colour.min() >= 0) and (colour.max() <= 255)
    assert abs(own.float().mean()) < 0.3 and abs(own.float().std() - math.sqrt((65**2 - 1) / 12)) < 0.3
    assert_free_factors(labels)
    assert 0 <= labels["angle"].min() < 1 and 179 < labels["angle"].max() < 180


def test_msds2_factors_have_their_ranges() -> None:
    _, labels = synthetic.msds2(3000, seeded(1))
    assert labels["global"].shape == (3000,) and 0 <= labels["global"].min() < 1
    assert 179 < labels["global"].max() < 180
    own = labels["angle"] - labels["global"][:, None, None]
    assert -1e-4 < own.min() < 0.1 and 44.9 < own.max() < 45 + 1e-4 and abs(own.mean() - 22.5) < 0.3
    assert (labels["colour"].min(), labels["colour"].max()) == (0, 255)
    assert_free_factors(labels)


def assert_free_factors(labels: dict[str, Tensor]) -> None:
    assert labels["position"].shape == (3000, 4, 4, 2) and labels["position"].dtype == torch.int8
    shares = labels["position"].flatten().long().add(1).bincount() / labels["position"].numel()
    assert len(shares) == 3 and (shares - 1 / 3).abs().max() < 0.01
    assert labels["angle"].shape == (3000, 4, 4) and labels["angle"].dtype == torch.float32
    assert labels["colour"].shape == (3000, 4, 4, 3) and labels["colour"].dtype == torch.uint8


@pytest.mark.parametrize("draw", SETS)
def test_same_seed_same_set(draw) -> None:
    first, second, other = draw(5, seeded(8)), draw(5, seeded(8)), draw(5, seeded(9))
    assert torch.equal(first[0], second[0]) and not torch.equal(first[0], other[0])
    assert all(torch.equal(first[1][key], second[1][key]) for key in first[1])


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (synthetic.msds1, "42058ca58f0d09b5"),
        (synthetic.msds2, "585e46937e8a7963"),
    ],
)
def test_seeded_draw_has_its_hash(draw, expected: str) -> None:
    """The cached sets are named by a version number: who changes the drawing must raise it."""
    images, labels = draw(20, seeded(2020))
    digest = hashlib.sha256(images.numpy().tobytes())
    for key in ("global", "position", "angle", "colour"):
        digest.update(labels[key].numpy().tobytes())
    assert digest.hexdigest()[:16] == expected


def test_no_pictures_is_a_valid_number() -> None:
    assert synthetic.msds1(0)[0].shape == (0, 3, 32, 32)


GOOD = {
    "positions": torch.zeros(2, 4, 4, 2, dtype=torch.int8),
    "angles": torch.zeros(2, 4, 4),
    "colours": torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "positions",
            torch.zeros(2, 4, 4, dtype=torch.int8),
            r"positions must have shape \(2, 4, 4, 2\), got \(2, 4, 4\)",
        ),
        ("positions", torch.full((2, 4, 4, 2), -128, dtype=torch.int8), r"integers in \{-1, 0, 1\}"),
        ("positions", torch.zeros(2, 4, 4, 2), r"integers in \{-1, 0, 1\}"),
        ("angles", torch.zeros(1, 4, 4), r"angles must have shape \(2, 4, 4\)"),
        ("angles", torch.full((2, 4, 4), float("nan")), "angles must be finite"),
        ("angles", torch.zeros(2, 4, 4, dtype=torch.int64), "angles must be finite floating-point"),
        ("colours", torch.zeros(2, 4, 4, 3), "colours must be uint8, got torch.float32"),
    ],
)
def test_bad_factors_are_named(name: str, value: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic.render(**{**GOOD, name: value})


@pytest.mark.parametrize("draw", [*SETS, synthetic.pinwheel])
def test_negative_number_is_an_error(draw) -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        draw(-1)


@pytest.mark.parametrize("legs", [3, 4, 7])
def test_pinwheel_has_mean_zero_and_unit_variance(legs: int) -> None:
    points, leg = synthetic.pinwheel(40_000, seeded(), legs)
    assert points.shape == (40_000, 2) and leg.dtype == torch.int64
    assert points.mean(0).abs().max() < 0.02
    assert (torch.cov(points.T) - torch.eye(2)).abs().max() < 0.03
    assert (leg.bincount() / len(leg) - 1 / legs).abs().max() < 0.01


def test_pinwheel_legs_are_blobs_wound_by_the_radius() -> None:
    points, leg = synthetic.pinwheel(20_000, seeded(), 4, radial_std=0.3, tangential_std=0.1, rate=0.25)
    points = points.double() / math.sqrt(2 / 1.1)
    # wind back: turned by -phi a leg's blob lies at (r, t); |x| stands for r, which is near enough
    radius = points.norm(dim=1)
    phi = 2 * math.pi * leg / 4 + 0.25 * radius.exp()
    r = points[:, 0] * phi.cos() + points[:, 1] * phi.sin()
    t = -points[:, 0] * phi.sin() + points[:, 1] * phi.cos()
    assert abs(r.mean() - 1) < 0.02 and abs(r.std() - 0.3) < 0.02
    assert abs(t.mean()) < 0.01 and abs(t.std() - 0.1) < 0.01


def test_pinwheel_is_seeded_and_checks_its_arguments() -> None:
    first, second = synthetic.pinwheel(10, seeded(4)), synthetic.pinwheel(10, seeded(4))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    with pytest.raises(ValueError, match="legs must be at least 1, got 0"):
        synthetic.pinwheel(10, legs=0)
    with pytest.raises(ValueError, match="must not be negative, got -0.1"):
        synthetic.pinwheel(10, radial_std=-0.1)
