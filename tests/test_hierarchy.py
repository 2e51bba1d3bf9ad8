"""Levels, geometry and the RG hierarchy as a bijector."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rgflow import Geometry
from rgflow.hierarchy import Hierarchy, level_map


def test_levels_by_hand_for_an_edge_of_8() -> None:
    fine, coarse = [0] * 8, [1, 0, 1, 0, 1, 0, 1, 0]
    assert Geometry(8, 8, 4).levels.tolist() == [coarse, fine] * 4
    top = [2, 0, 1, 0, 2, 0, 1, 0]
    assert Geometry(8, 8, 2).levels.tolist() == [top, fine, coarse, fine, top, fine, coarse, fine]


def test_latents_per_level_of_the_paper() -> None:
    counts = 3 * torch.bincount(Geometry(32, 32, 4).levels.flatten())
    assert counts.tolist() == [2304, 576, 144, 48]


def _v2(k: int) -> float:
    return float("inf") if k == 0 else (k & -k).bit_length() - 1


@given(n=st.integers(0, 4), block=st.sampled_from([2, 4, 6]), wide=st.integers(1, 3), tall=st.booleans())
def test_level_formula(n: int, block: int, wide: int, tall: bool) -> None:
    small, large = block << n, (block << n) * wide
    geometry = Geometry(*((large, small) if tall else (small, large)), block)
    assert geometry.depth == n
    for i in range(geometry.height):
        for j in range(geometry.width):
            assert geometry.levels[i, j] == min(n, _v2(i), _v2(j))
    assert (geometry.levels == n).sum() == (geometry.height >> n) * (geometry.width >> n)


def test_level_map_of_another_rule() -> None:
    # Sites with index mod 3 = 1 are passed on: of 9 sites 1, 4, 7, and of those the one at 4.
    assert level_map((9,), 3, 3, 1).tolist() == [0, 1, 0, 0, 2, 0, 0, 1, 0]


class _Add(torch.nn.Module):
    """Adds a number to the whole lattice: shows which step touched a site how often."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x):
        return x + self.number, x.new_full((len(x),), self.number)

    def inverse(self, z):
        return z - self.number, z.new_full((len(z),), -self.number)


@pytest.mark.parametrize(("stride", "offset"), [(2, 0), (3, 1)])
def test_steps_act_on_the_sites_that_are_passed_on(stride: int, offset: int) -> None:
    size = (8, 4) if stride == 2 else (9, 18)
    flow = Hierarchy([_Add(1.0), _Add(10.0), _Add(100.0)], (1, *size), stride=stride, offset=offset)
    z, ladj = flow(torch.zeros(2, 1, *size))
    seen = torch.tensor([1.0, 11.0, 111.0])[flow.levels]
    assert torch.equal(z[0, 0], seen) and torch.equal(ladj, torch.tensor([111.0, 111.0]))
    x, ladj = flow.inverse(z)
    assert x.abs().max() == 0 and torch.equal(ladj, torch.tensor([-111.0, -111.0]))
    assert [tuple(lattice.shape[2:]) for lattice in flow.lattices(z)][-1] == size


def test_first_level_with_a_bad_number() -> None:
    flow = Hierarchy([_Add(1.0), _Add(float("inf")), _Add(1.0)], (1, 8, 8))
    assert flow.nonfinite_level(torch.zeros(1, 1, 8, 8)) == 1
    assert Hierarchy([_Add(1.0)], (1, 4, 4)).nonfinite_level(torch.zeros(1, 1, 4, 4)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((24, 24, 4), "24 x 24 does not fit blocks of 4: the smaller edge must be one of 4, 8, 16, 32, 64"),
        ((32, 48, 4), "32 x 48 does not fit"),
        ((2, 2, 4), "2 x 2 does not fit"),
        ((0, 0, 4), "0 x 0 does not fit"),
        ((9, 9, 3), "block must be an even number of at least 2, not 3"),
        ((8, 8, 0), "block must be an even number of at least 2, not 0"),
        ((8, 8, 4, "mine"), "order must be one of paper, authors, not 'mine'"),
        ((8, 8, 4, "paper", 0), "repeat must be at least 1, not 0"),
    ],
)
def test_bad_geometries_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(*arguments)


def test_a_hierarchy_needs_a_step_per_level() -> None:
    with pytest.raises(ValueError, match="3 levels needs 1 shared step or one per level, not 2"):
        Hierarchy([_Add(1.0), _Add(1.0)], (1, 8, 8), depth=2)
