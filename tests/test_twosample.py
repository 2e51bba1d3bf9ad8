"""Two-sample scores on sets of which the answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rgflow import twosample

N = 200


def noise(seed: int, mean: float = 128, spread: float = 30, n: int = N) -> Tensor:
    grey = mean + spread * torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return grey.round().clamp(0, 255).to(torch.uint8)


def test_sets_of_one_source_are_not_told_apart() -> None:
    components = twosample.principal_components(noise(0), 8)
    found = [twosample.accuracy(noise(2 * k), noise(2 * k + 1), components, seed=k) for k in range(5)]
    assert sum(interval.low <= 0.5 <= interval.high for interval in found) >= 4
    assert abs(sum(interval.value for interval in found) / 5 - 0.5) < 0.04
    assert found[0].value * 2 * N == pytest.approx(round(found[0].value * 2 * N)), "a share of all 2 N images"


def test_a_shift_and_a_mere_change_of_spread_are_found() -> None:
    components = twosample.principal_components(noise(0), 8)
    assert twosample.accuracy(noise(0), noise(1, mean=178), components).low > 0.95
    assert twosample.accuracy(noise(0), noise(1, spread=8), components).low > 0.8  # no plane tells these apart


def test_judges_do_not_see_the_images_they_judge() -> None:
    """Random labels that could be learnt by heart: one set cut in two."""
    one = noise(0, n=60)
    components = twosample.principal_components(noise(1), 15)
    found = [twosample.accuracy(one[:30], one[30:], components, seed=k).value for k in range(10)]
    assert sum(found) / 10 < 0.65


def test_frechet_distance_by_hand() -> None:
    """In all directions it does not depend on the axes: grey levels apart by m and by a factor of the spread."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(64, 129, (4000, 1, 1, 2), generator=generator, dtype=torch.uint8)
    components = twosample.principal_components(base, 1 + 1)
    assert twosample.frechet_distance(base, base, components) == pytest.approx(0, abs=1e-9)
    shifted = base + 51  # a fifth of 255 in each of two pixels
    assert twosample.frechet_distance(base, shifted, components) == pytest.approx(2 * 0.2**2)
    wider = ((base.double() - 96) * 2 + 96).to(torch.uint8)  # covariance four times as large: tr(S + 4 S - 4 S) = tr S
    spread = (base.double() / 255).flatten(1).var(0).sum().item()
    moved = ((wider.double() - base.double()) / 255).flatten(1).mean(0).square().sum().item()
    assert twosample.frechet_distance(base, wider, components) == pytest.approx(spread + moved, rel=1e-6)


def test_precision_and_recall_see_different_faults() -> None:
    components = twosample.principal_components(noise(0), 8)
    real = noise(0)
    same = twosample.precision_recall(real, noise(1), components)
    narrow = twosample.precision_recall(real, noise(1, spread=8), components)  # all in the middle
    wide = twosample.precision_recall(real, noise(1, spread=60), components)
    assert narrow[0].value > same[0].value + 0.05 and narrow[1].value < 0.2
    assert wide[0].value < 0.5 and wide[1].value > wide[0].value + 0.3
    far = twosample.precision_recall(real, noise(1, mean=250, spread=1), components)
    assert far[0].value == 0 and far[1].value == 0
    assert twosample.precision_recall(real, real, components)[0].value == 1


def test_precision_by_hand() -> None:
    """On a line, k = 1: real images at 0, 10 and 40 reach 10, 10 and 30; of 5, 21 and 100 the first two are among them,
    the second thanks to 40 alone. The drawn ones reach 16, 16 and 79: 100 has 40 inside, 5 has 0 and 10."""

    def line(*grey: int) -> Tensor:
        return torch.tensor([[value, 0] for value in grey], dtype=torch.uint8).view(-1, 1, 1, 2)

    components = twosample.principal_components(line(0, 10, 40), 1)
    precision, recall = twosample.precision_recall(line(0, 10, 40), line(5, 21, 100), components, neighbours=1)
    assert precision.value == pytest.approx(2 / 3) and recall.value == 1
    precision, recall = twosample.precision_recall(line(0, 10, 40), line(5, 21, 81), components, neighbours=2)
    assert precision.value == pytest.approx(2 / 3) and recall.value == 1  # 81 is 41 from 40, which reaches 40


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="8 components need more images"):
        twosample.principal_components(noise(0, n=8), 8)
    components = twosample.principal_components(noise(0), 8)
    with pytest.raises(ValueError, match="both sets must have one shape and 5 images or more"):
        twosample.accuracy(noise(0), noise(1, n=N - 1), components)
    with pytest.raises(ValueError, match="more than 3 images, not 200 and 3"):
        twosample.precision_recall(noise(0), noise(1, n=3), components)
    with pytest.raises(ValueError, match="5 images or more"):
        twosample.accuracy(noise(0, n=4), noise(1, n=4), components)
