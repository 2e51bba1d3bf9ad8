"""The nearest image of a set, on sets made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rgflow.nearest import nearest


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_it_is_the_least_of_all_distances_whatever_the_batches() -> None:
    images, among = noise(5), noise(23, 1)
    apart = (images[:, None].double() - among[None].double()).square().mean((2, 3, 4)).sqrt()
    for batch_size in (1, 7, 23, 100):
        found = nearest(images, among, batch_size=batch_size)
        torch.testing.assert_close(found.distance, apart.min(1).values, rtol=0, atol=1e-12)
        assert torch.equal(found.index, apart.argmin(1))


def test_a_copy_is_found_and_has_distance_0() -> None:
    among = noise(12)
    found = nearest(among[[7, 2]], among, batch_size=5)
    assert found.distance.tolist() == [0, 0] and found.index.tolist() == [7, 2]
    changed = among[[7]].clone()
    changed[0, 0, 0, 0] ^= 3  # one grey level of 192 by 1 to 3
    step = abs(int(changed[0, 0, 0, 0]) - int(among[7, 0, 0, 0]))
    assert nearest(changed, among).distance.item() == pytest.approx(step / 192**0.5, abs=1e-12)


def test_mirror_images_count_where_asked_for() -> None:
    among = noise(12)
    image = among[[4]].flip(3)
    assert nearest(image, among).distance > 50
    found = nearest(image, among, mirrored=True)
    assert found.distance == 0 and found.index == 4
    assert nearest(among[[4]], among, mirrored=True).distance == 0, "the image itself still counts"


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"not torch.uint8 \(2, 3, 8, 8\) and torch.float32"):
        nearest(noise(2), noise(2).float())
    with pytest.raises(ValueError, match=r"and torch.uint8 \(2, 3, 8, 4\)"):
        nearest(noise(2), noise(2)[..., :4])
    with pytest.raises(ValueError, match="images to compare with, not 0"):
        nearest(noise(2), noise(0))
    with pytest.raises(ValueError, match="in batches of 0"):
        nearest(noise(2), noise(2), batch_size=0)
