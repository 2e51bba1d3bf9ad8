"""Modes and samples of a hole, against a linear Gaussian flow, of which everything is known; and the whole flow's."""

from __future__ import annotations

import math

import pytest
import torch
from test_conditional import filled, random_flow
from torch import Tensor

from rgflow import RealNVPConfig, RGFlowConfig, build, holes, inpaint
from rgflow.conditional import Conditional
from rgflow.flow import Flow
from rgflow.holes import maximise
from rgflow.modes import Ascent, Mode, climb
from rgflow.posterior import draw
from rgflow.whitening import whiten

HOLE = (2, 3, 2, 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def linear() -> tuple[Flow, torch.distributions.MultivariateNormal]:
    """A flow whose couplings are still the identity and whose linear maps are fitted to smooth noise; and p(x)."""
    config = RGFlowConfig(channels=1, size=8, nlayers=1, nres=1, nhidden=4, prior="gaussian", linear="whitened")
    flow = build(config, generator()).double()
    noise = torch.randn(500, 1, 8, 8, generator=generator(1), dtype=torch.float64)
    whiten(flow, noise + noise.roll(1, 2) + noise.roll(1, 3))
    with torch.no_grad():
        offset = flow.encode(torch.zeros(1, 1, 8, 8, dtype=torch.float64))[0].flatten()
        matrix = (flow.encode(torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8))[0].flatten(1) - offset).T
    mean = -torch.linalg.solve(matrix, offset)
    return flow, torch.distributions.MultivariateNormal(mean, precision_matrix=matrix.T @ matrix)


def conditional_of(
    density: torch.distributions.MultivariateNormal, x: Tensor, hole: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Mean and covariance of the hole's pixels when the others are known, and log p of those."""
    inside, value = hole.flatten(), x.flatten()
    precision = density.precision_matrix[inside][:, inside]
    pull = density.precision_matrix[inside][:, ~inside] @ (value - density.mean)[~inside]
    covariance = torch.linalg.inv(precision)
    rest = torch.distributions.MultivariateNormal(density.mean[~inside], density.covariance_matrix[~inside][:, ~inside])
    return density.mean[inside] - covariance @ pull, covariance, float(rest.log_prob(value[~inside]))


def test_samples_of_a_linear_gaussian_flow(linear) -> None:
    flow, density = linear
    x = density.sample().view(flow.shape)
    conditional = inpaint.condition(flow, x, HOLE)
    mean, covariance, evidence = conditional_of(density, x, conditional.hole)
    found = conditional.sample(n=1600, steps=20, generator=generator(5))
    drawn, n = found.fills.flatten(1), 1600
    errors = (covariance.diagonal() / n).sqrt()
    assert ((drawn.mean(0) - mean).abs() < 5 * errors).all()
    spread = ((covariance.diagonal()[:, None] * covariance.diagonal() + covariance.square()) / n).sqrt()
    assert ((torch.cov(drawn.T) - covariance).abs() < 5 * spread).all()
    assert found.log_evidence.shape == (4,) and abs(float(found.log_evidence.mean()) - evidence) < 0.15
    assert torch.allclose(found.log_prob, flow.log_prob(conditional.paste(found.fills)))
    assert torch.equal(found.paths[-1], found.log_prob) and found.paths.shape == (20, n)
    assert found.rhat_nested < 1.05 and found.rhat < 1.3 and found.effective > 400 and 0.4 < found.acceptance < 0.95
    assert len(found.survivors) == len(found.temperatures) == 4 and min(found.survivors) > 20


def test_what_lies_outside_the_cone_is_part_of_the_evidence() -> None:
    flow = random_flow(size=16, channels=1, nlayers=1)
    conditional = inpaint.condition(flow, torch.randn(flow.shape, generator=generator(1), dtype=torch.float64), HOLE)
    outside = float(conditional.outside_log_prob())
    assert abs(outside) > 10
    found = conditional.sample(n=32, steps=4, generator=generator(2))
    shared = generator(2)
    marginal, known = conditional.marginal(2000, 2, shared)
    bare = draw(conditional.cone_log_prob, marginal, known, 32, 4, generator=shared)
    assert torch.equal(bare.fills, found.fills)
    for name in ("log_prob", "paths", "log_evidence"):
        assert torch.allclose(getattr(bare, name) + outside, getattr(found, name)), name


def test_pixels_start_from_patches_beside_the_hole() -> None:
    flow = random_flow(size=8, channels=1)
    x = torch.arange(64, dtype=torch.float64).view(flow.shape) / 64
    conditional = inpaint.condition(flow, x, HOLE)
    found = conditional._patches(100, generator())
    assert len(found) == 64 - 9, "all shifts but those by less than the hole's edge"
    assert not torch.isin(found, x[:, conditional.hole]).any()
    row, column = 64 * found[:, 0] // 8, 64 * found[:, 0] % 8
    assert ((row[:, 2] - row[:, 0]) % 8 == 1).all() and ((column[:, 1] - column[:, 0]) % 8 == 1).all()


def test_the_best_fill_on_the_way_is_kept() -> None:
    def density(fills: Tensor) -> Tensor:
        return -fills.flatten(1).square().sum(1)

    (mode,) = climb(density, torch.Tensor.clone, torch.ones(1, 1, 1), Ascent(lr=0.9, steps=4, patience=100))
    assert mode.path[-1] < mode.path.max() - 0.1, "it has gone too far"
    assert mode.log_prob == mode.path.max() == density(mode.fill[None])


def test_the_best_of_several_climbs_wins(monkeypatch) -> None:
    values = (1.0, 3.0, 2.0)
    modes = [Mode(torch.full((2, 4), v), v, torch.tensor([v]), "converged") for v in values]
    monkeypatch.setattr(holes, "climb", lambda *args: modes)
    flow = random_flow(size=8)
    found = inpaint.condition(flow, torch.zeros(flow.shape, dtype=torch.float64), HOLE).maximise("pixel", kept=3)
    assert (found.fill == 3.0).all()


def test_chains_that_do_not_agree_are_seen() -> None:
    from rgflow.posterior import _agreement

    path = torch.randn(20, 40, generator=generator())
    assert max(_agreement(path, 4)[1:]) < 1.1
    path[:, :10] += 3
    assert min(_agreement(path, 4)[1:]) > 1.3
    standing = path[:1, 10:].repeat(20, 1) + 1e-3 * path[:, 10:]
    effective, rhat, nested = _agreement(standing, 3)
    assert effective < 100 and rhat > 3 and nested < 1.2, "chains that stand still, of populations that agree"


@pytest.mark.parametrize(("space", "starts"), [("latent", 50), ("pixel", 20)])
def test_the_mode_of_a_linear_gaussian_flow_is_its_mean(linear, space: str, starts: int) -> None:
    flow, density = linear
    x = 0.3 * density.sample().view(flow.shape)
    conditional = inpaint.condition(flow, x, HOLE)
    mean, _, _ = conditional_of(density, x, conditional.hole)
    ascent = Ascent(lr=0.02, tolerance=1e-4)
    mode = conditional.maximise(space, starts, ascent=ascent, generator=generator())
    best = float(flow.log_prob(conditional.paste(mean.view(1, 1, -1))).detach())
    assert mode.stopped == "converged" and len(mode.path) < ascent.steps
    assert best - 1e-2 < mode.log_prob <= best + 1e-9
    assert mode.log_prob == pytest.approx(float(flow.log_prob(conditional.paste(mode.fill[None])).detach()), abs=1e-9)
    assert mode.log_prob == pytest.approx(float(mode.path.max()))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("space", ["latent", "pixel"])
def test_many_images_at_once_are_searched_as_one_by_one(space: str, whole: bool) -> None:
    flow = random_flow(size=8, channels=2)
    x = torch.randn(3, *flow.shape, generator=generator(2), dtype=torch.float64)
    make = inpaint.condition_whole if whole else inpaint.condition
    some = {"latents": 50, "generator": generator(8)} if whole else {}
    densities = make(flow, x, HOLE, **some)
    if whole:
        assert not torch.equal(densities[0].free, densities[1].free), "each with latents of its own"
    fills = torch.randn(3, 2, 4, generator=generator(3), dtype=torch.float64)
    z = torch.randn(3, densities[0].latents, generator=generator(4), dtype=torch.float64)
    joint = densities[0]._together(densities)
    each = torch.cat([density.cone_log_prob(row[None]) for density, row in zip(densities, fills)])
    assert torch.allclose(joint.cone_log_prob(fills), each)
    assert torch.allclose(joint.decode(z), torch.cat([d.decode(row[None]) for d, row in zip(densities, z)]))
    ascent, shared = Ascent(steps=15), generator(5)
    together = maximise(densities, space, 6, 2, ascent, generator(5))
    for density, mode in zip(densities, together):
        alone = density.maximise(space, 6, 2, ascent, shared)
        assert alone.log_prob == pytest.approx(mode.log_prob) and torch.allclose(alone.fill, mode.fill)
        assert torch.allclose(alone.path, mode.path) and mode.path[-1] > mode.path[0]


def test_ascent_stays_within_the_grey_levels_and_reports_its_steps(linear) -> None:
    flow, density = linear
    x = density.mean.view(flow.shape) + 30.0  # the mode of the hole is far outside
    conditional = inpaint.condition(flow, x, HOLE)
    for sign in (1, -1):
        conditional = inpaint.condition(flow, sign * x, HOLE)
        mode = conditional.maximise("pixel", 4, ascent=Ascent(steps=60), generator=generator())
        assert float((sign * mode.fill).max()) == pytest.approx(math.log(19)), "at the white, or the black, end"
    short = conditional.maximise("latent", 4, ascent=Ascent(steps=3), generator=generator())
    assert short.stopped == "steps" and len(short.path) == 3


@pytest.mark.parametrize("kind", ["rgflow", "realnvp"])
def test_the_whole_flow_as_a_density_of_fills(kind: str) -> None:
    if kind == "rgflow":
        flow = random_flow(size=8, channels=2)
    else:
        flow = build(RealNVPConfig(channels=2, size=8, nres=1, nhidden=4), generator()).double()
        for p in flow.parameters():
            p.data = 0.1 * torch.randn(p.shape, generator=generator(1), dtype=torch.float64)
    x = torch.randn(flow.shape, generator=generator(2), dtype=torch.float64)
    density = inpaint.condition_whole(flow, x, HOLE)
    fills = torch.randn(3, 2, 4, generator=generator(3), dtype=torch.float64)
    images = filled(x, density.hole, fills)
    assert density.latents == 128 and torch.equal(density.paste(fills), images)
    assert torch.allclose(density.log_prob(fills), flow.log_prob(images))
    z = torch.randn(3, 128, generator=generator(4), dtype=torch.float64)
    whole = flow.decode(z.view(3, *flow.shape))[0]
    assert torch.allclose(density.decode(z), whole[:, :, density.hole])
    if kind == "rgflow":
        local = inpaint.condition(flow, x, HOLE)
        assert torch.allclose(local.log_prob(fills), density.log_prob(fills), rtol=1e-12)
        for mine, other in zip(local.marginal(8, 1, generator()), density.marginal(8, 1, generator())):
            assert mine.shape == other.shape
    part = inpaint.condition_whole(flow, x, HOLE, latents=40, generator=generator(6))
    assert part.latents == 40 == len(part.free[0].unique())
    moved = flow.encode(x[None])[0].flatten().repeat(3, 1)
    moved[:, part.free[0]] = z[:, :40]
    assert torch.allclose(part.decode(z[:, :40]), flow.decode(moved.view(3, *flow.shape))[0][:, :, density.hole])
    assert torch.allclose(part.decode(flow.encode(x[None])[0].flatten()[part.free[0]][None])[0], x[:, density.hole])
    again = inpaint.condition_whole(flow, x, HOLE, latents=40, generator=generator(6))
    assert torch.equal(part.free, again.free)


def test_marginals_are_samples_of_the_flow() -> None:
    flow = random_flow(size=8, channels=1)
    x = torch.randn(flow.shape, generator=generator(2), dtype=torch.float64)
    conditional = inpaint.condition(flow, x, HOLE)
    pixels, known = conditional.marginal(4000, 1, generator())
    hole = conditional.hole
    assert pixels.shape == (4000, 1, 16) and known.shape == (1, 12)
    rim = torch.zeros_like(hole)
    rim[1:5, 2:6] = True
    assert torch.equal(known, x[:, rim & ~hole])
    with torch.no_grad():
        drawn = flow.sample(4000, 1.0, generator(9))
    drawn = torch.cat([drawn[:, :, hole], drawn[:, :, rim & ~hole]], 2)
    error = ((pixels.var(0) + drawn.var(0)) / 4000).sqrt()
    assert ((pixels.mean(0) - drawn.mean(0)).abs() < 4.5 * error).all()
    assert torch.allclose(pixels.std(0), drawn.std(0), rtol=0.12)


def test_a_hole_as_large_as_the_image() -> None:
    flow = random_flow(size=8, channels=1)
    conditional = inpaint.condition(flow, torch.zeros(flow.shape, dtype=torch.float64), (0, 0, 8, 8))
    pixels, known = conditional.marginal(10, 2, generator())
    assert pixels.shape == (10, 1, 64) and known.shape == (1, 0)
    mode = conditional.maximise("pixel", 5, ascent=Ascent(steps=5), generator=generator())  # no patch elsewhere
    assert mode.fill.shape == (1, 64)


def test_wrong_input_names_what_is_allowed() -> None:
    flow = random_flow(size=8, channels=1)
    conditional = inpaint.condition(flow, torch.zeros(flow.shape, dtype=torch.float64), HOLE)
    for call, message in (
        (lambda: conditional.maximise("image"), "space must be latent or pixel, not 'image'"),
        (lambda: conditional.maximise(starts=0), "at least 1, not 0 and 1"),
        (lambda: conditional.sample(n=10, populations=4), "multiple of the populations"),
        (lambda: conditional.sample(n=8, populations=1), "at least 2"),
        (lambda: conditional.sample(n=8, steps=3), "4 steps"),
        (lambda: Ascent(lr=0), "lr must be above 0, not 0"),
        (lambda: conditional.sample(n=8, rim=-1), "rim must be at least 0, not -1"),
        (lambda: conditional.log_prob(torch.zeros(2, 4, 1).double()), r"fills must be \(S, 1, 4\) of torch.float64"),
        (lambda: conditional.log_prob(torch.zeros(2, 1, 4)), "not .2, 1, 4. of torch.float32"),
        (lambda: conditional.update(torch.full((1, 4), math.nan).double()), "the fill is not finite"),
        (lambda: maximise([]), "at least one, all of the same flow and hole"),
        (lambda: maximise([conditional, inpaint.condition(flow, conditional.image, HOLE)]), "same flow and hole"),
        (lambda: inpaint.condition_whole(flow, conditional.image, HOLE, latents=65), "latents must be 1 to 64, not 65"),
        (lambda: inpaint.condition_whole(flow, conditional.image[:, 1:], HOLE), "x must have the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_density_that_is_nowhere_finite_says_so(monkeypatch) -> None:
    flow = random_flow(size=8, channels=1)
    conditional = inpaint.condition(flow, torch.zeros(flow.shape, dtype=torch.float64), HOLE)
    monkeypatch.setattr(Conditional, "cone_log_prob", lambda self, fills: math.nan * fills.sum((1, 2)))
    with pytest.raises(FloatingPointError, match="not finite at any"):
        conditional.maximise(starts=3)
