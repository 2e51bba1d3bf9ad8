"""The Real NVP baseline: a bijector on the image lattice, with the masks, scales and widths of the paper."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from bijectors import assert_bijector, wake_up
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from rgflow.convnets import ScaleShiftNet
from rgflow.realnvp import (
    ChannelCoupling,
    CheckerboardCoupling,
    RealNVP,
    RealNVPConfig,
    join,
    split,
    squeeze,
    unsqueeze,
)
from rgflow.widths import matched_width, parameter_count


def small(**kwargs) -> RealNVPConfig:
    return RealNVPConfig(**{"channels": 1, "size": 8, "nres": 1, "nhidden": 2, "ncouplings": 2} | kwargs)


def awake(config: RealNVPConfig) -> RealNVP:
    return wake_up(RealNVP(config).double())


def pixels(config: RealNVPConfig, batch: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(batch, config.channels, *config.size, generator=generator, dtype=dtype)


# --- the bijector ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "size", "scales", "ncouplings", "batch"),
    [
        (1, 4, None, 3, 2),
        (3, 4, None, 3, 2),
        (1, 8, None, 3, 2),
        (3, 8, None, 3, 2),
        (2, 8, 3, 1, 2),  # one channel-wise coupling only; the last lattice is 2 x 2
        (1, 16, None, 2, 2),
        (3, 16, None, 1, 1),
        (1, (1, 2), None, 3, 2),  # two pixels, for total-probability tests
        (1, (4, 12), 3, 2, 2),
    ],
)
def test_is_a_bijector(channels, size, scales, ncouplings, batch):
    config = small(channels=channels, size=size, scales=scales, ncouplings=ncouplings)
    assert_bijector(awake(config), pixels(config, batch))


@pytest.mark.parametrize("parity", [0, 1])
def test_couplings_are_bijectors_that_keep_what_they_read(parity):
    # (4, 5): odd edges are fine for a checkerboard
    rows_plus_cols = torch.arange(4)[:, None] + torch.arange(5)
    checker = wake_up(CheckerboardCoupling(ScaleShiftNet(2, 2, 3, 1), parity, 4, 5).double())
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    assert_bijector(checker, x)
    kept = (checker(x)[0] == x).all(dim=(0, 1))
    assert torch.equal(kept, rows_plus_cols % 2 == parity)

    channel = wake_up(ChannelCoupling(ScaleShiftNet(2, 2, 3, 1), parity).double())
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert_bijector(channel, x)
    kept = (channel(x)[0] == x).all(dim=(0, 2, 3))
    assert kept.tolist() == ([False, False, True, True] if parity else [True, True, False, False])


def test_couplings_alternate_and_number_as_in_the_paper():
    flow = RealNVP(RealNVPConfig(nhidden=1, nres=1))
    assert [len(couplings) for couplings in flow.checkers] == [3, 3, 3, 4]
    assert [len(couplings) for couplings in flow.channels] == [3, 3, 3]
    assert [[c.parity for c in couplings] for couplings in flow.checkers] == [[0, 1, 0]] * 3 + [[0, 1, 0, 1]]
    assert [[c.parity for c in couplings] for couplings in flow.channels] == [[0, 1, 0]] * 3
    assert [tuple(c[0].read.shape) for c in flow.checkers] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    # the width belongs to the resolution: channel-wise couplings have that of the squeezed lattice
    assert [c[0].net.first.gain.numel() for c in flow.checkers] == [1, 2, 4, 8]
    assert [c[0].net.first.gain.numel() for c in flow.channels] == [2, 4, 8]


def test_a_fresh_flow_is_the_identity_and_learns():
    flow = RealNVP(small(size=16, channels=3), generator=torch.Generator().manual_seed(0))
    x = pixels(flow.config, 2, torch.float32)
    z, ladj = flow(x)
    assert torch.equal(z, x) and torch.equal(ladj, torch.zeros(2))
    (z.square().sum() - ladj.sum()).backward()
    for name, parameter in flow.named_parameters():
        if name.endswith("last.gain"):  # the zero output gains are what the first step moves, in every coupling
            assert parameter.grad.abs().min() > 0, name  # those of s too: its learned scale must not start at 0


def test_s_is_bounded_by_the_learned_scale():
    net = wake_up(ScaleShiftNet(2, 2, 4, 1))
    with torch.no_grad():
        net.scale.copy_(torch.tensor([0.5, 2.0]).view(2, 1, 1))
        net.last.bias.fill_(30.0)
    s, t = net(torch.randn(1, 2, 4, 4))
    assert_close(s, torch.tensor([0.5, 2.0]).view(1, 2, 1, 1).expand_as(s))
    assert t.min() > 20  # t is not bounded


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_round_trip(dtype, atol):
    config = RealNVPConfig(nhidden=4, nres=1)  # 32 x 32 RGB, all 25 couplings of the paper
    flow = wake_up(RealNVP(config)).to(dtype)
    x = pixels(config, 4, dtype)
    with torch.no_grad():
        z, ladj = flow(x)
        back, ladj_back = flow.inverse(z)
    assert z.dtype == ladj.dtype == dtype and (z - x).abs().mean() > 0.1
    assert_close(back, x, rtol=0, atol=atol)
    assert_close(ladj_back, -ladj, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=atol)


def test_images_of_a_batch_do_not_touch_each_other_and_modes_agree():
    flow = awake(small(channels=3))
    x = pixels(flow.config, 3)
    z, ladj = flow(x)
    assert_close(flow(x[1:2])[0], z[1:2])
    assert torch.equal(flow.train()(x)[0], z) and torch.equal(flow.eval()(x)[1], ladj)


@pytest.mark.parametrize("inverse", [False, True])
def test_checkpointing_changes_no_gradient(inverse):
    grads = []
    for memory in ("store", "checkpoint"):
        flow = awake(small(channels=3, size=16, memory=memory))
        x = pixels(flow.config, 2).requires_grad_()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: (s.append(t.numel()), t)[1], lambda t: t):
            value, ladj = (flow.inverse if inverse else flow)(x)
        (value.square().sum() + ladj.sum()).backward()
        grads.append((sum(saved), x.grad, [p.grad for p in flow.parameters()]))
    assert_close(grads[1][1:], grads[0][1:], rtol=1e-12, atol=1e-12)
    assert grads[1][0] < grads[0][0] / 4  # numbers kept for backward


def test_seeded_and_saved():
    one, two, other = (RealNVP(small(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.checkers[0][0].net.first.direction, other.checkers[0][0].net.first.direction)
    state = torch.random.get_rng_state()
    RealNVP(small(), torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.random.get_rng_state())  # the global generator is left alone
    other.load_state_dict(one.state_dict())
    assert set(one.state_dict()) == {name for name, _ in one.named_parameters()}  # constants are rebuilt, not saved
    x = pixels(one.config, 2, torch.float32)
    assert torch.equal(other(x)[0], one(x)[0])


def test_autocast_keeps_z_and_ladj_in_float32():
    flow = wake_up(RealNVP(small(nhidden=4)))
    x = pixels(flow.config, 2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        z, ladj = flow(x)
        back, _ = flow.inverse(z)
        s, t = flow.checkers[0][0].net(x)
    assert z.dtype == ladj.dtype == s.dtype == t.dtype == torch.float32  # ladj sums s: a bf16 sum would be useless
    # what is read is almost the same in both directions: only the rounding of the bf16 networks is lost
    assert (back - x).abs().max() < 0.05


# --- squeeze, split, levels -----------------------------------------------------------------------------------------


def test_squeeze_and_split_by_hand():
    x = torch.arange(8.0).view(2, 4)
    x = torch.stack([x, x + 10])[None]  # 2 x 4 sites, two channels
    cells = squeeze(x)
    # sites 00, 01, 10, 11 of each cell, in each site the two channels
    assert cells[0, :, 0, 0].tolist() == [0, 10, 1, 11, 4, 14, 5, 15]
    assert cells[0, :, 0, 1].tolist() == [2, 12, 3, 13, 6, 16, 7, 17]
    kept, out = split(cells)
    assert kept[0, :, 0, 0].tolist() == [0, 10, 5, 15] and out[0, :, 0, 0].tolist() == [1, 11, 4, 14]
    assert torch.equal(join(kept, out), cells) and torch.equal(unsqueeze(cells), x)


def test_levels_of_8_by_8_counted_by_hand():
    assert RealNVP(small()).levels.tolist() == [[(i + j + 1) % 2 for j in range(8)] for i in range(8)]
    levels = RealNVP(small(scales=3)).levels
    assert levels.dtype == torch.long
    assert levels.tolist() == [
        [2, 0, 1, 0, 2, 0, 1, 0],
        [0, 2, 0, 1, 0, 2, 0, 1],
        [1, 0, 2, 0, 1, 0, 2, 0],
        [0, 1, 0, 2, 0, 1, 0, 2],
        [2, 0, 1, 0, 2, 0, 1, 0],
        [0, 2, 0, 1, 0, 2, 0, 1],
        [1, 0, 2, 0, 1, 0, 2, 0],
        [0, 1, 0, 2, 0, 1, 0, 2],
    ]
    assert torch.bincount(levels.flatten()).tolist() == [32, 16, 16]
    assert torch.bincount(RealNVP(RealNVPConfig(nhidden=1, nres=1)).levels.flatten()).tolist() == [512, 256, 128, 128]


@given(scales=st.integers(1, 4), rows=st.integers(1, 3), cols=st.integers(2, 3))
@settings(deadline=None, max_examples=20)
def test_level_is_the_lowest_bit_in_which_row_and_column_differ(scales, rows, cols):
    height, width = rows * 2 ** (scales - 1), cols * 2 ** (scales - 1)
    levels = RealNVP(small(size=(height, width), scales=scales, ncouplings=1, nhidden=1)).levels
    for i in range(height):
        for j in range(width):
            low_bit = (i ^ j) & -(i ^ j)
            assert levels[i, j] == (min(low_bit.bit_length() - 1, scales - 1) if low_bit else scales - 1)


def test_coarser_couplings_leave_factored_out_sites_alone():
    """Switching off all couplings but the last scale's changes exactly the sites of the top level."""
    flow = awake(small(channels=3, size=16, scales=3))
    with torch.no_grad():
        for net in (m for m in flow.modules() if isinstance(m, ScaleShiftNet)):
            if not any(net is c.net for c in flow.checkers[-1]):
                net.last.gain.zero_()
                net.last.bias.zero_()
    x = pixels(flow.config, 2)
    changed = (flow(x)[0] != x).all(dim=(0, 1))
    assert torch.equal(changed, flow.levels == 2)


def test_reach_is_global_at_every_level():
    """In a block hierarchy a finest latent moves an 8 x 8 patch at most; here every latent moves pixels all over."""
    flow = awake(RealNVPConfig(channels=1, size=32, nres=2, nhidden=3))
    z = pixels(flow.config, 1)
    with torch.no_grad():
        x = flow.inverse(z)[0]
        for site, level in [((0, 0), 3), ((16, 17), 0)]:
            assert flow.levels[site] == level
            moved = z.clone()
            moved[0, 0][site] += 1
            touched = (flow.inverse(moved)[0] != x)[0, 0]
            if level == 3:
                assert touched.all()
            else:
                far = torch.maximum((torch.arange(32)[:, None] - 16).abs(), (torch.arange(32) - 17).abs()) > 8
                assert touched[far].float().mean() > 0.5


# --- the config -----------------------------------------------------------------------------------------------------


def test_config_is_normalised_and_survives_json():
    config = RealNVPConfig()
    assert (config.size, config.scales, config.prior, config.widths) == ((32, 32), 4, "gaussian", (32, 64, 128, 256))
    assert [RealNVPConfig(size=s).scales for s in (2, 4, 8, 16, 28, 32, 64, (8, 32))] == [1, 1, 2, 3, 3, 4, 5, 2]
    listed = RealNVPConfig(size=[8, 16], nhidden=[3, 5])
    assert listed.size == (8, 16) and listed.nhidden == listed.widths == (3, 5)
    assert RealNVPConfig(**json.loads(json.dumps(dataclasses.asdict(listed)))) == listed
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.size = (4, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"channels": 0}, "channels must be an integer from 1, got 0"),
        ({"channels": 1.5}, "channels must be an integer from 1, got 1.5"),
        ({"channels": True}, "channels must be an integer from 1, got True"),
        ({"ncouplings": 0}, "ncouplings must be"),
        ({"nres": -1}, "nres must be an integer from 1, got -1"),
        ({"size": 0}, "size must be an integer from 1 or a pair"),
        ({"size": "32"}, "size must be an integer from 1 or a pair"),
        ({"size": (32, 32, 3)}, "size must be an integer from 1 or a pair"),
        ({"size": (32, None)}, "size must be an integer from 1 or a pair"),
        ({"size": 30}, "size 30x30 does not fit 3 scales: .* multiples of 4, for example 28x28 or 32x32"),
        ({"size": (32, 33)}, "size 32x33 does not fit 4 scales: .* multiples of 8, for example 32x32 or 40x40"),
        ({"size": 4, "scales": 4}, "size 4x4 does not fit 4 scales: .* multiples of 8, for example 16x16 or 24x24"),
        ({"size": 8, "scales": 4}, "leaves a last lattice of one site: .* multiples of 8 .* from 16"),
        ({"scales": 0}, "scales must be an integer from 1 or None, got 0"),
        ({"nhidden": 0}, "nhidden must be an integer from 1 or 4 of them"),
        ({"nhidden": (8, 16)}, r"nhidden must be an integer from 1 or 4 of them \(one per scale\), got \(8, 16\)"),
        ({"nhidden": (8, 16, 0, 4)}, "nhidden must be"),
        ({"prior": "normal"}, r"prior must be one of \('laplace', 'gaussian'\), got 'normal'"),
        ({"memory": "reversible"}, r"memory must be one of \('store', 'checkpoint'\), got 'reversible'"),
    ],
)
def test_bad_configs(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RealNVPConfig(**kwargs)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 8, 8), (2, 1, 8, 4), (2, 1, 16, 16)])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_bad_inputs(shape, direction):
    with pytest.raises(ValueError, match=r"this Real NVP takes \(B, 1, 8, 8\), got \("):
        getattr(RealNVP(small()), direction)(torch.zeros(shape))


# --- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [RealNVPConfig(nhidden=2), small(size=4, channels=3), small(size=(8, 16), nhidden=(3, 7), nres=3), small(scales=3)],
)
def test_parameter_count_is_that_of_the_built_flow(config):
    assert parameter_count(config) == sum(p.numel() for p in RealNVP(config).parameters())


def test_parameter_count_by_hand():
    # one scale, one channel, 2 + 1 checkerboards. First 9*1*2 + 2*2, two of 9*2*2 + 2*2, last 9*2*2 + 2*2, scale 1.
    assert parameter_count(small(size=4)) == 3 * (22 + 40 + 40 + 40 + 1)


@pytest.mark.parametrize(
    "config", [RealNVPConfig(), RealNVPConfig(nres=2), small(nres=2, ncouplings=3), small(size=16)]
)
@pytest.mark.parametrize("parameters", [200_000, 654_321, 4_000_000, 90_000_000])
def test_matched_width_is_within_two_percent(config, parameters):
    found = matched_width(parameters, config)
    assert abs(parameter_count(found) - parameters) <= 0.02 * parameters
    assert dataclasses.replace(found, nhidden=config.nhidden) == config  # nothing else moved
    for fine, coarse in zip(found.widths, found.widths[1:], strict=False):
        assert abs(coarse - 2 * fine) <= 4  # doubling, up to rounding and a step of 1


def test_matched_width_finds_the_exact_doubling():
    config = RealNVPConfig(nhidden=24)
    assert matched_width(parameter_count(config), dataclasses.replace(config, nhidden=7)).nhidden == 24


def test_matched_width_names_the_nearest_counts():
    config = small(size=4)  # one width: 429 parameters at nhidden 2, and more than 600 at 3
    low, high = (parameter_count(dataclasses.replace(config, nhidden=n)) for n in (2, 3))
    with pytest.raises(ValueError, match=rf"no nhidden gives 600 .* {low} \(nhidden=\(2,\)\) and {high} "):
        matched_width(600, config)
    with pytest.raises(ValueError, match="nearest found are 168 "):
        matched_width(1, config)
    with pytest.raises(ValueError, match="parameters must be an integer of at least 1, not 0"):
        matched_width(0, config)
