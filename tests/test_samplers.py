"""Markov chains and annealing on densities whose moments and integrals are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rgflow.margins import Copula, Margins
from rgflow.samplers import Move, anneal, hmc, start


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(d: int, seed: int = 0) -> torch.distributions.MultivariateNormal:
    mix = torch.randn(d, d, generator=generator(seed), dtype=torch.float64) / d**0.5
    covariance = mix @ mix.T + 0.05 * torch.eye(d, dtype=torch.float64)
    return torch.distributions.MultivariateNormal(torch.linspace(-1, 1, d, dtype=torch.float64), covariance)


class Wide:
    """A normal base density."""

    def __init__(self, d: int, std: float) -> None:
        self.d, self.std = d, std

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.std * torch.randn(n, self.d, generator=generator, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        return (-0.5 * (x / self.std).square() - math.log(self.std * math.sqrt(2 * math.pi))).sum(1)


def moved(
    log_prob, x: Tensor, step: float, leaps: int, n: int, scale: Tensor | None, seed: int = 0
) -> tuple[Move, float]:
    """Chains after n proposals, and how many were taken on average."""
    at, taken, random = start(log_prob, x), 0.0, generator(seed)
    for _ in range(n):
        at = hmc(log_prob, at, step, leaps, scale, random)
        taken += float(at.acceptance.mean()) / n
    return at, taken


def close(x: Tensor, target: torch.distributions.MultivariateNormal, sigmas: float = 4.5) -> None:
    """Mean and covariance of independent draws, to within some standard errors of each entry."""
    n, variance = len(x), target.covariance_matrix.diagonal()
    assert ((x.mean(0) - target.mean).abs() < sigmas * (variance / n).sqrt()).all()
    error = ((variance[:, None] * variance + target.covariance_matrix.square()) / n).sqrt()
    assert ((torch.cov(x.T) - target.covariance_matrix).abs() < sigmas * error).all()


@pytest.mark.parametrize(("leaps", "scaled"), [(1, False), (5, True)])
def test_chains_leave_their_density_as_it_is(leaps: int, scaled: bool) -> None:
    target = gaussian(3)
    x = target.mean + torch.randn(4000, 3, generator=generator(1), dtype=torch.float64) @ target.scale_tril.T
    scale = target.scale_tril if scaled else None
    move, taken = moved(target.log_prob, x, 1.0 if scaled else 0.5, leaps, 20, scale, seed=2)
    assert 0.3 < taken < 0.98, "proposals must be refused now and then for this to tell"
    close(move.x, target)
    assert torch.allclose(move.log_prob, target.log_prob(move.x))
    assert torch.allclose(move.gradient, (target.mean - move.x) @ target.precision_matrix)
    assert (move.x - x).norm(dim=1).mean() > 1


def test_no_trajectory_comes_back_to_where_it_started() -> None:
    """Of a Gaussian, with twenty leaps that at half the step would be one period."""
    at = start(lambda x: -0.5 * x.square().sum(1), torch.randn(2000, 1, generator=generator(3), dtype=torch.float64))
    moved = hmc(lambda x: -0.5 * x.square().sum(1), at, 0.2 * math.pi, 20, generator=generator(4))
    assert abs(torch.corrcoef(torch.cat([at.x, moved.x], 1).T)[0, 1]) < 0.2


def test_chains_find_their_density_from_elsewhere() -> None:
    target = gaussian(3)
    x = torch.full((4000, 3), 5.0, dtype=torch.float64)
    close(moved(target.log_prob, x, 0.8, 4, 60, target.scale_tril)[0].x, target)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_proposals_to_where_the_density_is_not_finite_are_refused(value: float) -> None:
    def log_prob(x: Tensor) -> Tensor:  # not finite from 1 on
        return torch.where(x[:, 0] < 1, -0.5 * x.square().sum(1), value)

    move, _ = moved(log_prob, torch.zeros(500, 2), 1.0, 3, 20, None)
    assert move.x.isfinite().all() and (move.x[:, 0] < 1).all() and move.log_prob.isfinite().all()


def test_annealing_gives_samples_and_the_integral() -> None:
    target, constant = gaussian(8), 3.0
    results = [
        anneal(lambda x: target.log_prob(x) + constant, Wide(8, 3.0), 1000, generator=generator(k)) for k in b"abcd"
    ]
    found = torch.tensor([result.log_evidence for result in results], dtype=torch.float64)
    assert abs(float(found.mean()) - constant) < 0.15 and float(found.std()) < 0.3
    for result in results:
        assert result.temperatures[0] == 0 and result.temperatures[-1] == 1
        assert result.temperatures == sorted(result.temperatures) and 10 < result.effective <= 1000
        close(result.x, target, sigmas=8)  # particles share ancestors
        assert torch.allclose(result.log_prob, target.log_prob(result.x) + constant)


def test_particles_that_live_on_are_counted() -> None:
    near, far = (anneal(Wide(2, std).log_prob, Wide(2, 1.0), 200, generator=generator(1)) for std in (1.0, 0.05))
    assert near.effective == pytest.approx(200) and far.effective < 100


def test_annealing_keeps_the_weights_of_two_modes() -> None:
    d, share = 5, 0.3

    def log_prob(x: Tensor) -> Tensor:  # a wide mode at +4 and a narrow one at -4
        wide = math.log(share) - 0.5 * (x - 4).square().sum(1) - 0.5 * d * math.log(2 * math.pi)
        narrow = math.log(1 - share) - 0.5 * (x + 4).square().sum(1) / 0.25 - 0.5 * d * math.log(2 * math.pi * 0.25)
        return torch.logaddexp(wide, narrow)

    shares = [
        float((anneal(log_prob, Wide(d, 5.0), 1000, generator=generator(k)).x[:, 0] > 0).double().mean())
        for k in range(6)
    ]
    found = torch.tensor(shares)
    assert abs(float(found.mean()) - share) < 4 * float(found.std()) / math.sqrt(6) and float(found.std()) < 0.15


def test_annealing_that_does_not_end_says_so() -> None:
    with pytest.raises(RuntimeError, match="more than 3 temperatures"):
        anneal(gaussian(8).log_prob, Wide(8, 50.0), 100, most=3, generator=generator())


def test_particles_where_the_density_is_not_finite_are_lost() -> None:
    def log_prob(x: Tensor) -> Tensor:  # half a Gaussian, NaN elsewhere
        return torch.where(x[:, 0] > -2, -0.5 * x.square().sum(1), math.nan)

    result = anneal(log_prob, Wide(2, 2.0), 500, generator=generator())
    assert result.x.isfinite().all() and (result.x[:, 0] > -2).all()
    share = 0.5 * (1 + math.erf(2 / 2**0.5))
    assert result.log_evidence == pytest.approx(math.log(2 * math.pi * share), abs=0.2)
    with pytest.raises(FloatingPointError, match="finite for 0 of 50 particles"):
        anneal(lambda x: math.nan * x.sum(1), Wide(2, 2.0), 50, generator=generator())


@pytest.mark.parametrize("values", [{"n": 1}, {"moves": 0}, {"keep": 1.0}, {"keep": 0.0}])
def test_annealing_names_what_is_not_allowed(values: dict) -> None:
    with pytest.raises(ValueError, match="n must be at least 2, moves at least 1 and keep in"):
        anneal(gaussian(2).log_prob, Wide(2, 2.0), **{"n": 50, **values})


def black_and_lit(n: int = 4000) -> Tensor:
    """(n, 1, 2): a narrow box, and in a fifth of the pixels a wide one far from it."""
    lit = torch.rand(n, 1, 2, generator=generator(1)) < 0.2
    noise = torch.rand(n, 1, 2, generator=generator(2), dtype=torch.float64)
    return torch.where(lit, 3 * noise, -3 + 0.02 * noise)


def test_margins_are_monotone_maps_to_normal_numbers() -> None:
    samples = black_and_lit()
    margins = Margins(samples)
    t = margins.inverse(samples)
    assert abs(float(t.mean())) < 0.02 and abs(float(t.std()) - 1) < 0.02
    back, ladj = margins.forward(t)
    assert torch.allclose(back, samples, rtol=0, atol=1e-9)
    grid = torch.linspace(-6, 6, 500, dtype=torch.float64).view(-1, 1, 1).expand(-1, 1, 2).clone().requires_grad_()
    x, ladj = margins.forward(grid)
    assert (x.diff(dim=0) > 0).all()
    slope = torch.autograd.grad(x.sum(), grid)[0]
    assert torch.allclose(slope.log().flatten(1).sum(1), ladj)


def test_margins_of_a_narrow_box_in_single_precision() -> None:
    """A black that is certain: 64 pieces of a box of 0.07 at -2.9, some of them smaller than float32 can tell apart."""
    box = -2.94 + 0.074 * torch.rand(4000, 1, 1, generator=generator()).pow(6)
    margins = Margins(box)
    t = margins.inverse(box)
    x, ladj = margins.forward(t)
    assert t.isfinite().all() and ladj.isfinite().all() and (x - box).abs().max() < 1e-5


def test_margins_of_pixels_are_their_own() -> None:
    scales = torch.tensor([[1.0, 2.0, 0.1], [7.0, 1.0, 3.0]], dtype=torch.float64)
    samples = scales * torch.randn(5000, 2, 3, generator=generator(), dtype=torch.float64) + scales
    margins = Margins(samples)
    assert torch.allclose(margins.inverse(samples).std(dim=0), torch.ones(2, 3, dtype=torch.float64), atol=0.02)
    assert torch.allclose(margins.forward(torch.zeros(1, 2, 3, dtype=torch.float64))[0], scales, rtol=0.1)


@pytest.mark.parametrize("rim", [0, 3])
def test_a_copula_of_gaussian_samples_is_their_conditional(rim: int) -> None:
    target = gaussian(2 + rim)
    x = target.mean + torch.randn(40_000, 2 + rim, generator=generator(3), dtype=torch.float64) @ target.scale_tril.T
    known = x[7:8, 2:]
    copula = Copula(x[:, None], known, width=1.0)
    gain = torch.zeros(2, 0).double()
    covariance = target.covariance_matrix
    if rim:
        gain = torch.linalg.solve(covariance[2:, 2:], covariance[2:, :2]).T
    mean = target.mean[:2] + gain @ (known[0] - target.mean[2:])
    rest = covariance[:2, :2] - gain @ covariance[2:, :2]
    t = copula.sample(20_000, generator(4))
    drawn = copula.margins.forward(t[:, None])[0][:, 0]
    assert torch.allclose(drawn.mean(0), mean, atol=0.12)
    assert torch.allclose(torch.cov(drawn.T), rest, atol=0.12 * float(rest.diagonal().max()))
    normal = torch.distributions.MultivariateNormal(copula.mean, scale_tril=copula.factor)
    assert torch.allclose(copula.log_prob(t), normal.log_prob(t))
