"""Mixing and swapping latents by level, and the weight of the donor's colour."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rgflow import RGFlowConfig, build, mixing, pixels

FLOW = build(RGFlowConfig(channels=3, size=8, nlayers=1, nhidden=4, net="plain"))
LEVELS = FLOW.levels


def test_mixing_by_eq_9() -> None:
    a, b = torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    assert torch.equal(mixing.mix(LEVELS, a, b, 0), a)
    assert torch.equal(mixing.mix(LEVELS, a, b, 2), b)
    assert mixing.mix(LEVELS, a, b, 1).sum() == 2 * 16  # the top level of an 8 x 8 lattice holds 16 sites
    assert mixing.swap(LEVELS, b, a, 0).sum() == 2 * 48
    with pytest.raises(ValueError, match=r"level must be one of 0..1, not 2"):
        mixing.swap(LEVELS, a, b, 2)


def test_global_colour_by_hand() -> None:
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, :, 0, 0] = torch.tensor([100, 0, 0])  # brightness 100
    image[0, :, 1, 1] = torch.tensor([0, 200, 100])  # brightness 300
    assert_close(mixing.global_colour(image), torch.tensor([[25.0, 150.0, 75.0]]).double())
    assert mixing.global_colour(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).tolist() == [[0, 0, 0]]


def test_donor_weight_of_a_flow_that_changes_nothing() -> None:
    """A fresh flow leaves latents where the pixels are: a level brings the share of the pixels it holds."""
    colour = torch.randint(32, 224, (400, 3, 1, 1), generator=torch.Generator().manual_seed(1))
    images = colour.expand(-1, -1, 8, 8).to(torch.uint8).contiguous()
    found = {level: mixing.donor_weight(FLOW, images, level, seed=2) for level in (0, 1)}
    for level, share in {0: 0.75, 1: 0.25}.items():
        weight = found[level]
        assert weight.pairs == 200 and weight.level == level
        assert weight.donor == pytest.approx(share, abs=0.06) and weight.host == pytest.approx(1 - share, abs=0.06)
        assert weight.interval[0] < weight.donor < weight.interval[1]
    with pytest.raises(ValueError, match="must be even, not 3"):
        mixing.donor_weight(FLOW, images[:3], 0)


def test_interpolation_of_latents_and_of_pixels() -> None:
    a, b = torch.full((1, 3, 8, 8), 4.0), torch.zeros(1, 3, 8, 8)
    assert torch.equal(mixing.interpolate(a, b, 0.25), torch.ones(1, 3, 8, 8))
    grey = [torch.full((1, 3, 2, 2), v, dtype=torch.uint8) for v in (255, 200)]
    mixed = mixing.interpolate(*grey, 0.5)  # 227.5, which uint8 could not add up
    assert mixed.dtype == torch.uint8 and mixed.unique().tolist() == [228]
    with pytest.raises(ValueError, match="weight must be in 0..1, not 1.5"):
        mixing.interpolate(a, b, 1.5)
    with pytest.raises(ValueError, match="the same shape"):
        mixing.interpolate(a, b[:, :1], 0.5)


def test_a_gallery_goes_from_one_image_to_the_other_and_back() -> None:
    a, b = torch.full((1, 3, 8, 8), 2.0), torch.full((1, 3, 8, 8), -2.0)
    rows = mixing.gallery(FLOW, a, b)
    bright, dark = (int(pixels.from_logit(z)[0, 0, 0, 0]) for z in (a, b))
    assert rows.shape == (2, 3, 3, 8, 8)
    assert (rows[0, 0] == bright).all() and (rows[0, 2] == dark).all()
    assert (rows[1, 0] == dark).all() and (rows[1, 2] == bright).all()
    assert (rows[0, 1][:, LEVELS == 1] == bright).all() and (rows[0, 1][:, LEVELS == 0] == dark).all()
    with pytest.raises(ValueError, match="one image on each side, not of 2 and 1"):
        mixing.gallery(FLOW, a.repeat(2, 1, 1, 1), b)


def test_pairs_use_every_image_once() -> None:
    first, second = mixing.pairs_of(50, torch.Generator().manual_seed(0))
    assert sorted(first.tolist() + second.tolist()) == list(range(50)) and len(first) == 25


def test_bands_take_a_picture_apart_by_scale() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    found = mixing.bands(images, None)
    assert {name: band.shape[1] for name, band in found.items()} == {"1 px": 96, "2 px": 24, "4 px": 6}
    whole = torch.zeros(3, 8, 12, dtype=torch.float64)
    for name, band in found.items():
        width = int(name.split()[0])
        whole += band.view(3, 8 // width, 12 // width).repeat_interleave(width, 1).repeat_interleave(width, 2)
    assert_close(whole, images.double().mean(1))
    assert_close(
        mixing.bands(images[:, :, :4, :4], None)["4 px"], images[:, :, :4, :4].double().mean((1, 2, 3))[:, None]
    )
    few, others = mixing.bands(images, 10), mixing.bands(images[:1], 10)
    assert few["1 px"].shape == (3, 10) and few["4 px"].shape == (3, 6)
    assert torch.equal(few["1 px"][:1], others["1 px"]), "the same places for all pictures"


def test_stripes_are_in_the_band_of_their_width() -> None:
    for width in (1, 2, 4):
        stripes = ((torch.arange(8) // width) % 2 * 100).to(torch.uint8).expand(1, 3, 8, 8)
        power = {name: float(band.square().mean()) for name, band in mixing.bands(stripes, None).items()}
        assert power == pytest.approx({f"{k} px": (k == width or k == 8) * 2500 for k in (1, 2, 4, 8)})


def by_sites(images: torch.Tensor) -> dict[str, torch.Tensor]:
    values = images.double()
    return {"coarse": values[:, :, LEVELS == 1].mean(2), "fine": values[:, :, LEVELS == 0].mean(2)}


def test_scores_of_a_flow_whose_levels_are_its_pixels() -> None:
    images = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    found = {score.name: score for score in mixing.scores(FLOW, images, by_sites, "coarse", "fine", [0, 1, 2])}
    assert list(found) == ["cut 0", "cut 1", "cut 2", "latents averaged", "pixels averaged"]
    for name, coarse, fine in (("cut 0", 1, 1), ("cut 1", 1, 0), ("cut 2", 0, 0), ("pixels averaged", 0.5, 0.5)):
        weight = found[name].weights
        assert weight["coarse"].first.value == pytest.approx(coarse, abs=0.01)
        assert weight["coarse"].second.value == pytest.approx(1 - coarse, abs=0.01)
        assert weight["fine"].first.value == pytest.approx(fine, abs=0.01)
        assert found[name].separation.value == pytest.approx(coarse - fine, abs=0.01)
    averaged = found["latents averaged"]
    assert averaged.excess == (0, 0, 0) and abs(averaged.separation.value) < 0.1
    expected = found["cut 1"].separation.value - averaged.separation.value
    assert found["cut 1"].excess.value == pytest.approx(expected) and found["cut 1"].excess.low > 0.8
    single = mixing.scores(FLOW, images, by_sites, "coarse", "fine", [1], draws=1)[2]  # pixels averaged
    for value in (single.weights["fine"].second, single.separation, single.excess):
        assert value.low == value.high, "one draw has no width"
    with pytest.raises(ValueError, match="'angle' is not among the factors that are read: coarse, fine"):
        mixing.scores(FLOW, images, by_sites, "coarse", "angle", [1])
