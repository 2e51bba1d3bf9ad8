"""Couplings and their networks on patches."""

from __future__ import annotations

import pytest
import torch
from bijectors import assert_bijector, wake_up
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from rgflow.couplings import AffineCoupling, AutoregressiveCoupling, Chain, Coupling, CouplingStack, SplineCoupling
from rgflow.nets import MaskedResidualNet, ResidualNet
from rgflow.plainnets import PlainNet, SplineNet

pytestmark = pytest.mark.usefixtures("double")

NETS = {
    "plain": lambda half: PlainNet(half, 12),
    "plain, one layer": lambda half: PlainNet(half, 12, nmlp=1),
    "plain, four layers": lambda half: PlainNet(half, 12, nmlp=4),
    "plain, odd": lambda half: PlainNet(half, 12, odd=True),
    "half": lambda half: ResidualNet(half, 2, 2, 12, "half"),
    "half, one block": lambda half: ResidualNet(half, 1, 1, 12, "half"),
    "full": lambda half: ResidualNet(half, 3, 2, 12, "full"),
    "full, one block": lambda half: ResidualNet(half, 1, 2, 12, "full"),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("net", NETS)
def test_affine_coupling_is_a_bijector(net: str, tied: bool) -> None:
    coupling = wake_up(AffineCoupling([NETS[net](6) for _ in range(1 if tied else 2)]))
    assert_bijector(coupling, torch.randn(3, 12))


@pytest.mark.parametrize("nmlp", [1, 2, 3])
def test_a_plain_network_has_so_many_hidden_layers(nmlp: int) -> None:
    net = wake_up(PlainNet(2, 5, nmlp=nmlp))
    assert len(net.layers) == nmlp + 1 and sum(1 for _ in net.parameters()) == 2 * (nmlp + 1) + 1
    x = torch.randn(3, 2)
    h = torch.nn.functional.silu(x @ net.w1.T + net.b1)
    for k in range(2, nmlp + 1):
        h = h + torch.nn.functional.silu(h @ getattr(net, f"w{k}").T + getattr(net, f"b{k}"))
    u = h @ getattr(net, f"w{nmlp + 1}").T + getattr(net, f"b{nmlp + 1}")
    for ours, by_hand in zip(net(x), (net.scale * u[:, :2].tanh(), u[:, 2:]), strict=True):
        torch.testing.assert_close(ours, by_hand)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("pieces", [2, 5])
def test_spline_coupling_is_a_bijector(pieces: int, tied: bool, odd: bool) -> None:
    layers = [SplineCoupling([SplineNet(6, 12, pieces, odd=odd) for _ in range(1 if tied else 2)]) for _ in range(2)]
    assert_bijector(wake_up(layers[0]), torch.randn(3, 12))
    assert_bijector(wake_up(CouplingStack(layers)), torch.randn(3, 12))


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize(("channels", "nres"), [(1, 1), (3, 2)])
def test_autoregressive_coupling_is_a_bijector(channels: int, nres: int, reverse: bool) -> None:
    coupling = AutoregressiveCoupling(MaskedResidualNet(channels, 4, nres, 2, 16), channels, reverse)
    assert_bijector(wake_up(coupling), torch.randn(3, 4 * channels))


class SinhCoupling(Coupling):
    """A map that is not affine, by its two methods alone."""

    def forward_map(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.sinh(x) * s.exp() + t, (x.cosh().log() + s).sum(-1)

    def inverse_map(self, y: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.asinh((y - t) * (-s).exp())
        return x, -(x.cosh().log() + s).sum(-1)


@pytest.mark.parametrize("tied", [True, False])
def test_a_coupling_is_its_pair_of_maps(tied: bool) -> None:
    layers = [SinhCoupling([NETS["half"](4) for _ in range(1 if tied else 2)]) for _ in range(2)]
    assert_bijector(wake_up(layers[0]), 0.5 * torch.randn(3, 8))
    assert_bijector(wake_up(CouplingStack(layers)), 0.5 * torch.randn(3, 8))
    assert next(iter(layers[0].state_dict())).startswith("nets.0.")


def test_each_half_has_its_own_network() -> None:
    """Of two networks the first steers the second half and the second the first; a tied one does both."""
    x, nets = torch.randn(3, 8), [wake_up(NETS["full"](4), std) for std in (0.3, 0.5)]
    for pair in (nets, nets[:1]):
        s, t = pair[0](x[:, :4], pair[0].prepare(), 0)
        b = x[:, 4:] * s.exp() + t
        s, t = pair[-1](b, pair[-1].prepare(), 1)
        assert_close(AffineCoupling(pair)(x)[0], torch.cat([x[:, :4] * s.exp() + t, b], 1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("memory", ["store", "checkpoint"])
def test_stacks_are_bijectors(memory: str) -> None:
    affine = CouplingStack([AffineCoupling([PlainNet(4, 8)]) for _ in range(3)], memory)
    assert_bijector(wake_up(affine), torch.randn(2, 8))
    masked = [AutoregressiveCoupling(MaskedResidualNet(2, 4, 1, 1, 8), 2, j % 2 == 1) for j in range(3)]
    assert_bijector(wake_up(Chain(masked, memory)), torch.randn(2, 8))


@pytest.mark.parametrize("reverse", [False, True])
def test_autoregressive_coupling_sees_earlier_sites_only(reverse: bool) -> None:
    coupling = wake_up(AutoregressiveCoupling(MaskedResidualNet(2, 4, 2, 2, 16), 2, reverse), std=0.6)
    net, prepared = coupling.net, coupling.net.prepare()
    for part in (
        0,
        1,
    ):  # s and t at a site: nothing from the site itself or from later ones, something from all earlier
        sight = jacobian(lambda x, part=part: net(x[None], prepared)[part][0], torch.randn(8)).view(4, 2, 4, 2)
        sight = sight.abs().amax((1, 3))
        assert torch.equal(sight > 0, torch.ones(4, 4).tril(-1).bool())
    whole = jacobian(lambda x: coupling(x[None])[0][0], torch.randn(8)).view(4, 2, 4, 2).abs().amax((1, 3))
    expected = torch.ones(4, 4).triu() if reverse else torch.ones(4, 4).tril()
    assert torch.equal(whole > 0, expected.bool())


def test_successive_autoregressive_layers_reverse_the_order() -> None:
    from rgflow import RGFlowConfig, build

    flow = build(RGFlowConfig(channels=1, size=4, nlayers=3, nres=1, nmlp=1, nhidden=16, coupling="autoregressive"))
    layers = flow.bijector.steps[0].decimators[0].bijector.layers
    assert [layer.reverse for layer in layers] == [False, True, False]


@pytest.mark.parametrize("net", [*NETS, "masked"])
def test_fresh_networks_give_the_identity(net: str) -> None:
    if net == "masked":
        network = MaskedResidualNet(2, 4, 2, 2, 16)
        s, t = network(torch.randn(5, 8), network.prepare())
    else:
        network = NETS[net](6)
        s, t = network(torch.randn(5, 6), network.prepare(), 1)
    assert s.abs().max() == 0 and t.abs().max() == 0


def test_scale_is_bounded() -> None:
    network = wake_up(ResidualNet(6, 2, 2, 12, "half"), std=3.0)
    assert network(1e3 * torch.randn(50, 6), network.prepare())[0].abs().max() <= 1


@pytest.mark.parametrize("side", [0, 1])
def test_full_stream_equals_the_dense_formula(side: int) -> None:
    """The zeros that are never multiplied, against the formula that multiplies them (reference/README)."""
    half, net = 3, wake_up(ResidualNet(3, 3, 2, 5, "full"), std=0.7)
    x = torch.randn(4, half)
    stream = torch.cat([torch.zeros_like(x), x] if side else [x, torch.zeros_like(x)], 1)
    outs = []
    for kind in (0, 1):
        y = stream
        for block in net.blocks:
            r = y
            for linear in block.linears:
                r = r * torch.sigmoid(linear.beta[kind] * r)
                weight = linear.v[kind] * linear.g[kind] / linear.v[kind].norm(dim=1, keepdim=True)
                r = r @ weight.T + linear.bias[kind]
            y = (y + r) / 2**0.5
        outs.append((net.scale[kind] * y)[:, :half] if side else (net.scale[kind] * y)[:, half:])
    s, t = net(x, net.prepare(), side)
    assert_close(s, outs[0].tanh(), rtol=0, atol=1e-12)
    assert_close(t, outs[1], rtol=0, atol=1e-12)


def test_a_swish_scale_of_zero_is_half_the_identity() -> None:
    net = wake_up(ResidualNet(3, 1, 1, 4, "half"))
    with torch.no_grad():
        net.blocks[0].linears[1].beta.zero_()
    x = torch.randn(4, 3)
    s = net(x, net.prepare())[0]
    linear, last = net.blocks[0].linears
    y = (x * torch.sigmoid(linear.beta[0] * x)) @ linear.weight()[0].T + linear.bias[0]
    y = (0.5 * y) @ last.weight()[0].T + last.bias[0]
    assert_close(s, torch.tanh(net.scale[0] * (x + y) / 2**0.5), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1e-3, -0.1, 1.0])
def test_gradient_of_a_swish_scale(value: float) -> None:
    """The scales are folded into the weights; their gradients must still be those of the formula, also near zero."""
    net = wake_up(ResidualNet(3, 1, 1, 4, "half"))
    with torch.no_grad():
        for linear in net.blocks[0].linears:
            linear.beta.fill_(value)
    betas, x = [linear.beta for linear in net.blocks[0].linears], torch.randn(20, 3)
    folded = torch.autograd.grad(sum(v.sum() for v in net(x, net.prepare())), betas)
    y = x.expand(2, -1, -1)
    for linear in net.blocks[0].linears:
        y = (y * torch.sigmoid(linear.beta * y)) @ linear.weight().transpose(1, 2) + linear.bias
    y = net.scale * (x + y) / 2**0.5
    plain = torch.autograd.grad(y[0].tanh().sum() + y[1].sum(), betas)
    for a, b in zip(folded, plain):
        assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_checkpointing_changes_no_gradient() -> None:
    stacks = [
        wake_up(CouplingStack([AffineCoupling([PlainNet(4, 8)]) for _ in range(3)], m)) for m in ("store", "checkpoint")
    ]
    x = torch.randn(5, 8)
    for stack in stacks:
        z, ladj = stack(x)
        (z.square().sum() - ladj.sum()).backward()
    for a, b in zip(stacks[0].parameters(), stacks[1].parameters()):
        assert torch.equal(a.grad, b.grad)


def test_bad_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 4 sites of a block, not 10"):
        MaskedResidualNet(1, 4, 1, 1, 10)
    with pytest.raises(ValueError, match=r"one network \(tied\) or two, not 3"):
        AffineCoupling([PlainNet(2, 4) for _ in range(3)])
