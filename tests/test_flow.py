"""The whole flow: bijection, likelihood, sampling, configs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bijectors import assert_bijector, wake_up
from torch.testing import assert_close

from rgflow import Flow, Geometry, RealNVPConfig, RGFlowConfig, build
from rgflow.blocks import Blocks
from rgflow.couplings import AffineCoupling, CouplingStack
from rgflow.hierarchy import Hierarchy
from rgflow.plainnets import PlainNet
from rgflow.priors import PRIORS

SMALL = RGFlowConfig(channels=1, size=8, nlayers=2, nres=1, nmlp=1, nhidden=16)
CASES = {
    "paper": SMALL,
    "one block": replace(SMALL, size=4),
    "colour": replace(SMALL, channels=3, size=4),
    "colour, 8": replace(SMALL, channels=3, nlayers=(2, 1), stream="full"),
    "authors": replace(SMALL, order="authors", stream="full", nres=2),
    "untied": replace(SMALL, tied=False, order="authors"),
    "plain": replace(SMALL, net="plain", channels=3, tied=False),
    "places": replace(SMALL, net="plain", places=True, size=(8, 16), tied=False),
    "odd": replace(SMALL, net="plain", odd=True, tied=False, prior="gaussian"),
    "odd, spline, places": replace(SMALL, net="plain", odd=True, coupling="spline", places=True, pieces=3),
    "oblong": replace(SMALL, size=(4, 12), net="plain"),
    "shared": replace(SMALL, share_levels=True, net="plain", size=8, block=2),
    "repeated, blocks of 2": replace(SMALL, block=2, repeat=2, prior="gaussian", net="plain"),
    "autoregressive": replace(SMALL, coupling="autoregressive"),
    "autoregressive, authors, colour": replace(SMALL, coupling="autoregressive", channels=3, size=4, order="authors"),
    "autoregressive, shared": replace(SMALL, coupling="autoregressive", share_levels=True),
    "checkpoint": replace(SMALL, memory="checkpoint", net="plain"),
    "16": replace(SMALL, size=16, nlayers=1, net="plain", nhidden=8),
    "spline": replace(SMALL, coupling="spline", net="plain"),
    "spline, colour": replace(SMALL, coupling="spline", net="plain", channels=3, size=4, tied=False, pieces=3),
    "spline, whitened": replace(SMALL, coupling="spline", net="plain", linear="whitened", order="authors"),
    "spline, shared, blocks of 2": replace(SMALL, coupling="spline", net="plain", share_levels=True, block=2, repeat=2),
    "16, shared, autoregressive": replace(SMALL, size=16, nlayers=1, share_levels=True, coupling="autoregressive"),
    "Real NVP": RealNVPConfig(channels=1, size=8, nhidden=4, nres=1),
}


@pytest.mark.parametrize("case", CASES)
def test_flows_are_bijectors(double, case: str) -> None:
    flow = wake_up(build(CASES[case]), std=0.2)
    assert_bijector(flow.bijector, torch.randn(1, *flow.shape))


@pytest.mark.parametrize("coupling", ["affine", "autoregressive"])
@pytest.mark.parametrize("order", ["paper", "authors"])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_every_kind_and_shape_is_a_bijector(double, coupling, order, share, channels, size) -> None:
    config = replace(SMALL, channels=channels, size=size, coupling=coupling, order=order, share_levels=share, nlayers=1)
    flow = wake_up(build(config), std=0.2)
    assert_bijector(flow.bijector, torch.randn(1 if size == 16 else 2, *flow.shape))


@pytest.mark.parametrize("prior", PRIORS)
def test_total_probability_is_one(double, prior: str) -> None:
    """Sign of the log-determinant, normalisation of the prior: the density of a flow on two pixels integrates to 1."""
    stack = CouplingStack([AffineCoupling([PlainNet(1, 8)]) for _ in range(3)])
    pair = Flow(Hierarchy([Blocks(stack, 1, (1, 2))], (1, 1, 2)), PRIORS[prior]())
    wake_up(pair, std=0.3)
    axis = torch.linspace(-18, 18, 700)
    x = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    total = pair.log_prob(x).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=2e-3)
    drawn, log_prob = pair.sample_and_log_prob(5)
    assert_close(log_prob, pair.log_prob(drawn), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_a_fresh_flow_is_the_identity(case: str) -> None:
    flow = build(CASES[case])
    x = torch.randn(2, *flow.shape)
    z, ladj = flow.encode(x)
    assert_close(z, x, rtol=0, atol=1e-5)  # a spline is the identity to rounding
    assert ladj.abs().max() < 1e-5


@pytest.mark.parametrize("case", ["paper", "autoregressive", "plain", "spline, whitened", "Real NVP"])
def test_train_and_eval_agree_and_calls_repeat(case: str) -> None:
    flow = wake_up(build(CASES[case]), std=0.2)
    x = torch.randn(3, *flow.shape)
    value = flow.eval().log_prob(x)
    assert torch.equal(value, flow.eval().log_prob(x)) and torch.equal(value, flow.train().log_prob(x))


def test_seeded_building_repeats() -> None:
    a, b, c = (build(SMALL, torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a) and any((a[k] != c[k]).any() for k in a)


@pytest.mark.parametrize("case", ["paper", "authors", "untied", "plain", "autoregressive", "Real NVP"])
def test_gradients_reach_every_parameter(case: str) -> None:
    flow = wake_up(build(CASES[case]), std=0.2)
    flow.bits_per_dim(torch.randint(0, 256, (2, *flow.shape), dtype=torch.uint8)).sum().backward()
    assert [n for n, p in flow.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_bits_per_dim_by_hand(double) -> None:
    """A fresh flow maps x to itself: bits/dim is then an expression of the prior alone."""
    flow = build(SMALL).double()
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    noise = torch.rand(3, 1, 8, 8)
    p = 0.05 + 0.9 * (images + noise) / 256
    x = (p / (1 - p)).log()
    nats = -(2**0.5) * x.abs() - 0.5 * torch.log(torch.tensor(2.0)) + (0.9 / (p * (1 - p))).log()
    assert_close(
        flow.bits_per_dim(images, noise),
        8 - nats.sum((1, 2, 3)) / 64 / torch.log(torch.tensor(2.0)),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("case", ["paper", "oblong", "Real NVP"])
def test_sampling_at_temperatures(case: str) -> None:
    flow = build(CASES[case])
    count = int(flow.levels.max()) + 1
    temperature = [0.1 * (k + 1) for k in range(count)]
    a, b, c = (flow.sample(300, temperature, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert a.shape == (300, *flow.shape) and torch.equal(a, b) and not torch.equal(a, c)
    for level in range(count):  # a fresh flow is the identity: the spread of x tells the temperature
        spread = a[..., flow.levels == level].std().item()
        expected = temperature[level] if flow.config.prior == "laplace" else temperature[level] ** 0.5
        assert spread == pytest.approx(expected, rel=0.2)
    heat = torch.full(flow.levels.shape, 0.5)
    generators = (torch.Generator().manual_seed(4) for _ in "ab")
    assert_close(flow.sample(3, heat, next(generators)), flow.sample(3, 0.5, next(generators)))


def test_no_samples_are_a_valid_number_of_samples() -> None:
    assert build(SMALL).sample(0).shape == (0, 1, 8, 8)


def test_numpy_integers_are_integers() -> None:
    config = replace(SMALL, size=np.int64(8), nlayers=(np.int32(2), 1))
    assert config.size == (8, 8) and config.nlayers == (2, 1) and type(config.nlayers[0]) is int


def test_checkpointing_keeps_fewer_numbers() -> None:
    """What autograd saves: with checkpoints only what passes between coupling layers."""
    kept = {}
    for memory in ("store", "checkpoint"):
        flow = build(replace(SMALL, nlayers=4, nhidden=64, memory=memory))
        sizes = []

        def pack(tensor: torch.Tensor, sizes=sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            flow.log_prob(torch.randn(64, 1, 8, 8))
        kept[memory] = sum(sizes)
    assert kept["checkpoint"] < kept["store"] / 5


def test_progressive_lattices() -> None:
    flow = wake_up(build(replace(SMALL, size=16)), std=0.2)
    z = torch.randn(2, 1, 16, 16)
    lattices = flow.lattices(z)
    assert [tuple(x.shape) for x in lattices] == [(2, 1, 4, 4), (2, 1, 8, 8), (2, 1, 16, 16)]
    assert torch.equal(lattices[-1], flow.decode(z)[0])


@pytest.mark.parametrize("case", [case for case in CASES if case != "Real NVP"])
def test_coarse_flows_are_the_upper_steps(double, case: str) -> None:
    """Their images are those that the flow makes on its way, and their density what its upper levels contribute."""
    flow = wake_up(build(CASES[case]), std=0.2)
    z = torch.randn(2, *flow.shape)
    images, contributed = flow.lattices(z)[::-1], flow.log_prob_by_level(flow.decode(z)[0])
    kept = z
    for level in range(flow.geometry.depth + 1):
        coarse = flow.coarse(level)
        assert coarse.shape == tuple(images[level].shape[1:]) and coarse.geometry == coarse.config.geometry
        assert torch.equal(coarse.levels, coarse.geometry.levels)
        assert_close(coarse.decode(kept)[0], images[level])
        assert_close(coarse.log_prob(images[level]), contributed[:, level:].sum(1))
        assert {id(p) for p in coarse.parameters()} <= {id(p) for p in flow.parameters()}
        again = build(coarse.config)
        again.load_state_dict(coarse.state_dict())
        assert_close(again.decode(kept)[0], images[level])
        kept = kept[..., ::2, ::2]


def test_flows_without_such_a_level_refuse() -> None:
    for level in (-1, 2):
        with pytest.raises(ValueError, match=rf"level must be in 0..1, not {level}"):
            build(SMALL).coarse(level)
    with pytest.raises(ValueError, match="RealNVP has no images at coarser scales"):
        build(CASES["Real NVP"]).coarse(0)


def test_shared_levels_run_at_other_sizes(double) -> None:
    flow = wake_up(build(replace(SMALL, share_levels=True)), std=0.2)
    large = flow.resized(16)
    assert [id(p) for p in large.parameters()] == [id(p) for p in flow.parameters()]
    assert large.shape == (1, 16, 16) and large.levels.max() == 2 and large.config.size == (16, 16)
    assert_bijector(large.bijector, torch.randn(1, 1, 16, 16))
    with pytest.raises(ValueError, match="share_levels=True runs at other sizes"):
        build(SMALL).resized(16)


def test_steps_share_what_the_config_says() -> None:
    apart, shared = build(SMALL), build(replace(SMALL, share_levels=True))
    count = sum(p.numel() for p in shared.parameters())
    assert sum(p.numel() for p in apart.parameters()) == 2 * count
    step = shared.bijector.step(0)
    assert step is shared.bijector.step(1) and step.disentanglers[0] is not step.decimators[0]


def test_geometry_is_for_blocks_only() -> None:
    assert build(SMALL).geometry == Geometry(8, 8, 4)
    with pytest.raises(ValueError, match="no blocks and no causal cones"):
        _ = build(CASES["Real NVP"]).geometry


def test_paper_defaults() -> None:
    config = RGFlowConfig()
    assert config.per_level("nlayers") == (8, 6, 4, 2) and config.per_level("nhidden") == (512,) * 4
    assert (config.prior, config.order, config.stream, config.nres, config.nmlp) == ("laplace", "paper", "half", 4, 2)
    assert RGFlowConfig(size=64).per_level("nlayers") == (8, 6, 4, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be an integer of at least 1, not 0"),
        ({"size": 30}, "30 x 30 does not fit blocks of 4"),
        ({"size": (8, 8, 8)}, r"size must be one integer or \(H, W\)"),
        ({"size": 8.0}, "size must be an integer of at least 1, not 8.0"),
        ({"size": "88"}, "size must be an integer of at least 1, not '88'"),
        ({"channels": True}, "channels must be an integer of at least 1, not True"),
        ({"nlayers": (2, True)}, "nlayers must be an integer of at least 1, not True"),
        ({"block": "4"}, "block must be an integer of at least 1, not '4'"),
        ({"repeat": 1.5}, "repeat must be an integer of at least 1, not 1.5"),
        ({"tied": "no"}, "tied must be True or False, not 'no'"),
        ({"places": True}, 'places must be False with net "residual", and with share_levels'),
        ({"places": True, "net": "plain", "share_levels": True}, "places must be False .* share_levels"),
        ({"odd": True}, 'odd must be False with net "residual", and with linear maps'),
        ({"odd": True, "net": "plain", "linear": "whitened"}, "odd must be False .* linear maps"),
        ({"odd": 1, "net": "plain"}, "odd must be True or False, not 1"),
        ({"share_levels": 1}, "share_levels must be True or False, not 1"),
        ({"nlayers": 0}, "nlayers must be an integer of at least 1, not 0"),
        ({"nlayers": (1, 2, 3)}, r"nlayers must be one number or 2 \(one per level, lowest first\), not \(1, 2, 3\)"),
        ({"nhidden": 1.5}, "nhidden must be an integer of at least 1, not 1.5"),
        ({"prior": "cauchy"}, "prior must be one of laplace, gaussian, not 'cauchy'"),
        ({"coupling": "glow"}, "coupling must be one of affine, autoregressive, spline, not 'glow'"),
        ({"net": "big"}, "net must be one of residual, plain, not 'big'"),
        ({"stream": "double"}, "stream must be one of half, full, not 'double'"),
        ({"memory": "none"}, "memory must be one of store, checkpoint, reversible, not 'none'"),
        ({"order": "random"}, "order must be one of paper, authors, not 'random'"),
        ({"coupling": "spline"}, 'coupling "spline" works with net "plain" only, not "residual"'),
        ({"pieces": 1}, "pieces must be at least 2, for one piece is a straight line, not 1"),
        ({"linear": "pca"}, "linear must be one of None, whitened, not 'pca'"),
        ({"coupling": "autoregressive", "memory": "reversible"}, "memory must be store or checkpoint with them"),
        ({"coupling": "autoregressive", "net": "plain"}, 'works with net "residual" only'),
        (
            {"coupling": "autoregressive", "nhidden": 20},
            "multiple of block.2 = 16 for autoregressive couplings, not 20",
        ),
        ({"share_levels": True, "nlayers": (2, 2)}, "nlayers must be one number when levels share"),
    ],
)
def test_bad_configs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_bad_inputs_are_refused() -> None:
    flow = build(SMALL)
    with pytest.raises(ValueError, match=r"x must be \(B, 1, 8, 8\), not \(2, 1, 16, 16\)"):
        flow.encode(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"z must be \(B, 1, 8, 8\), not \(1, 8, 8\)"):
        flow.decode(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="x must be torch.float32 as the weights are, not torch.float64"):
        flow.encode(torch.zeros(2, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="a flow of RealNVP has no images at coarser scales"):
        build(CASES["Real NVP"]).lattices(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="number of samples must not be negative, not -1"):
        flow.sample(-1)
    with pytest.raises(TypeError, match="a RealNVPConfig or an ODEFlowConfig, not dict"):
        build({})


def test_the_last_coupling_of_each_block_is_a_spline_and_no_other() -> None:
    flow = build(replace(SMALL, coupling="spline", net="plain", nlayers=3))
    for step in flow.bijector.steps:
        for half in step.blocks:
            kinds = [type(layer).__name__ for layer in half.bijector.layers]
            assert kinds == ["AffineCoupling", "AffineCoupling", "SplineCoupling"]


@pytest.mark.parametrize("coupling", ["affine", "spline"])
@pytest.mark.parametrize("prior", PRIORS)
def test_an_odd_flow_takes_the_opposite_to_the_opposite(double, coupling: str, prior: str) -> None:
    """And finds both equally likely; one that is not odd does neither. The coarse lattices turn with the field."""
    config = replace(SMALL, net="plain", coupling=coupling, odd=True, places=True, tied=False, prior=prior)
    x = torch.randn(3, 1, 8, 8)
    odd, other = (wake_up(build(replace(config, odd=flag)), std=0.3) for flag in (True, False))
    (z, ladj), (turned, as_well) = odd.encode(x), odd.encode(-x)
    assert_close(turned, -z)
    assert_close(as_well, ladj)
    assert_close(odd.log_prob(-x), odd.log_prob(x))
    for here, there in zip(odd.lattices(z), odd.lattices(-z), strict=True):
        assert_close(there, -here)
    assert (other.encode(-x)[0] + other.encode(x)[0]).abs().max() > 1e-2
    assert (other.log_prob(-x) - other.log_prob(x)).abs().max() > 1e-2
    assert (z - x).abs().max() > 1e-2


def test_networks_that_know_places_treat_equal_blocks_differently(double) -> None:
    """And a bias of one block moves that block alone."""
    flow = wake_up(build(replace(SMALL, net="plain", places=True, size=16, nlayers=1)), std=0.3)
    decimator = flow.bijector.step(0).blocks[1]
    block = torch.randn(1, 1, 4, 4)
    x = block.repeat(2, 1, 4, 4)
    z, _ = decimator(x)
    first = z[:, :, :4, :4]
    assert (z[:, :, 4:8, :4] - first).abs().max() > 1e-2
    assert_close(z[0], z[1], rtol=0, atol=0)
    for net in decimator.modules():
        if isinstance(net, PlainNet):
            assert net.places.shape == (16, 16)
            net.places.data[6] += 1
    moved = (decimator(x)[0] - z)[0, 0].abs() > 1e-9
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 8:12] = True  # block 6 of rows of four
    assert torch.equal(moved, moved & expected) and moved.any()
    plain = build(replace(SMALL, net="plain", size=16, nlayers=1))
    assert sum(p.numel() for p in build(replace(plain.config, places=True)).parameters()) > sum(
        p.numel() for p in plain.parameters()
    )
