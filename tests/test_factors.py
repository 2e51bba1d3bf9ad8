"""Effects, walks, loops, correlations and swaps, on flows whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bijectors import wake_up
from scipy import stats
from torch.testing import assert_close

from rgflow import RGFlowConfig, build, factors, mixing, pixels
from rgflow.factors import Latent

CONFIG = {"channels": 3, "size": 8, "nlayers": 1, "nhidden": 4, "net": "plain"}
FLOW = build(RGFlowConfig(**CONFIG))  # a fresh flow is the identity: latents are the pixels
LEVELS = FLOW.levels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_latents_of_a_level_are_the_columns_of_their_table() -> None:
    z = torch.arange(2 * 3 * 64).view(2, 3, 8, 8)
    for level, count in ((0, 3 * 48), (1, 3 * 16)):
        table, names = factors.of_level(z, LEVELS, level), factors.latents_of(FLOW, level)
        assert table.shape == (2, count) and len(names) == count
        assert table.tolist() == [[image[name].item() for name in names] for image in z]
        assert all(LEVELS[name[1:]] == level for name in names)


def test_the_reach_of_a_walk_is_the_papers() -> None:
    assert [factors.walk_reach(level, 3) for level in range(4)] == [6, 6, 1.5, 1.5]
    with pytest.raises(ValueError, match=r"level must be one of 0..3, not 4"):
        factors.walk_reach(4, 3)


def test_a_walk_sets_one_latent_and_leaves_the_rest() -> None:
    z = torch.randn(2, 3, 8, 8, generator=seeded())
    before, values = z.clone(), [-1.0, 0.0, 2.0]
    images = factors.walk(FLOW, z, Latent(1, 4, 2), values)
    assert images.shape == (3, 2, 3, 8, 8) and torch.equal(z, before)
    assert_close(images[:, :, 1, 4, 2], pixels.from_logit(torch.tensor(values))[:, None].expand(3, 2))
    rest = torch.ones(3, 8, 8, dtype=torch.bool)
    rest[1, 4, 2] = False
    assert (images[:, :, rest] == pixels.from_logit(z)[:, rest]).all()


def test_the_effect_of_a_pixel_is_its_change_in_grey_levels() -> None:
    """For the identity the change is known, and the same for all latents and draws."""
    names = [Latent(0, 0, 0), Latent(2, 7, 3), Latent(1, 4, 4)]
    found = factors.effects(FLOW, names, reach=1.5, draws=3, generator=seeded(), batch_size=4)
    change = 256 * (1 / (1 + math.exp(-1.5)) - 0.5) / 0.9
    assert_close(found, torch.full((3,), change / math.sqrt(3 * 64), dtype=torch.float64), rtol=1e-5, atol=0)
    saturated = factors.effects(FLOW, names[:1], reach=40.0, draws=1, generator=seeded())
    assert saturated.item() == pytest.approx(128 / math.sqrt(192), rel=1e-4)  # from the middle to 256 and no further


def test_effects_are_means_over_the_same_draws_for_all_latents() -> None:
    flow = wake_up(build(RGFlowConfig(**CONFIG)))
    names = factors.latents_of(flow, 1)[:7]
    together = factors.effects(flow, names, 1.5, draws=4, generator=seeded(3))
    alone = torch.cat([factors.effects(flow, [name], 1.5, draws=4, generator=seeded(3)) for name in names])
    assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert together.std() > 0.01 * together.mean()
    z = flow.sample_latents(4, 0.6, seeded(3))
    ends = []
    for value in (0.0, 1.5):
        z[:, names[0].channel, names[0].row, names[0].column] = value
        with torch.no_grad():
            ends.append(((flow.decode(z)[0].sigmoid() - 0.05) / 0.9 * 256).clamp(0, 256))
    assert together[0].item() == pytest.approx((ends[1] - ends[0]).square().mean().sqrt().item(), rel=1e-4)


def test_effects_count_a_region_only() -> None:
    flow = wake_up(build(RGFlowConfig(**CONFIG)))
    names, region = factors.latents_of(flow, 1)[:3], torch.zeros(8, 8, dtype=torch.bool)
    region[2:5, 1:7] = True
    found = factors.effects(flow, names, 1.5, draws=4, generator=seeded(3), region=region)
    change = factors.response(flow, flow.sample_latents(4, 0.6, seeded(3)), names[1], 1.5)
    assert found[1].item() == pytest.approx(change[..., 2:5, 1:7].square().mean().sqrt().item(), rel=1e-4)
    for wrong in (region.float(), region[:4], torch.zeros_like(region)):
        with pytest.raises(ValueError, match="region must be bool"):
            factors.effects(flow, names, 1.5, region=wrong)


def test_a_response_is_what_effects_are_the_size_of() -> None:
    flow = wake_up(build(RGFlowConfig(**CONFIG)))
    name = factors.latents_of(flow, 1)[3]
    z = flow.sample_latents(4, 0.6, seeded(3))
    found = factors.response(flow, z, name, 1.5)
    assert found.shape == z.shape and found.dtype == torch.float64
    size = factors.effects(flow, [name], 1.5, draws=4, generator=seeded(3)).item()
    assert found.square().mean().sqrt().item() == pytest.approx(size, rel=1e-4)
    up = factors.response(FLOW, torch.zeros(1, 3, 8, 8), Latent(1, 4, 2), 1.5)
    assert up[0, 1, 4, 2] > 50 and up.count_nonzero() == 1, "from 0 up, at its own pixel"


def test_ranked_puts_the_strongest_first() -> None:
    names = [Latent(0, 0, k) for k in range(3)]
    found = factors.ranked(names, torch.tensor([1.0, 3.0, 2.0]))
    assert found == [(names[1], 3.0), (names[2], 2.0), (names[0], 1.0)]
    with pytest.raises(ValueError, match="3 latents need as many strengths, not 2"):
        factors.ranked(names, torch.ones(2))


@pytest.mark.parametrize(
    ("prior", "law"), [("laplace", stats.laplace(0, 0.5 * 0.5**0.5)), ("gaussian", stats.norm(0, 0.5**0.5))]
)
def test_every_frame_of_a_loop_is_a_draw_of_the_prior(prior: str, law) -> None:
    flow = build(RGFlowConfig(**{**CONFIG, "size": 64, "prior": prior}))
    z = torch.zeros(1, 3, 64, 64)
    frames = factors.random_loop(flow, z, 0, frames=5, temperature=0.5, generator=seeded(1))
    moving = flow.levels == 0
    assert frames.shape == (5, 3, 64, 64) and frames[:, :, ~moving].abs().max() == 0
    for frame in frames:
        assert stats.kstest(frame[:, moving].flatten().numpy(), law.cdf).pvalue > 1e-3
    steps = (
        (frames.roll(-1, 0) - frames).square().mean((1, 2, 3))
    )  # the step from the last frame to the first among them
    assert steps.max() < 1.2 * steps.min()


def test_a_loop_moves_only_what_it_is_told_to() -> None:
    z = torch.randn(1, 3, 8, 8, generator=seeded())
    some = factors.latents_of(FLOW, 1)[3:5]
    frames = factors.random_loop(FLOW, z, 1, frames=4, temperature=[0.2, 0.6], latents=some, generator=seeded(2))
    changed = (frames != z).any(0).nonzero().tolist()
    assert changed == [list(latent) for latent in some]


def test_correlations_by_hand() -> None:
    z = np.random.default_rng(0).normal(size=(5000, 3))
    z[:, 2] = 0.6 * z[:, 0] + 0.8 * z[:, 2]
    found = factors.correlation(z)
    assert found[0, 2] == pytest.approx(0.6, abs=0.03) and found[0, 1] == pytest.approx(0, abs=0.05)
    mean = factors.mean_square_correlation(z)
    assert mean.low < 0.36 * 2 / 6 < mean.high
    small = [factors.mean_square_correlation(np.random.default_rng(k).normal(size=(30, 8))).value for k in range(60)]
    assert abs(np.mean(small)) < 0.004 < 1 / 29  # without the correction it would be 1 / 29


def by_sites(images: torch.Tensor) -> dict[str, torch.Tensor]:
    values = images.double()
    return {"coarse": values[:, :, LEVELS == 1].mean(2), "fine": values[:, :, LEVELS == 0].mean(2)}


def test_swapped_levels_bring_what_lies_on_their_sites() -> None:
    images = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8, generator=seeded(5))
    top, bottom, both, none = factors.swap_weights(FLOW, images, by_sites, [[1], [0], [0, 1], []], batch_size=7)
    for found, coarse, fine in ((top, 1, 0), (bottom, 0, 1), (both, 1, 1), (none, 0, 0)):
        for name, donor in (("coarse", coarse), ("fine", fine)):
            weight = found[name]
            assert weight.pairs == 40
            assert weight.first.value == pytest.approx(donor, abs=1e-9)
            assert weight.second.value == pytest.approx(1 - donor, abs=1e-9)


Z = torch.zeros(1, 3, 8, 8)
BLACK = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: factors.latents_of(FLOW, 2), r"level must be one of 0..1, not 2"),
        (lambda: factors.of_level(Z, LEVELS, -1), r"level must be one of 0..1, not -1"),
        (lambda: factors.walk(FLOW, Z, Latent(0, 0, 0), []), "at least one value"),
        (lambda: factors.walk(FLOW, Z, Latent(3, 0, 0), [1.0]), r"inside \(3, 8, 8\), not at \(3, 0, 0\)"),
        (lambda: factors.effects(FLOW, [], 1.5), "needs latents, draws >= 1 and reach > 0, not 0, 8 and 1.5"),
        (lambda: factors.effects(FLOW, [Latent(0, 0, 0)], 0.0), "not 1, 8 and 0.0"),
        (lambda: factors.random_loop(FLOW, Z.repeat(2, 1, 1, 1), 1), r"not 24 and \(2, 3, 8, 8\)"),
        (lambda: factors.random_loop(FLOW, Z, 1, latents=[Latent(0, 0, 1)]), "is not of level 1"),
        (lambda: factors.correlation(np.ones((9, 2))), r"constant are columns \[0, 1\]"),
        (lambda: factors.correlation(np.ones((2, 2))), r"three images at least, not \(2, 2\)"),
        (lambda: factors.mean_square_correlation(np.arange(9.0)[:, None]), "at least two latents, not 1"),
        (lambda: factors.swap_weights(FLOW, BLACK[:3], by_sites, [[0]]), "must be even, not 3"),
        (lambda: factors.swap_weights(FLOW, BLACK, by_sites, [[7]]), r"0..1, not 7"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_decoding_in_batches_and_encoding_with_keyed_noise() -> None:
    flow = wake_up(build(RGFlowConfig(**CONFIG)), 0.05)
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8, generator=seeded(5))
    z = mixing.encoded(flow, images, seed=4, batch_size=4)
    assert_close(z, mixing.encoded(flow, images, seed=4), rtol=1e-4, atol=1e-5)
    assert (z - mixing.encoded(flow, images, seed=5)).abs().max() > 1e-4
    back = mixing.decoded(flow, z, batch_size=2)
    assert back.dtype == torch.uint8 and (back.int() - images.int()).abs().max() <= 1
