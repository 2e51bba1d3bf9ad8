"""Neural ODEs: invertible, with the log-determinants of autograd, traces that are exact or unbiased, penalties."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bijectors import assert_bijector, wake_up
from torch import Tensor, nn
from torch.testing import assert_close

from rgflow.ode import NeuralODE, ODEFlowConfig, ode_hierarchy, quadratic_forms, signs
from rgflow.penalties import penalised

TOLERANCE = 1e-8
SMALL = ODEFlowConfig(channels=1, size=(4,), widths=3, nhyper=2, rtol=TOLERANCE, atol=TOLERANCE)
RK4 = replace(SMALL, solver="rk4", nsteps=1)


class Linear(nn.Module):
    """v = A x for a matrix A that acts on the flattened lattice."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def at(self, t: Tensor):
        return lambda x, e: (self._act(x), self._act(e.flatten(0, 1)).view(e.shape).expand(len(e), *x.shape))

    def _act(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).view(x.shape)


@pytest.mark.parametrize(
    ("config", "std"),
    [
        (replace(SMALL, channels=2, size=(3,)), 0.5),
        (replace(SMALL, size=(2, 3), activation="tanh", boundary="reflect"), 0.3),
        (replace(SMALL, size=(1, 2, 2), widths=2, activation="softplus", boundary="zeros"), 0.2),
    ],
)
def test_hierarchies_are_bijectors(double: None, config: ODEFlowConfig, std: float) -> None:
    hierarchy = wake_up(ode_hierarchy(config), std)
    assert_bijector(hierarchy, torch.randn(1, config.channels, *config.size), atol=100 * TOLERANCE)


@pytest.mark.parametrize("solver", ["dopri5", "bosh3"])
def test_there_and_back_is_as_exact_as_the_tolerance(double: None, solver: str) -> None:
    config = replace(SMALL, solver=solver)
    step, x = wake_up(ode_hierarchy(config), 0.4).steps[0], torch.randn(3, 1, 4)
    errors = []
    for tolerance in (1e-3, 1e-7):
        step.config = replace(config, rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            y, ladj = step(x)
            back, ladj_back = step.inverse(y)
        errors.append(max((back - x).abs().max(), (ladj + ladj_back).abs().max()))
        assert errors[-1] < 100 * tolerance
    assert errors[1] < errors[0] / 30


def test_a_linear_velocity_by_hand(double: None) -> None:
    """y = e^A x, log|det| = tr A; with A = a 1 the integral of |v|^2 is |x|^2 a (e^2a - 1) / 2, that of |J|^2 a^2 D."""
    x, a = torch.randn(2, 1, 3), 0.4
    matrix = torch.tensor([[0.1, 0.5, 0.0], [-0.5, 0.2, 0.3], [0.2, 0.0, -0.4]])
    config = replace(SMALL, size=(3,), kinetic=0.0, jacobian=2.0)
    step = NeuralODE(Linear(matrix), (1, 3), config)
    y, ladj = step(x)
    assert_close(y, x @ torch.matrix_exp(matrix).T, rtol=0, atol=1e-6)
    assert_close(ladj, matrix.trace().expand(2), rtol=0, atol=1e-6)
    with penalised(step) as penalties:
        step(x)
    assert_close(penalties.mean(), 2 * matrix.square().sum(), rtol=1e-6, atol=0)
    step = NeuralODE(Linear(a * torch.eye(3)), (1, 3), replace(config, kinetic=3.0, jacobian=0.0))
    energy = 3 * x.square().flatten(1).sum(1).mean() * a * (math.exp(2 * a) - 1) / 2
    for there in (True, False):  # the cost of a path is that of the same path backwards
        with penalised(step) as penalties:
            step(x) if there else step.inverse(math.exp(a) * x)
        assert_close(penalties.mean(), energy, rtol=1e-6, atol=0)


def test_the_way_by_hand_and_its_end_is_the_map(double: None) -> None:
    """With v = a x the way is e^(a t) x, and log|det| is a t D; times in any order."""
    x, a, times = torch.randn(2, 1, 3), 0.4, [0.0, 0.5, 1.0, 0.25]
    step = NeuralODE(Linear(a * torch.eye(3)), (1, 3), replace(SMALL, size=(3,)))
    way, ladj = step.path(x, times)
    factors = torch.tensor(times)
    assert_close(way, (a * factors).exp().view(4, 1, 1, 1) * x, rtol=0, atol=1e-6)
    assert_close(ladj, (3 * a * factors)[:, None].expand(4, 2), rtol=0, atol=1e-6)
    step = wake_up(ode_hierarchy(SMALL), 0.4).steps[0]
    x = torch.randn(3, 1, 4)
    y, total = step(x)
    for times in ([1.0], [0.3, 0.7, 1.0]):
        way, ladj = step.path(x, times)
        assert_close(way[-1], y, rtol=0, atol=1e-6)
        assert_close(ladj[-1], total, rtol=0, atol=1e-6)


def test_penalties_are_those_of_a_mean_map_summed_over_levels(double: None) -> None:
    hierarchy, x = wake_up(ode_hierarchy(replace(RK4, kinetic=1.0))), torch.randn(2, 1, 4)
    with penalised(hierarchy) as once:
        hierarchy(x)
    with penalised(hierarchy) as twice:
        hierarchy(x)
        hierarchy(x)
    assert len(once.terms) == 3 and once.mean() > 0
    assert_close(twice.mean(), once.mean())
    assert_close(once.mean(), sum(term[0].mean() for term in once.terms.values()))
    hierarchy(x)  # not trained: costs nothing
    assert all(len(term) == 1 for term in once.terms.values())
    with penalised(wake_up(ode_hierarchy(replace(RK4, kinetic=0, jacobian=0)))) as free:
        hierarchy(x)
    assert free.mean() == 0.0


@pytest.mark.parametrize("probes", [1, 3])
def test_hutchinsons_estimates_are_unbiased(double: None, probes: int) -> None:
    n, velocity = 3000, wake_up(ode_hierarchy(replace(SMALL, size=(3, 2)))).steps[0].velocity
    field, x = velocity.at(torch.tensor(0.3)), torch.randn(1, 1, 3, 2)
    with torch.no_grad():
        v, *exact = quadratic_forms(field, x, torch.eye(6).view(6, 1, 1, 3, 2), exact=True)
        many = x.expand(n, 1, 3, 2)
        drawn = signs((probes, *many.shape), torch.Generator().manual_seed(probes), many)
        _, *estimates = quadratic_forms(field, many, drawn, exact=False)
    jacobian = torch.autograd.functional.jacobian(lambda u: field(u, u[None])[0], x).view(6, 6)
    assert_close(exact[0][0], jacobian.trace())
    assert_close(exact[1][0], jacobian.square().sum())
    for estimate, value in zip(estimates, exact, strict=True):
        error = estimate.std() / math.sqrt(n)
        assert 0 < error < 0.1 * value.abs() and (estimate.mean() - value).abs() < 4 * error


@pytest.mark.parametrize(("size", "stride", "levels"), [
    ((5,), 2, [0, 1, 0, 2, 0]),
    ((8,), 3, [0, 1, 0, 0, 2, 0, 0, 1]),
    ((1,), 2, [0]),
    ((4, 4), 2, [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 2]]),
    ((3, 1), 2, [[0], [0], [0]]),
    ((2, 2, 2), 2, [[[0, 0], [0, 0]], [[0, 0], [0, 1]]]),
])  # fmt: skip
def test_levels_by_hand(size: tuple[int, ...], stride: int, levels: list) -> None:
    config = replace(RK4, size=size, stride=stride)
    hierarchy = ode_hierarchy(config)
    assert hierarchy.levels.tolist() == levels
    assert len(hierarchy.steps) == len(config.sizes) == int(hierarchy.levels.max()) + 1
    for step, edges in zip(hierarchy.steps, config.sizes):
        kept = step.velocity.net.marks[0].bool()
        assert kept.shape == edges and kept.sum() == (0 if edges == config.sizes[-1] else kept.numel() and math.prod(
            config.sizes[config.sizes.index(edges) + 1]))  # fmt: skip


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_the_adjoint_gives_the_gradients_of_the_solver(double: None, solver: str) -> None:
    """They differ by the error of the solver: that of the tolerance, or of its equal steps."""
    config = replace(SMALL, size=(3,), solver=solver, nsteps=8, rtol=1e-7, atol=1e-7)
    x, gradients = torch.randn(2, 1, 3), []
    for adjoint in (False, True):
        hierarchy = wake_up(ode_hierarchy(replace(config, adjoint=adjoint)))
        at = x.clone().requires_grad_()
        with penalised(hierarchy) as penalties:
            z, ladj = hierarchy(at)
        loss = (z.square().flatten(1).sum(1) / 2 - ladj).mean() + penalties.mean()
        gradients.append(torch.autograd.grad(loss, [at, *hierarchy.parameters()]))
    for direct, adjoint in zip(*gradients, strict=True):
        assert_close(adjoint, direct, rtol=1e-4, atol=1e-4 if solver == "rk4" else 1e-5)
    assert max(float(g.abs().max()) for g in gradients[0][1:]) > 0.1


def test_the_log_density_is_deterministic_and_training_draws_its_probes(double: None) -> None:
    config = replace(RK4, exact=1, exact_training=1)
    hierarchy, x = wake_up(ode_hierarchy(config)), torch.randn(3, 1, 4)
    first = hierarchy.eval()(x)[1]
    torch.manual_seed(1)
    assert torch.equal(hierarchy.train()(x)[1], first)
    assert_close(hierarchy(x[1:])[1], first[1:])  # whoever else is in the batch
    again = wake_up(ode_hierarchy(config))
    assert torch.equal(again(x)[1], first)

    def trained(seed: int) -> Tensor:
        with penalised(hierarchy, torch.Generator().manual_seed(seed)):
            return hierarchy(x)[1]

    assert torch.equal(trained(3), trained(3)) and not torch.equal(trained(3), trained(4))
    assert not torch.equal(trained(3), first) and torch.equal(hierarchy(x)[1], first)


@pytest.mark.parametrize(
    ("exact", "exact_training", "density", "training"),
    [(4, 4, True, True), (4, 3, True, False), (3, 4, False, True), (3, 3, False, False)],
)
def test_which_traces_are_exact(double: None, exact: int, exact_training: int, density: bool, training: bool) -> None:
    config = replace(RK4, exact=exact, exact_training=exact_training)
    step = wake_up(ode_hierarchy(config)).steps[0]
    truth, x = wake_up(ode_hierarchy(RK4)).steps[0], torch.randn(2, 1, 4)
    expected = truth(x)[1]
    assert torch.allclose(step(x)[1], expected) == density
    with penalised(step, torch.Generator().manual_seed(0)):
        assert torch.allclose(step(x)[1], expected) == training


def test_the_estimated_density_sees_the_same_probes_there_and_back(double: None) -> None:
    step, x = wake_up(ode_hierarchy(replace(SMALL, exact=0))).steps[0], torch.randn(2, 1, 4)
    y, ladj = step(x)
    assert_close(step.inverse(y)[1], -ladj, rtol=0, atol=100 * TOLERANCE)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_a_velocity_that_runs_away_is_an_error_that_names_the_level(solver: str) -> None:
    hierarchy = wake_up(ode_hierarchy(replace(SMALL, solver=solver, activation="softplus", rtol=1e-4, atol=1e-4)))
    x = torch.full((1, 1, 4), math.nan)
    if solver == "dopri5":
        with pytest.raises(FloatingPointError, match=r"the ODE of level 0 \(4\) cannot be solved"):
            hierarchy(x)
    else:
        assert hierarchy.nonfinite_level(x) == 0


def test_an_empty_batch_stays_empty() -> None:
    z, ladj = ode_hierarchy(SMALL)(torch.zeros(0, 1, 4))
    assert z.shape == (0, 1, 4) and ladj.shape == (0,)


@pytest.mark.parametrize(("options", "message"), [
    ({"channels": 0}, "channels must be an integer of at least 1, not 0"),
    ({"size": (2, 2, 2, 2)}, "size must be one integer, or one to three edges"),
    ({"size": (0, 2)}, "size must be an integer of at least 1"),
    ({"stride": 1}, "stride must be an integer of at least 2, not 1"),
    ({"kernel": 4}, "kernel must be odd, not 4"),
    ({"widths": (4, 0)}, "widths must be an integer of at least 1"),
    ({"boundary": "open"}, "boundary must be one of circular, zeros, reflect, replicate, not 'open'"),
    ({"activation": "relu"}, "activation must be one of silu, tanh, softplus"),
    ({"solver": "rk45"}, "solver must be one of dopri5,"),
    ({"prior": "cauchy"}, "prior must be one of"),
    ({"bias": 1}, "bias must be True or False, not 1"),
    ({"rtol": 0.0}, "rtol must be a number above 0, not 0.0"),
    ({"atol": math.nan}, "atol must be a number above 0"),
    ({"kinetic": -1.0}, "kinetic must be a number of at least 0, not -1.0"),
    ({"probes": 0}, "probes must be an integer of at least 1, not 0"),
    ({"nhyper": -1}, "nhyper must be an integer of at least 0"),
])  # fmt: skip
def test_what_is_not_allowed_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ODEFlowConfig(**options)


def test_one_number_is_the_edge_of_a_square() -> None:
    assert ODEFlowConfig(size=8).sizes == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert ODEFlowConfig(size=[7], widths=5).sizes == [(7,), (3,), (1,)] and ODEFlowConfig(widths=5).widths == (5,)


def test_the_way_back_of_the_adjoint_sees_no_time_before_the_start(double: None) -> None:
    hierarchy = wake_up(ode_hierarchy(ODEFlowConfig(channels=1, size=(4,), widths=3, nhyper=2, adjoint=True)))
    seen = []
    for step in hierarchy.steps:
        step.velocity.at = lambda t, at=step.velocity.at: seen.append(float(t)) or at(t)
    z, ladj = hierarchy(torch.randn(2, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    (z.square().sum() - ladj.sum()).backward()
    assert min(seen) == 0 and max(seen) == 1
