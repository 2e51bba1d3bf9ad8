"""Compiled couplings: the same numbers, the same weights, and the plain flow where nothing can be compiled."""

from __future__ import annotations

import copy
import logging
import shutil
from dataclasses import replace

import pytest
import torch
from bijectors import wake_up
from torch.testing import assert_close

from rgflow import RealNVPConfig, RGFlowConfig, build, compiling
from rgflow.couplings import AffineCoupling
from rgflow.nets import ResidualNet

CONFIG = RGFlowConfig(channels=1, size=8, nlayers=2, nres=1, nmlp=1, nhidden=8)
compile_with_torch = torch.compile


@pytest.fixture
def traced(monkeypatch) -> list:
    """torch.compile without the C++ compiler: the graphs are traced and then run as they are. Counts compilations."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda *args, **kw: compile_with_torch(*args, **kw, backend=backend))
    return graphs


def results(flow: torch.nn.Module, batch: int = 3) -> list[torch.Tensor]:
    """Bits/dim with gradients, latents and images."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, *flow.shape), dtype=torch.uint8, generator=generator)
    noise = torch.rand(images.shape, generator=generator)
    bits = flow.bits_per_dim(images, noise)
    gradients = torch.autograd.grad(bits.mean(), list(flow.parameters()))
    with torch.no_grad():
        z, ladj = flow.encode(noise)
        x, back = flow.decode(z)
    return [bits.detach(), *gradients, z, ladj, x, back]


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler here")
def test_one_block_compiled_for_real() -> None:
    torch._dynamo.reset()
    plain = wake_up(AffineCoupling([ResidualNet(3, 1, 1, 5, "half")]))
    fast = compiling._compiled(AffineCoupling.forward_halves)
    outcomes = []
    for run in (plain.forward_halves, lambda a, b: fast(plain, a, b)):
        a, b = (torch.linspace(-1, 1, 12).view(4, 3) * k for k in (1.0, -2.0))
        a, b = a.requires_grad_(), b.requires_grad_()
        values = run(a, b)
        loss = sum(v.square().sum() for v in values)
        outcomes.append([*values, *torch.autograd.grad(loss, [a, b, *plain.parameters()])])
    assert_close(outcomes[1], outcomes[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [{}, {"net": "plain", "coupling": "spline"}], ids=["residual", "spline"])
@pytest.mark.parametrize("memory", ["store", "checkpoint", "reversible"])
def test_compiled_equals_plain(traced, memory, kind) -> None:
    plain = wake_up(build(replace(CONFIG, memory=memory, **kind)), std=0.1)
    flow = copy.deepcopy(plain)
    assert compiling.compile_flow(flow) > 0
    # One graph without gradients and one with, for both directions; for "reversible" those of the networks' backward;
    # and all that for each kind of coupling.
    assert 3 <= len(traced) <= (12 if kind else 6)
    before = len(traced)
    for batch in (3, 5):
        assert_close(results(flow, batch), results(plain, batch), rtol=1e-5, atol=1e-5)
    assert len(traced) == before, "other batches must not be compiled again"
    assert list(flow.state_dict()) == list(plain.state_dict())
    assert all(p.grad is None for p in flow.parameters())


def test_copies_of_a_compiled_flow_have_their_own_weights(traced) -> None:
    flow = wake_up(build(CONFIG))
    compiling.compile_flow(flow)
    twin = copy.deepcopy(flow)
    before = results(flow)[0]
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(0.5)
    assert torch.equal(results(flow)[0], before)
    assert not torch.allclose(results(twin)[0], before)


def test_nothing_is_drawn(traced) -> None:
    flow = build(CONFIG)
    state = torch.get_rng_state()
    compiling.compile_flow(flow)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("late", [False, True])
def test_a_failed_compilation_leaves_the_plain_flow(late, monkeypatch, caplog) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand a long explanation")

    flow = wake_up(build(CONFIG))
    expected = results(flow)
    monkeypatch.setattr(torch, "compile", (lambda *_, **__: fail) if late else fail)
    with caplog.at_level(logging.WARNING):
        assert compiling.compile_flow(flow) is None
    assert [r.getMessage() for r in caplog.records] == ["compilation failed, the flow runs as it is: no compiler"]
    assert all(torch.equal(a, b) for a, b in zip(results(flow), expected, strict=True))


def test_flows_without_halves_are_left_alone(caplog) -> None:
    assert compiling.compile_flow(build(RealNVPConfig(channels=1, size=8))) is None
    assert "nothing to compile" in caplog.text


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, stream="full", nres=2)])
def test_a_step_does_not_wait_for_the_device(config) -> None:
    """On the meta device, where tensors have no numbers: asking for one (.item(), bool(), float()) is an error."""
    flow = build(config).to("meta")
    images = torch.zeros(2, *flow.shape, dtype=torch.uint8, device="meta")
    x, ladj = flow.decode(flow.encode(torch.zeros(2, *flow.shape, device="meta"))[0])
    assert x.is_meta and ladj.is_meta
    noise = torch.zeros(images.shape, device="meta")
    flow.log_prob(noise).mean().backward()
    assert all(p.grad is not None for p in flow.parameters())
