"""Ovals read back from pictures, against the labels they were drawn from."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rgflow import ovals, synthetic
from rgflow.statistics import resultant_length


def drawn(name: str, count: int = 300) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return getattr(synthetic, name)(count, torch.Generator().manual_seed(3))


def turn(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Difference of angles modulo 180, in -90..90."""
    return (a - b + 90) % 180 - 90


def test_a_stamp_is_what_render_paints() -> None:
    shifts, angles = torch.tensor([[1, -1], [0, 1]]), torch.tensor([10.0, 120.0])
    alpha = synthetic.stamp(shifts, angles)
    for k in range(2):
        positions, ink = torch.zeros(1, 4, 4, 2, dtype=torch.int8), torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
        positions[0, 1, 2], ink[0, 1, 2] = shifts[k].to(torch.int8), 255
        turned = torch.zeros(1, 4, 4)
        turned[0, 1, 2] = angles[k]
        image = synthetic.render(positions, turned, ink)[0, 0]
        assert_close(image[8:16, 16:24].double() / 255, alpha[k, 1:9, 1:9])
    with pytest.raises(ValueError, match="positions must be integers"):
        synthetic.stamp(2 * shifts, angles)
    with pytest.raises(ValueError, match=r"positions must be \(N, 2\) and angles \(N,\)"):
        synthetic.stamp(shifts, angles[:1])


@pytest.mark.parametrize("name", ["msds1", "msds2"])
def test_ovals_are_read_back(name: str) -> None:
    images, labels = drawn(name)
    found, true = ovals.read(images, batch_size=77), ovals.labelled(labels)
    lit = labels["colour"].sum(-1) > 120  # nearly black ovals of msds2 leave little to read
    assert turn(found.angle, true.angle)[lit].abs().median() < 1
    assert (turn(found.angle, true.angle)[lit].abs() < 10).double().mean() > 0.995
    assert ((found.centre - true.centre)[lit].abs() < 0.5).double().mean() > 0.995
    assert (found.colour - true.colour)[lit].abs().median() < 6
    assert found.share[lit].median() > 0.99


@pytest.mark.parametrize("name", ["msds1", "msds2"])
def test_factors_of_pictures_are_those_of_the_labels(name: str) -> None:
    images, labels = drawn(name)
    found, known = ovals.factors(images), ovals.known_factors(labels)
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in known.items()}
    for key in (ovals.GLOBAL[name], "own colours", *ovals.LOCAL[name]):
        both = torch.stack([found[key], known[key]]) - torch.stack([found[key], known[key]]).mean(1, keepdim=True)
        share = (both[0] * both[1]).sum() / both.square().sum((1, 2)).prod().sqrt()
        assert share > 0.93, key


def test_positions_are_continuous_where_an_angle_jumps() -> None:
    """An oval of 179 degrees looks like one of 0 degrees moved by one pixel each way, and is read like that."""
    shifts, angles = torch.zeros(2, 4, 4, 2, dtype=torch.int8), torch.zeros(2, 4, 4)
    shifts[1], angles[1] = 1, 179.0
    images = synthetic.render(shifts, angles, torch.full((2, 4, 4, 3), 200, dtype=torch.uint8))
    found = ovals.read(images)
    assert (found.centre[0] - found.centre[1]).abs().max() < 0.2 and turn(*found.angle).abs().max() <= 2


def test_centres_count_down_then_right() -> None:
    shifts = torch.zeros(3, 4, 4, 2, dtype=torch.int8)
    shifts[1, ..., 0], shifts[2, ..., 1] = 1, -1  # one pixel down; one to the left
    images = synthetic.render(shifts, torch.full((3, 4, 4), 30.0), torch.full((3, 4, 4, 3), 200, dtype=torch.uint8))
    centre = ovals.read(images).centre[:, 1, 2]
    assert_close(centre[1:] - centre[0], torch.tensor([[1.0, 0.0], [0.0, -1.0]]), rtol=0, atol=0.05)


def test_the_global_angle_is_that_of_the_set() -> None:
    images, labels = drawn("msds2", 200)
    found = ovals.degrees(ovals.factors(images)["global angle"])[:, 0]
    difference = found.double() - labels["global"].double()
    assert resultant_length(difference, 180.0) > 0.97
    assert turn(difference, torch.tensor(22.5)).median().abs() < 1.5
    assert (
        ovals.degrees(ovals.known_factors(labels)["global angle"])[:, 0] - labels["global"] - 22.5
    ).abs().min() < 1e-3


def test_empty_and_black_pictures_and_bad_ones() -> None:
    assert ovals.factors(torch.zeros(0, 3, 32, 32, dtype=torch.uint8))["angles"].shape == (0, 32)
    black = ovals.read(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert black.share.max() == 0 and black.colour.max() == 0
    for wrong in (torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"images must be uint8 \(N, 3, 32, 32\), not"):
            ovals.read(wrong)
