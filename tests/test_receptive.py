"""Receptive fields are the columns of the exact Jacobian, stay in their cones, and have the size that they look."""

from __future__ import annotations

import math

import pytest
import torch
from bijectors import wake_up
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from rgflow import Geometry, RealNVPConfig, RGFlowConfig, build, jacobians, receptive
from rgflow.flow import Flow

SMALL = {"channels": 2, "size": 8, "nlayers": 2, "nres": 1, "nmlp": 1, "nhidden": 16}
KINDS = {
    "affine, residual": RGFlowConfig(**SMALL),
    "spline, whitened": RGFlowConfig(**SMALL, coupling="spline", net="plain", linear="whitened", tied=False),
    "autoregressive": RGFlowConfig(**SMALL, coupling="autoregressive"),
    "reversible": RGFlowConfig(**SMALL, net="plain", memory="reversible"),
    "checkpoint": RGFlowConfig(**SMALL, net="plain", memory="checkpoint", order="authors"),
    "Real NVP": RealNVPConfig(channels=2, size=8, scales=2, ncouplings=2, nres=1, nhidden=4),
}


def random_flow(name: str) -> Flow:
    return wake_up(build(KINDS[name]).double())


def draws(flow: Flow, n: int) -> Tensor:
    return flow.sample_latents(n, generator=torch.Generator().manual_seed(3))


def exact(flow: Flow, z: Tensor) -> Tensor:
    """(D, C, H, W): all columns of dx/dz at one z (C, H, W), by the backward mode."""
    rows = jacobian(lambda v: flow.decode(v[None])[0].flatten(), z)
    return rows.flatten(1).T.unflatten(1, flow.shape)


def every(flow: Flow) -> Tensor:
    return torch.ones(flow.shape).nonzero()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("double")
def test_derivatives_are_the_columns_of_the_jacobian(name: str) -> None:
    flow = random_flow(name)
    z = draws(flow, 2)
    columns = jacobians.derivatives(flow, z, every(flow))
    assert columns.shape == (2, 128, 2, 8, 8) and not columns.requires_grad
    expected = exact(flow, z[1])
    assert_close(columns[1], expected, rtol=1e-8, atol=1e-9)  # splines amplify rounding near their knots
    assert (expected - torch.eye(128).unflatten(1, flow.shape)).abs().max() > 0.1, "the identity proves nothing"


BLOCKS = {name: config for name, config in KINDS.items() if name != "Real NVP"} | {
    "oblong, repeated": RGFlowConfig(**SMALL | {"size": (8, 16), "block": 2, "channels": 1}, net="plain", repeat=2),
    "shared": RGFlowConfig(**SMALL | {"nhidden": 8}, share_levels=True),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.usefixtures("double")
def test_derivatives_block_by_block_are_the_same(name: str) -> None:
    flow = wake_up(build(BLOCKS[name]).double())
    latents = every(flow)[torch.randperm(math.prod(flow.shape))[:70]]
    z = draws(flow, 2)
    expected = jacobians.derivatives(flow, z, latents)
    assert_close(jacobians.block_derivatives(flow, z, latents), expected, rtol=1e-9, atol=1e-11)
    one = jacobians.block_derivatives(flow, z[:1], latents[:1])
    assert_close(one, expected[:1, :1], rtol=1e-9, atol=1e-11)


def test_both_ways_give_the_same_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = random_flow("affine, residual")
    seen = []
    monkeypatch.setattr(receptive, "block_derivatives", lambda *a: seen.append(a) or jacobians.block_derivatives(*a))
    both = [
        receptive.receptive_fields(flow, every(flow)[:k], 3, generator=torch.Generator().manual_seed(5), batch_size=7)
        for k in (33, 32)  # a block has 32 features
    ]
    assert len(seen) == 3, "33 latents by blocks, three draws; 32 one by one"
    for name in ("mean", "magnitude", "error", "strengths"):
        assert_close(getattr(both[0], name)[:32], getattr(both[1], name))


@pytest.mark.usefixtures("double")
def test_receptive_fields_of_a_linear_flow_are_its_inverse() -> None:
    """Without couplings dx/dz does not depend on z: no noise, and signed mean and magnitude are the same up to sign."""
    flow = build(RGFlowConfig(**SMALL, linear="whitened")).double()
    for step in flow.bijector.steps:
        linear = step.decimators[0].bijector.layers[0]
        matrix = torch.eye(32) + 0.2 * torch.randn(32, 32)
        linear.fit(matrix, torch.randn(32))
        torch.nn.init.normal_(linear.factors, std=0.1)
    forwards = jacobian(lambda v: flow.encode(v.view(1, 2, 8, 8))[0].flatten(), torch.randn(128))
    expected = torch.linalg.inv(forwards).T.unflatten(1, flow.shape)
    fields = receptive.receptive_fields(flow, every(flow), n=3, batch_size=50)
    assert_close(fields.mean, expected, rtol=1e-8, atol=1e-10)
    assert_close(fields.magnitude, expected.abs(), rtol=1e-8, atol=1e-10)
    assert fields.error.max() < 1e-5 and fields.draws == 3  # a root of what rounding leaves of squares that cancel
    assert_close(fields.strengths, expected.flatten(1).norm(dim=1), rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("double")
def test_means_errors_and_strengths_from_the_single_draws() -> None:
    flow = random_flow("affine, residual")
    latents = jacobians.latents_of(flow, 0, 5, torch.Generator().manual_seed(1))
    fields = receptive.receptive_fields(flow, latents, 4, 0.8, torch.Generator().manual_seed(2), batch_size=3)
    z = flow.sample_latents(4, 0.8, torch.Generator().manual_seed(2))
    rows = torch.tensor([(c * 8 + i) * 8 + j for c, i, j in latents.tolist()])
    columns = torch.stack([exact(flow, point)[rows] for point in z])
    assert_close(fields.mean, columns.mean(0))
    assert_close(fields.magnitude, columns.abs().mean(0))
    squared = columns.var(0).sum((1, 2, 3)) / 4
    assert_close(fields.error.square(), squared)
    assert_close(fields.strengths.square(), (columns.mean(0).square().sum((1, 2, 3)) - squared).clamp_min(0))
    assert (fields.magnitude - fields.mean.abs()).max() > 1e-3, "signs that never change prove nothing"
    assert fields.levels.tolist() == [0] * 5 and fields.levels.dtype == torch.int64


@pytest.mark.parametrize("order", ["paper", "authors"])
def test_nothing_outside_the_cone_and_all_of_it_inside(order: str) -> None:
    config = RGFlowConfig(channels=1, size=32, block=4, nlayers=3, nhidden=8, net="plain", tied=False, order=order)
    flow = wake_up(build(config), std=0.2)
    latents = torch.cat([jacobians.latents_of(flow, level, 4, torch.Generator().manual_seed(0)) for level in range(4)])
    largest = receptive.reach(flow, latents, n=2, generator=torch.Generator().manual_seed(0))
    cones = receptive.cones_of(flow.geometry, latents)
    assert largest[~cones].abs().max() == 0.0
    assert (largest[cones] > 0).all()
    assert cones.flatten(1).sum(1).unique().tolist() == [64, {"paper": 400, "authors": 576}[order], 1024]


def test_real_nvp_knows_no_cone() -> None:
    flow = wake_up(build(RealNVPConfig(channels=1, size=16, nres=1, nhidden=4)), std=0.2)
    latents = jacobians.latents_of(flow, 0, 3, torch.Generator().manual_seed(0))
    outside = ~receptive.cones_of(Geometry(16, 16, 4), latents)  # of an RG-Flow of this size, at the same sites
    assert (receptive.reach(flow, latents)[outside] > 0).any()
    with pytest.raises(ValueError, match="no causal cones"):
        receptive.cones_of(flow.geometry, latents)


def test_latents_of_a_level() -> None:
    flow = random_flow("affine, residual")
    top = jacobians.latents_of(flow, 1)
    assert len(top) == 2 * 16 and (top[:, 1:] % 2 == 0).all() and top[:, 0].unique().tolist() == [0, 1]
    some = [jacobians.latents_of(flow, 0, 9, torch.Generator().manual_seed(k)) for k in (0, 0, 1)]
    assert torch.equal(some[0], some[1]) and not torch.equal(some[0], some[2])
    assert len(some[0].unique(dim=0)) == 9 and (flow.levels[some[0][:, 1], some[0][:, 2]] == 0).all()
    assert len(jacobians.latents_of(flow, 0, 1000)) == 2 * 48


def block(rows: range, columns: range, shape: tuple[int, int] = (8, 12)) -> Tensor:
    weights = torch.zeros(shape)
    for i in rows:
        for j in columns:
            weights[i % shape[0], j % shape[1]] = 3.0
    return weights


def test_radius_of_what_is_known() -> None:
    assert receptive.radius(block(range(1), range(1))) == 0
    for edge in (2, 3, 5, 8):
        expected = math.sqrt((edge**2 - 1) / 6)
        assert receptive.radius(block(range(edge), range(edge))).item() == pytest.approx(expected)
    assert receptive.radius(torch.ones(32, 32)).item() == pytest.approx(math.sqrt((32**2 - 1) / 6))  # 13.06
    pair = torch.zeros(8, 12)
    pair[2, 3], pair[2, 5] = 1, 3  # standard deviation 2 sqrt(p (1 - p))
    assert receptive.radius(pair).item() == pytest.approx(2 * math.sqrt(3) / 4)


def test_radius_does_not_care_where_the_torus_is_cut() -> None:
    weights = torch.rand(4, 8, 12) ** 6
    found = receptive.radius(weights)
    for shift in ((1, 0), (0, 5), (7, 11)):
        assert_close(receptive.radius(weights.roll(shift, (1, 2))), found)
    assert receptive.radius(block(range(-1, 2), range(-1, 2))).item() == pytest.approx(math.sqrt(8 / 6))
    assert found.dtype == torch.float64 and found.shape == (4,)


def test_radius_is_the_least_mean_square_distance_on_the_torus() -> None:
    """Against a search over centres, with the shorter way around taken to each."""
    weights = torch.rand(8, 8, dtype=torch.float64) ** 8
    p, sites = weights / weights.sum(), torch.arange(8.0, dtype=torch.float64)

    def least(marginal: Tensor) -> Tensor:
        centres = torch.linspace(0, 8, 4001, dtype=torch.float64)[:, None]
        way = (sites - centres).abs()
        return (marginal * torch.minimum(way, 8 - way).square()).sum(1).min()

    assert_close(receptive.radius(weights), (least(p.sum(1)) + least(p.sum(0))).sqrt(), rtol=0, atol=1e-5)


def test_principal_is_the_field_when_it_has_one_colour() -> None:
    grey, colour = torch.randn(3, 4, 6), torch.tensor([[0.6, 0.8, 0.0], [-0.6, 0.0, -0.8], [0.0, 1.0, 0.0]])
    found, u, share = receptive.principal(colour[:, :, None, None] * grey[:, None])
    sign = torch.tensor([1.0, -1.0, 1.0])  # colours that sum to less than 0 are turned
    assert_close(found, sign[:, None, None] * grey)
    assert_close(u, sign[:, None] * colour)
    assert_close(share, torch.ones(3))
    mixed = torch.zeros(1, 2, 2, 2)
    mixed[0, 0, 0, 0], mixed[0, 1, 1, 1] = 3.0, 1.0
    assert receptive.principal(mixed)[2].item() == pytest.approx(0.9)


def test_crops_follow_the_cone_around_the_torus() -> None:
    maps = torch.arange(64.0).view(1, 8, 8)
    cone = block(range(6, 10), range(-1, 3), (8, 8)).bool()[None]
    (patch,) = receptive.crops(maps, cone)
    assert torch.equal(patch, maps[0].roll((2, 1), (0, 1))[:4, :4])
    assert torch.equal(receptive.crops(maps, torch.ones(1, 8, 8, dtype=torch.bool))[0], maps[0])


def test_parts_make_the_whole() -> None:
    """Parts of 2, 3 and 4 draws and their union, from derivatives made up by hand."""
    draws = torch.randn(9, 2, 1, 4, 4, dtype=torch.float64) ** 3
    latents = torch.tensor([[0, 1, 1], [0, 2, 0]])

    def of(x: Tensor) -> receptive.ReceptiveFields:
        error = (x.var(0).sum((1, 2, 3)) / len(x)).sqrt()
        return receptive.ReceptiveFields(latents, torch.tensor([0, 1]), x.mean(0), x.abs().mean(0), error, len(x))

    parts, whole = [of(x) for x in draws.split([2, 3, 4])], of(draws)
    found = receptive.pooled(parts)
    assert found.draws == 9 and torch.equal(found.latents, latents) and torch.equal(found.levels, whole.levels)
    for name in ("mean", "magnitude", "error", "strengths"):
        assert_close(getattr(found, name), getattr(whole, name))
    middle = receptive.median_of_means(parts)
    assert_close(middle, torch.stack([p.mean for p in parts]).sort(0).values[1])
    wild = draws.clone()
    wild[0] += 1e9  # one draw of one part
    assert (receptive.median_of_means([of(x) for x in wild.split([2, 3, 4])]) - middle).abs().max() < 20
    for bad in (parts[:2], [*parts, parts[0]], [*parts[:2], receptive.ReceptiveFields(
        latents.flip(0), whole.levels, whole.mean, whole.magnitude, whole.error, 9)]):  # fmt: skip
        with pytest.raises(ValueError, match="parts"):
            receptive.median_of_means(bad)
    with pytest.raises(ValueError, match="1 or more of the same latents, not 0"):
        receptive.pooled([])


def test_a_leak_is_seen_wherever_it_is() -> None:
    cones = torch.zeros(2, 4, 4, dtype=torch.bool)
    cones[0, :2, :2], cones[1, 2:, 1:] = True, True  # 4 and 6 pixels
    felt = torch.where(cones, 0.5, 0.0)
    felt[1, 3, 3], felt[0, 0, 0] = 2.0, 0.0
    assert receptive.leak(felt, cones) == receptive.Leak(0.0, 2.0, 5.0, 0.75)
    felt[1, 1, 0] = 1e-30
    assert receptive.leak(felt, cones).outside == pytest.approx(1e-30)
    assert receptive.leak(felt, torch.ones_like(cones)).outside == 0


FLOW = build(RGFlowConfig(**SMALL))
LATENTS = torch.tensor([[0, 1, 1]])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: jacobians.block_derivatives(FLOW, torch.zeros(1, 2, 4, 8), LATENTS), r"z must be \(n, 2, 8, 8\), not"),
        (lambda: jacobians.derivatives(FLOW, torch.zeros(1, 2, 4, 8), LATENTS), "z must be"),
        (lambda: jacobians.latents_of(FLOW, 2), "level must be one of 0..1, not 2"),
        (lambda: jacobians.latents_of(FLOW, 0, 0), "count must be an integer of at least 1, not 0"),
        (lambda: receptive.receptive_fields(FLOW, LATENTS, 1), "n must be an integer of at least 2, not 1"),
        (
            lambda: receptive.receptive_fields(FLOW, LATENTS, batch_size=0),
            "batch_size must be an integer of at least 1",
        ),
        (lambda: receptive.reach(FLOW, LATENTS, 0), "n must be an integer of at least 1, not 0"),
        (lambda: receptive.reach(FLOW, torch.tensor([[0, 1]])), r"not torch.int64 \(1, 2\)"),
        (lambda: receptive.reach(FLOW, LATENTS.float()), "not torch.float32"),
        (lambda: receptive.reach(FLOW, torch.tensor([[0, 1, 1], [0, 8, 1]])), r"latent \(0, 8, 1\) lies outside"),
        (lambda: receptive.leak(torch.ones(1, 4, 4), torch.ones(1, 4, 4)), r"not \(1, 4, 4\) and torch.float32"),
        (lambda: receptive.leak(torch.ones(1, 4, 4), torch.zeros(1, 4, 4).bool()), "a cone is empty"),
        (lambda: receptive.radius(torch.zeros(2, 4, 4)), "zero everywhere"),
        (lambda: receptive.radius(torch.tensor([[1.0, -2.0]])), "from -2.0"),
        (lambda: receptive.radius(torch.ones(4)), r"not \(4,\)"),
    ],
)
def test_bad_arguments_are_named(call: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_the_generator_decides() -> None:
    flow = random_flow("affine, residual")
    found = [
        receptive.receptive_fields(flow, LATENTS, 4, generator=torch.Generator().manual_seed(k)).mean for k in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
