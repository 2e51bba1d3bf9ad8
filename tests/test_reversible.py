"""Backward by inversion: the gradients are those of stored activations, and nothing grows with the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bijectors import wake_up
from torch import Tensor, nn
from torch.testing import assert_close

from rgflow import Flow, RGFlowConfig, build
from rgflow.couplings import AffineCoupling, Chain, Coupling, CouplingStack, SplineCoupling
from rgflow.footprint import saved
from rgflow.nets import ResidualNet
from rgflow.plainnets import PlainNet, SplineNet
from rgflow.reversible import reversible

HALF = 4
NETS = {
    "plain": lambda: PlainNet(HALF, 8),
    "half": lambda: ResidualNet(HALF, 2, 1, 8, "half"),
    "full": lambda: ResidualNet(HALF, 2, 1, 8, "full"),
    "spline": lambda: SplineNet(HALF, 8, 3),
}
SMALL = RGFlowConfig(channels=1, size=8, nlayers=(3, 2), nres=1, nmlp=1, nhidden=16)
ACCEPTED = RGFlowConfig(nlayers=(16, 12, 8, 8), nres=1, nhidden=96)  # four times the layers of the small config


class CubicNet(nn.Module):
    """Gives two parameters; the second is a constant, so that theta is not all of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(HALF, HALF))

    def prepare(self) -> dict[str, tuple[Tensor, str]]:
        return {"w": (self.w * 0.5, "not a tensor")}

    def forward(self, x: Tensor, prepared: dict, side: int) -> tuple[Tensor, Tensor]:
        return torch.tanh(x @ prepared["w"][0]), torch.full_like(x, 0.1 + side)


class OwnCoupling(Coupling):
    """Scales by a network and by a weight of its own, and leaves the backward pass to autograd."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__(nets)
        self.own = nn.Parameter(torch.zeros(HALF))

    def forward_map(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return (x + t) * (s + self.own).exp(), (s + self.own).sum(-1)

    def inverse_map(self, y: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return y * (-s - self.own).exp() - t, -(s + self.own).sum(-1)


def stack(memory: str, net: str = "half", tied: bool = True, layers: int = 3) -> CouplingStack:
    if net == "own":
        return wake_up(CouplingStack([OwnCoupling([CubicNet()]) for _ in range(layers)], memory))
    nets = [[NETS[net]() for _ in range(1 if tied else 2)] for _ in range(layers)]
    kind = SplineCoupling if net == "spline" else AffineCoupling
    return wake_up(CouplingStack([kind(pair) for pair in nets], memory))


def gradients(loss: Callable[[nn.Module], Tensor], module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    for tensor in (*module.parameters(), *inputs):
        tensor.grad = None
    loss(module).backward()
    return [tensor.grad for tensor in (*inputs, *module.parameters())]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Norm of the difference of all gradients over the norm of the first ones."""
    assert [g is None for g in a] == [g is None for g in b]
    a, b = (torch.cat([g.flatten() for g in grads if g is not None]) for grads in (a, b))
    return ((a - b).norm() / a.norm()).item()


LOSSES = {
    "both": lambda z, ladj: z.square().sum() - (ladj * torch.arange(1.0, 1 + len(ladj))).sum(),
    "value": lambda z, ladj: z.pow(3).sum(),
    "ladj": lambda z, ladj: ladj.square().sum(),
    "one feature": lambda z, ladj: z[:, 1].sin().sum() + z[:, 1].sum(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("net", "tied"), [(n, t) for n in NETS for t in (True, False)] + [("own", True)])
def test_stacks_have_the_gradients_of_store(double, net: str, tied: bool, inverse: bool, loss: str) -> None:
    x, found = torch.randn(5, 2 * HALF, requires_grad=True), {}
    for memory in ("store", "reversible"):
        module = stack(memory, net, tied)
        direction = module.inverse if inverse else module
        value = direction(x)
        found[memory] = [*value, *gradients(lambda _, direction=direction: LOSSES[loss](*direction(x)), module, x)]
    assert all(torch.equal(a, b) for a, b in zip(found["store"][:2], found["reversible"][:2], strict=True))
    for a, b in zip(found["store"][2:], found["reversible"][2:], strict=True):
        assert_close(b, a, rtol=1e-9, atol=1e-11)


FLOWS = {
    "residual": SMALL,
    "untied": replace(SMALL, tied=False),
    "full stream": replace(SMALL, stream="full", channels=2, nres=2),
    "plain": replace(SMALL, net="plain", order="authors"),
    "shared levels": replace(SMALL, nlayers=2, share_levels=True, size=16),
    "spline": replace(SMALL, net="plain", coupling="spline", linear="whitened", tied=False),
    "places": replace(SMALL, net="plain", coupling="spline", places=True),
    "shared levels, plain": replace(SMALL, nlayers=2, share_levels=True, net="plain", tied=False, repeat=2),
    "whitened": replace(SMALL, linear="whitened"),
}


@pytest.mark.parametrize("case", FLOWS)
def test_flows_have_the_gradients_of_store(double, case: str) -> None:
    x, found = torch.randn(3, FLOWS[case].channels, *FLOWS[case].size), {}
    for memory in ("store", "reversible"):
        flow = wake_up(build(replace(FLOWS[case], memory=memory)), std=0.2)
        found[memory] = gradients(lambda flow: flow.log_prob(x).mean(), flow)
        sampled = gradients(
            lambda flow: flow.sample_and_log_prob(2, 1.0, torch.Generator().manual_seed(0))[1].sum(), flow
        )
        found[memory] += sampled
    assert difference(found["store"], found["reversible"]) < 1e-9


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("net", ["residual", "plain"])
def test_gradients_agree_at_the_depth_of_acceptance(net: str, tied: bool) -> None:
    for dtype, bound in ((torch.float32, 1e-3), (torch.float64, 1e-9)):
        found = {}
        for memory in ("store", "reversible"):
            flow = wake_up(build(replace(ACCEPTED, net=net, tied=tied, memory=memory)).to(dtype), std=0.05)
            x = torch.randn(1, *flow.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            found[memory] = gradients(lambda flow, x=x: flow.log_prob(x).mean(), flow)
        assert difference(found["store"], found["reversible"]) < bound


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_a_stack_keeps_its_result_alone(net: str, inverse: bool) -> None:
    x, sizes = torch.randn(50, 2 * HALF), {}
    for layers in (1, 2, 7):
        module = stack("reversible", net, layers=layers)
        function = module.inverse if inverse else module
        sizes[layers] = saved(lambda function=function: function(x), list(module.parameters()))
    assert set(sizes.values()) == {x.numel() * 4}


def test_what_a_flow_keeps_does_not_grow_with_its_layers() -> None:
    sizes = {}
    for memory in ("store", "reversible"):
        for layers in (1, 8):
            flow = build(replace(SMALL, nlayers=layers, memory=memory))
            x = torch.randn(16, *flow.shape)
            sizes[memory, layers] = saved(lambda flow=flow, x=x: flow.log_prob(x), list(flow.parameters()))
    assert sizes["reversible", 8] == sizes["reversible", 1] < sizes["store", 1] / 2
    assert sizes["store", 8] > 6 * sizes["store", 1]


def test_networks_used_several_times_sum_their_gradients(double) -> None:
    x, found = torch.randn(4, 2 * HALF), []
    for memory in ("store", "reversible"):
        shared, other = NETS["half"](), NETS["half"]()
        layers = [AffineCoupling([shared]), AffineCoupling([other, shared]), AffineCoupling([other])]
        module = wake_up(Chain([CouplingStack(layers, memory), CouplingStack(layers[:2], memory)]))
        found.append(gradients(lambda module: module(x)[0].square().sum(), module))
    assert difference(*found) < 1e-12


def test_weights_at_rest_get_no_gradient(double) -> None:
    x, found = torch.randn(4, 2 * HALF), []
    for memory in ("store", "reversible"):
        module = stack(memory)
        for name, p in module.named_parameters():
            p.requires_grad_(not (name.startswith("layers.1") or name.endswith(("v", "scale"))))
        found.append(gradients(lambda module: module(x)[0].square().sum(), module))
    assert 0 < sum(g is None for g in found[1]) < len(found[1])
    assert difference(*found) < 1e-12
    frozen, x = stack("reversible").requires_grad_(False), x.requires_grad_()
    assert not frozen(x.detach())[0].requires_grad
    expected = torch.autograd.grad(stack("store")(x)[0].square().sum(), x)
    assert_close(torch.autograd.grad(frozen(x)[0].square().sum(), x), expected)


def test_a_result_can_be_used_twice_and_go_back_twice(double) -> None:
    x, found = torch.randn(4, 2 * HALF), []
    for memory in ("store", "reversible"):
        module = stack(memory)
        z, ladj = module(x)
        (z.square().sum() + ladj.sum()).backward(retain_graph=True)
        (z * z.detach().roll(1)).sum().backward()
        found.append([p.grad for p in module.parameters()])
    assert difference(*found) < 1e-12


def test_without_gradients_the_layers_run_as_they_are() -> None:
    module, x = stack("reversible"), torch.randn(4, 2 * HALF)
    with torch.no_grad():
        assert module(x)[0].grad_fn is None
    with torch.inference_mode():
        assert torch.equal(module(x)[0], stack("store")(x)[0])
    a, b, ladj = reversible([], x[:, :HALF], x[:, HALF:])
    assert torch.equal(torch.cat([a, b], 1), x) and not ladj.any()


@pytest.mark.parametrize("net", ["half", "plain"])
@pytest.mark.parametrize("whole", [False, True])
def test_autocast_is_the_same_in_both_passes(net: str, whole: bool) -> None:
    """The networks work in bfloat16 in the backward pass too, whether that is inside the region of autocast or not."""
    x, found = torch.randn(64, 2 * HALF), []
    for memory, bf16 in (("store", True), ("reversible", True), ("store", False)):
        module = stack(memory, net)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            z, ladj = module(x)
            loss = z.square().sum() - ladj.sum()
            if whole:
                loss.backward()
        if not whole:
            loss.backward()
        found.append([p.grad for p in module.parameters()])
        assert z.dtype == ladj.dtype == torch.float32
    rounded = difference(found[0], found[2])
    assert difference(found[0], found[1]) < rounded / 2 and 1e-4 < rounded < 0.1


def test_what_cannot_be_done_is_said() -> None:
    x = torch.randn(4, 2 * HALF, requires_grad=True)
    (grad,) = torch.autograd.grad(stack("reversible")(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="trying to differentiate twice"):
        grad.sum().backward()
    module = stack("reversible")
    loss = module(x)[0].sum()
    with torch.no_grad():
        next(module.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = module(x)[0].sum()
    next(module.parameters()).requires_grad_(False)
    with pytest.raises(RuntimeError, match="must have the weights of the forward pass in the backward pass"):
        loss.backward()
    with pytest.raises(ValueError, match='memory "reversible" would invert .* memory must be store or checkpoint'):
        replace(SMALL, coupling="autoregressive", memory="reversible")


class Loss(nn.Module):
    """The training loss as a forward pass, which is what DDP watches."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x).mean()


@pytest.mark.parametrize("share", [False, True])
def test_ddp_takes_every_gradient_once(tmp_path: Path, share: bool) -> None:
    config = replace(SMALL, nlayers=2, share_levels=share, memory="reversible")
    flow, x = wake_up(build(config), std=0.2), torch.randn(3, 1, 8, 8)
    alone = [g.clone() for g in gradients(lambda flow: flow.log_prob(x).mean(), flow)]
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Loss(flow))
        for _ in range(2):
            together = gradients(lambda wrapped: wrapped(x), wrapped)
            assert difference(alone, together) == 0
    finally:
        torch.distributed.destroy_process_group()
