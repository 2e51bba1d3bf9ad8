"""The linear map on patches: a bijection, the identity at first, cheap both ways, safe in every precision."""

from __future__ import annotations

import pytest
import torch
from bijectors import assert_bijector, wake_up
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from rgflow.linears import PatchLinear


def fitted(features: int, spread: float = 100.0) -> PatchLinear:
    """With rows of very different size, as whitening gives them."""
    linear = PatchLinear(features)
    rows = torch.logspace(0, torch.tensor(spread).log10().item(), features, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64)).Q
    linear.fit(rows[:, None] * turn, torch.randn(features))
    return linear


def test_a_fresh_map_is_the_identity() -> None:
    linear, x = PatchLinear(12), torch.randn(5, 12)
    for function in (linear, linear.inverse):
        value, ladj = function(x)
        assert torch.equal(value, x) and torch.equal(ladj, torch.zeros(5))


@pytest.mark.parametrize("features", [1, 4, 12, 16, 48])
@pytest.mark.parametrize("fit", [False, True])
def test_it_is_a_bijection(double, features: int, fit: bool) -> None:
    linear = fitted(features) if fit else PatchLinear(features)
    wake_up(linear, std=0.3 if features < 20 else 0.1)
    assert_bijector(linear, torch.randn(3, features))


def test_it_is_the_formula(double) -> None:
    linear = wake_up(fitted(5), std=0.5)
    factors = linear.factors.detach()
    lower, upper = factors.tril(-1) + torch.eye(5), factors.triu(1) + factors.diagonal().exp().diag()
    x = torch.randn(4, 5)
    z = (lower @ upper @ linear.matrix @ (x - linear.centre).T).T + linear.bias
    found, ladj = linear(x)
    assert_close(found, z, rtol=0, atol=1e-10)
    assert_close(ladj, (linear.matrix.det().abs().log() + factors.trace()).expand(4), rtol=0, atol=1e-10)


def test_gradients_are_those_of_finite_differences(double) -> None:
    linear, x = wake_up(fitted(4)), torch.randn(3, 4, requires_grad=True)

    def call(x: Tensor, factors: Tensor, bias: Tensor, name: str) -> tuple[Tensor, Tensor]:
        given = {"factors": factors, "bias": bias}
        return torch.func.functional_call(Named(linear, name), {f"linear.{k}": v for k, v in given.items()}, (x,))

    for name in ("forward", "inverse"):
        inputs = (x, linear.factors, linear.bias)
        assert torch.autograd.gradcheck(lambda *inputs, name=name: call(*inputs, name), inputs)


class Named(torch.nn.Module):
    """Calls one direction of a bijector by name."""

    def __init__(self, linear: PatchLinear, name: str) -> None:
        super().__init__()
        self.linear, self.name = linear, name

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return getattr(self.linear, self.name)(x)


@given(st.integers(0, 2**31), st.sampled_from([2, 12, 48]))
@settings(max_examples=10)
def test_single_precision_is_enough(seed: int, features: int) -> None:
    """On patches as data have them, that is with whitened features of size 1, where rows differ by a factor of 500."""
    torch.manual_seed(seed)
    linear = fitted(features, 500.0)
    with torch.no_grad():
        linear.factors.copy_(0.05 * torch.randn(features, features))
        z = torch.randn(64, features)
        x, ladj_back = linear.inverse(z)
        again, ladj = linear(x)
        back, _ = linear.inverse(again)
    assert (again - z).abs().max() < 3e-3 and (back - x).abs().max() < 5e-4
    assert torch.equal(ladj, -ladj_back)
    exact, exact_ladj = linear.double()(x.double())
    assert (again - exact).abs().max() < 3e-3
    assert_close(ladj.double(), exact_ladj, rtol=1e-6, atol=1e-5)


def test_a_map_fitted_in_one_precision_is_exact_in_another() -> None:
    """Nothing that is kept beside the matrix (an inverse, a determinant) may be left with the old digits."""
    torch.manual_seed(0)
    linear = fitted(12).double()
    assert_bijector(linear, torch.randn(3, 12, dtype=torch.float64))
    z, ladj = linear.float()(torch.randn(3, 12))
    assert z.dtype == ladj.dtype == torch.float32


def test_autocast_does_not_touch_it() -> None:
    linear, x = wake_up(fitted(12)), torch.randn(6, 12)
    for function in (linear, linear.inverse):
        value, ladj = function(x)
        with torch.autocast("cpu", torch.bfloat16):
            cast, cast_ladj = function(x)
            rounded, _ = function(x.bfloat16())
        assert torch.equal(cast, value) and torch.equal(cast_ladj, ladj)
        assert rounded.dtype == torch.float32


def test_fitting_starts_the_trained_part_again() -> None:
    linear = wake_up(PatchLinear(3))
    matrix, centre, x = torch.tensor([[2.0, 1, 0], [0, 3, 0], [0, 0, -1]]), torch.tensor([1.0, 0, 2]), torch.randn(4, 3)
    linear.fit(matrix, centre)
    z, ladj = linear(x)
    assert_close(z, (x - centre) @ matrix.T)
    assert_close(ladj, torch.tensor(6.0).log().expand(4))
    assert not any(p.any() for p in linear.parameters())
    assert set(dict(linear.named_buffers())) == {"matrix", "centre"} <= set(linear.state_dict())


@pytest.mark.parametrize(
    ("matrix", "centre", "text"),
    [
        (torch.eye(4), torch.zeros(3), r"matrix must be finite and \(3, 3\), not \(4, 4\)"),
        (torch.eye(3), torch.zeros(4), r"centre must be finite and \(3,\), not \(4,\)"),
        (torch.full((3, 3), torch.nan), torch.zeros(3), "matrix must be finite"),
    ],
)
def test_wrong_fits_raise_and_change_nothing(matrix: Tensor, centre: Tensor, text: str) -> None:
    linear = wake_up(PatchLinear(3))
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    with pytest.raises(ValueError, match=text):
        linear.fit(matrix, centre)
    assert all(torch.equal(before[name], value) for name, value in linear.state_dict().items())


def test_it_compiles_in_one_piece() -> None:
    linear, x = wake_up(fitted(4)), torch.randn(6, 4)
    for function in (linear.forward, linear.inverse):
        compiled = torch.compile(function, backend="eager", fullgraph=True)
        for found, expected in zip(compiled(x), function(x), strict=True):
            assert_close(found, expected)
