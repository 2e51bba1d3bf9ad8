"""Groups of lattice fields, flows averaged over them, and the penalty for a flow that is not symmetric."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from bijectors import wake_up
from torch import nn
from torch.testing import assert_close

from rgflow import symmetry
from rgflow.energies import Ising
from rgflow.flow import Flow, RGFlowConfig, build
from rgflow.priors import Gaussian
from rgflow.symmetry import Symmetrised, asymmetry, group

ORDERS = {
    "none": 1, "flip": 2, "reflections": 4, "square": 8, "flip+reflections": 8, "square+flip": 16,
    "translations": 9, "flip+translations": 18, "translations+square": 72,
}  # fmt: skip


class Shift(nn.Module):
    """z = x - mu."""

    def __init__(self, mu, shape=(1, 2, 2)):
        super().__init__()
        self.mu, self.shape = nn.Parameter(torch.full(shape, mu, dtype=torch.float64)), shape
        self.register_buffer("levels", torch.zeros(shape[1:], dtype=torch.int64))

    def forward(self, x):
        return x - self.mu, x.new_zeros(len(x))

    def inverse(self, z):
        return z + self.mu, z.new_zeros(len(z))


@pytest.fixture
def flow():
    config = RGFlowConfig(channels=1, size=4, block=2, nlayers=2, net="plain", nhidden=8, prior="gaussian")
    return wake_up(build(config).double())


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_groups(name, order):
    """As many elements as they should, closed under products, the identity first, and none changes a number."""
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    elements = group(name, (3, 3))
    images = [tuple(g(x).flatten().tolist()) for g in elements]
    assert len(set(images)) == order == len(elements)
    assert torch.equal(elements[0](x), x)
    assert {tuple(g(h(x)).flatten().tolist()) for g, h in itertools.product(elements, repeat=2)} == set(images)
    assert all(sorted(map(abs, image)) == x.flatten().tolist() for image in images)


@pytest.mark.parametrize("name", ORDERS)
def test_density_is_the_average_and_symmetric(flow, name):
    x, q = torch.randn(3, 1, 4, 4, dtype=torch.float64), Symmetrised(flow, name)
    average = torch.stack([flow.log_prob(g(x)).exp() for g in group(name, (4, 4))]).mean(0).log()
    assert_close(q.log_prob(x), average)
    for g in group(name, (4, 4))[1:12]:
        assert_close(q.log_prob(g(x)), q.log_prob(x))
        assert (flow.log_prob(g(x)) - flow.log_prob(x)).abs().max() > 1e-2


def test_translations_of_a_torus_that_is_not_square():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    images = {tuple(g(x).flatten().tolist()) for g in group("translations", (2, 3))}
    assert len(images) == 6
    assert (5, 3, 4, 2, 0, 1) in images  # one down, one to the right
    with pytest.raises(ValueError, match="as high as wide, not .2, 3."):
        group("translations+square", (2, 3))


def test_long_averages_are_made_in_parts(flow, monkeypatch):
    """A part is no larger than allowed, and the parts are the whole."""
    q, x = Symmetrised(flow, "translations"), torch.randn(5, 1, 4, 4, dtype=torch.float64)
    whole, sizes, plain = q.log_prob(x), [], flow.log_prob

    def counted(y):
        sizes.append(len(y))
        return plain(y)

    monkeypatch.setattr(symmetry, "FIELDS", 7)
    monkeypatch.setattr(flow, "log_prob", counted)
    assert_close(q.log_prob(x), whole)
    assert sum(sizes) == 80 and max(sizes) == 7


def test_averaging_a_trained_flow_brings_it_nearer(flow):
    """Of a density with the symmetry: the divergence falls, and by no more than the logarithm of the group's order."""
    energy = Ising(4, 4.0)
    x = flow.sample(4000, generator=torch.Generator().manual_seed(0))
    gained = flow.log_prob(x).detach() - Symmetrised(flow, "translations").log_prob(x).detach()  # E is the same of both
    assert 0 < float(gained.mean()) - 5 * float(gained.std()) / 4000**0.5
    assert float(gained.max()) <= math.log(16)
    moved = x.roll((1, 3), (-2, -1))
    assert_close(energy(moved), energy(x))


@pytest.mark.parametrize("name", ["none", "flip+square", "translations"])
def test_draws_know_their_density(flow, name):
    q = Symmetrised(flow, name)
    x, log_q = q.sample_and_log_prob(6, torch.Generator().manual_seed(1))
    assert x.shape == (6, *q.shape)
    assert_close(log_q, q.log_prob(x))
    assert torch.equal(x, q.sample(6, torch.Generator().manual_seed(1)))
    log_q.sum().backward()
    assert all(p.grad.isfinite().all() for p in q.parameters())


def test_representatives_are_what_the_flow_draws():
    """Of fields of the average, encoded: the prior again. Elements are chosen by how likely they make the image."""
    q = Symmetrised(Flow(Shift(1.0), Gaussian()), "flip")
    x = q.sample(4000, torch.Generator().manual_seed(0))
    images = q.representative(x, torch.Generator().manual_seed(1))
    assert torch.equal(images.abs(), x.abs())
    z = q.flow.encode(images)[0]
    assert_close(z.mean((0, 1)), torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=0.06)
    assert_close(z.flatten(1).T.cov(), torch.eye(4, dtype=torch.float64), rtol=0, atol=0.1)
    moved = (images != x).flatten(1).any(1)
    assert 0.4 < float(moved.double().mean()) < 0.6
    point = torch.full((4000, 1, 2, 2), 0.1, dtype=torch.float64)  # odds of e^(2 sum x mu) = e^0.8 for staying
    kept = (q.representative(point, torch.Generator().manual_seed(2)) == point).flatten(1).all(1)
    assert float(kept.double().mean()) == pytest.approx(1 / (1 + math.exp(-0.8)), abs=0.02)


def test_all_elements_are_drawn_alike():
    """Draws of N(3, 1) averaged over flips: half of them are near -3."""
    q = Symmetrised(Flow(Shift(3.0), Gaussian()), "flip")
    x = q.sample(4000, torch.Generator().manual_seed(0))
    assert float((x.mean((1, 2, 3)) > 0).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert_close(x.abs().mean(), torch.tensor(3.0, dtype=torch.float64), rtol=0, atol=0.05)


def test_penalty_is_the_divergence():
    """KL(N(mu, 1) | N(-mu, 1)) is 2 mu^2 for each of the four sites; its gradient 4 mu, if draws move along."""
    flow = Flow(Shift(0.5), Gaussian())
    x, log_q = flow.sample_and_log_prob(20000, generator=torch.Generator().manual_seed(0))
    mean = asymmetry(flow, x, log_q, "flip").mean()
    assert float(mean.detach()) == pytest.approx(4 * 2 * 0.25, abs=0.06)
    mean.backward()
    assert_close(flow.bijector.mu.grad, torch.full((1, 2, 2), 2.0, dtype=torch.float64), rtol=0, atol=0.05)
    even = Flow(Shift(0.0), Gaussian())
    x, log_q = even.sample_and_log_prob(9)
    assert_close(asymmetry(even, x, log_q, "flip+square"), torch.zeros(9, dtype=torch.float64))


def test_penalty_averages_over_the_others(flow):
    x, log_q = flow.sample_and_log_prob(4)
    expected = torch.stack([log_q - flow.log_prob(g(x)) for g in group("square", (4, 4))[1:]]).mean(0)
    assert_close(asymmetry(flow, x, log_q, "square"), expected)


@pytest.mark.parametrize("name", ["turn", "flip+flip", "", "none+flip", "reflections+square"])
def test_unknown_groups(name):
    with pytest.raises(
        ValueError, match="symmetry must be none, or some of flip, reflections, square, translations with"
    ):
        group(name, (4, 4))


def test_what_does_not_fit():
    flow = build(RGFlowConfig(channels=1, size=(4, 8), block=2, nlayers=1, net="plain", nhidden=4))
    with pytest.raises(ValueError, match="as high as wide, not .4, 8."):
        Symmetrised(flow, "square")
    with pytest.raises(ValueError, match="not none"):
        asymmetry(flow, torch.zeros(1, 1, 4, 8), torch.zeros(1), "none")


def test_a_line_has_no_rows_and_columns():
    assert len(group("flip", (4,))) == 2
    for name in ("translations", "reflections", "flip+square"):
        with pytest.raises(ValueError, match="needs a lattice of rows and columns, not .4,."):
            group(name, (4,))
