"""The velocity on a lattice: what lies beyond its edge, derivatives, symmetry, weights in time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from bijectors import wake_up
from torch.testing import assert_close

from rgflow.velocity import ACTIVATIONS, BOUNDARIES, LatticeNet, Velocity, beyond

SIZES = [(5,), (3, 4), (2, 3, 2)]


def net(shape: tuple[int, ...], stride: int = 2, **options: object) -> LatticeNet:
    kept = torch.zeros(shape[1:], dtype=torch.bool)
    kept[(slice(stride // 2, None, stride),) * len(shape[1:])] = True
    return LatticeNet(shape, kept, (3, 2), **options)


def test_beyond_the_edge_by_hand() -> None:
    assert beyond(3, 4, "circular").tolist() == [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert beyond(3, 4, "replicate").tolist() == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert beyond(3, 4, "reflect").tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    for boundary in ("circular", "replicate", "reflect"):
        assert beyond(1, 2, boundary).tolist() == [0] * 5


@pytest.mark.parametrize("boundary", ["circular", "replicate", "reflect"])
def test_beyond_the_edge_is_what_torch_pads(boundary: str) -> None:
    x = torch.arange(5.0).view(1, 1, 5)
    assert F.pad(x, (3, 3), mode=boundary).flatten().tolist() == beyond(5, 3, boundary).tolist()


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_one_layer_is_the_padded_convolution_of_torch(double: None, boundary: str) -> None:
    layer = wake_up(LatticeNet((2, 5, 4), torch.zeros(5, 4, dtype=torch.bool), (), 3, boundary))
    x = torch.randn(2, 2, 5, 4)
    mode = "constant" if boundary == "zeros" else boundary
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), layer.weights[0][:, :2], layer.biases[0])
    assert_close(layer(x, x[None])[0], expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_the_derivatives_of_activations(double: None, name: str) -> None:
    act, slope = ACTIVATIONS[name]
    h = torch.linspace(-20, 20, 101, requires_grad=True)
    assert_close(slope(h), torch.autograd.grad(act(h).sum(), h)[0])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("one_for_all", [True, False])
def test_derivatives_along_directions(double: None, boundary: str, size: tuple[int, ...], one_for_all: bool) -> None:
    f = wake_up(net((2, *size), boundary=boundary, activation="tanh", bias=not one_for_all))
    x, directions = torch.randn(2, 2, *size), torch.randn(3, 1 if one_for_all else 2, 2, *size)
    v, moved = f(x, directions)
    assert v.shape == x.shape and moved.shape == (3, *x.shape)
    for b in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda u: f(u[None], directions[:, :1])[0][0], x[b])
        for p in range(3):
            along = directions[p, 0 if one_for_all else b]
            assert_close(moved[p, b], torch.tensordot(jacobian, along, along.ndim))


@pytest.mark.parametrize(("stride", "size"), [(2, (6,)), (3, (6, 3)), (2, (2, 4, 2))])
def test_the_circular_net_has_the_symmetry_of_its_unit_cell_and_no_more(
    double: None, stride: int, size: tuple[int, ...]
) -> None:
    f = wake_up(net((1, *size), stride, boundary="circular"))
    x = torch.randn(2, 1, *size)
    for axis in range(2, x.ndim):
        v = f(x, x[None])[0]
        shifted, off = (f(x.roll(by, axis), x[None])[0].roll(-by, axis) for by in (stride, 1))
        assert_close(shifted, v)
        assert (off - v).abs().max() > 1e-3, "the net does not see which sites are kept"


def test_weights_are_functions_of_time(double: None) -> None:
    velocity = wake_up(Velocity(net((1, 4)), 3))
    early, late = (velocity.weights(torch.tensor(t)) for t in (0.0, 1.0))
    assert early.keys() == dict(velocity.net.named_parameters()).keys()
    assert all((early[name] - late[name]).abs().max() > 1e-3 for name in early)
    name, first = "weights.0", velocity.net.weights[0]
    change = velocity.mixing[: first.numel()] @ torch.tanh(velocity.rates * 0.25 + velocity.phases)
    assert_close(velocity.weights(torch.tensor(0.25))[name], first + change.view_as(first))


def test_without_a_hypernetwork_time_makes_no_difference() -> None:
    velocity = wake_up(Velocity(net((1, 4)), 0))
    x = torch.randn(2, 1, 4)
    early, late = (velocity.at(torch.tensor(t))(x, x[None])[0] for t in (0.0, 1.0))
    assert torch.equal(early, late) and early.abs().max() > 0


def test_fresh_weights_come_from_the_generator_and_move_nothing() -> None:
    first, second, other = (_fresh(seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.net.weights[0], other.net.weights[0])
    x = torch.randn(2, 1, 4)
    assert not first.at(torch.tensor(0.5))(x, x[None])[0].any()


def _fresh(seed: int) -> Velocity:
    generator = torch.Generator().manual_seed(seed)
    return Velocity(net((1, 4), generator=generator), 3, generator)
