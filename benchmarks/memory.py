r"""What a training step keeps in memory, at 1x and 4x the coupling layers: python benchmarks/memory.py

For each of memory = store, checkpoint and reversible: the bytes that autograd has saved when the forward pass ends, and
the peak of all that is alive during the step beside weights, their gradients and the optimizer's moments. Both count
each storage once. The peak sees the output of every operator, transient ones and those of the backward pass too, but no
scratch memory inside an operator. Gradients are compared with those of "store" on random weights. Times are taken in
turns, so that all modes see the same machine; medians of the rounds' ratios are printed.

Last, `predict` for the paper's config and batch. With N_l = B H W / (4^l m^2) the patches of level l, n_l the coupling
layers of its stacks (2, a disentangler and a decimator), Lambda_l = 4 N_l C m^2 the bytes of its lattice, h its hidden
width:

    store       sum over l of 2 n_l layer_l(N_l)  +  3 Lambda_0
    checkpoint  max over l of  sum over j <= l of 2 n_j Lambda_j  +  layer_l(N_l)  +  2 Lambda_l
    reversible  max over l of  sum over j <= l of 2 Lambda_j      +  net_l(N_l)    +  6 Lambda_l + 8 N_l h

layer_l and net_l are what autograd saves in one coupling layer and in one evaluation of its network, prepared weights
included: linear in N, and counted on one and two patches. For the paper's networks net_l is about 16 n_res n_mlp h
bytes per patch. The backward pass goes from the top level down, so at level l what finer levels keep is still there.
The last terms are what it holds beside: lattices and halves with their gradients, and gradients of two hidden layers.
"""

from __future__ import annotations

import math
import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rgflow import Flow, RGFlowConfig, build
from rgflow.results import hardware

MEMORY = ("store", "checkpoint", "reversible")
CONFIGS = {  # name: (config, batch)
    "tiny": (RGFlowConfig(channels=1, size=8, nlayers=1, nres=1, nhidden=64), 32),
    "small": (RGFlowConfig(nlayers=(4, 3, 2, 2), nres=1, nhidden=96), 64),
    "paper": (RGFlowConfig(), 4),
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    config: Literal["tiny", "small", "paper"] = "small"
    """tiny: for tests; small: layers 4,3,2,2, hidden 96, batch 64; paper: layers 8,6,4,2, 4 residual blocks, hidden
    512, batch 4."""
    net: Literal["residual", "plain"] = "residual"
    """Network of the couplings."""
    tied: bool = True
    """Both halves of a coupling use the same networks."""
    batch: int = 0
    """Images; 0: those of the config."""
    factor: int = 4
    """How many times the coupling layers."""
    rounds: int = 5
    """Rounds of timing, the first of which is not counted."""
    threads: int = 1
    """Threads of torch."""


class Alive(TorchDispatchMode):
    """Writes down when the storages that operators make begin and end; those of the given tensors are left out."""

    def __init__(self, left_out: list[Tensor]) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []  # (number of the storage, bytes or minus bytes)
        self.numbers: dict[int, int] = {storage(t): -1 for t in left_out}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and storage(tensor) not in self.numbers:
                key, number, size = storage(tensor), len(self.events), tensor.untyped_storage().nbytes()
                self.numbers[key] = number
                self.events.append((number, size))
                weakref.finalize(tensor.untyped_storage(), self._end, key, number, size)
        return out

    def _end(self, key: int, number: int, size: int) -> None:
        self.events.append((number, -size))
        self.numbers.pop(key, None)

    def peak(self, without: list[Tensor]) -> int:
        """Most bytes alive at once, the storages of the given tensors not counted."""
        skip, now, most = {self.numbers.get(storage(t)) for t in without}, 0, 0
        for number, size in self.events:
            now += 0 if number in skip else size
            most = max(most, now)
        return most


def storage(tensor: Tensor) -> int:
    """A number that names the tensor's storage while it is alive."""
    return tensor.untyped_storage()._cdata


def saved(function: Callable[[], object], left_out: list[Tensor]) -> int:
    """Bytes that autograd holds for the result of the function, the storages of the given tensors not counted."""
    found, skip = [], {storage(t) for t in left_out}

    def pack(tensor: Tensor) -> Tensor:
        found.append(weakref.ref(tensor.untyped_storage()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    alive = {s._cdata: s.nbytes() for ref in found if (s := ref()) is not None}  # some was saved for nothing
    del result
    return sum(size for key, size in alive.items() if key not in skip)


def step_peak(flow: nn.Module, x: Tensor) -> int:
    """Peak bytes of forward and backward pass beside weights, their gradients and x."""
    flow.zero_grad()
    weights = [*flow.parameters(), *flow.buffers()]
    with Alive([*weights, x]) as alive:
        flow.log_prob(x).mean().neg().backward()
    return alive.peak([p.grad for p in flow.parameters()])


def predict(config: RGFlowConfig, batch: int) -> dict[str, int]:
    """Bytes of a training step with Adam in float32: weights, gradients, moments; activations and total of each memory
    mode.

    The formula stands in this file's docstring. It covers couplings between halves; not linear maps, not autocast, not
    the optimizer's own scratch memory, not what an allocator wastes, not the libraries' workspaces.
    """
    stacks, weights, kept, peaks = 2 * config.repeat, 0, dict.fromkeys(MEMORY, 0), dict.fromkeys(MEMORY, 0)
    half = config.channels * config.block**2 // 2
    for level, layers in enumerate(config.per_level("nlayers")):
        patches = batch * math.prod(config.size) // (4**level * config.block**2)
        sizes = {name: config.per_level(name)[level] for name in ("nres", "nmlp", "nhidden")}
        one = awake(build(replace(config, size=config.block, nlayers=1, repeat=1, linear=None, **sizes)))
        layer = one.bijector.steps[0].decimators[0].bijector.layers[0]
        if level == 0 or not config.share_levels:
            weights += 4 * stacks * layers * sum(p.numel() for p in layer.parameters())
        whole = at(layer.forward_halves, layer, half, patches)
        net = at(lambda a, b, layer=layer: (ready := layer.prepare(), layer.theta(a, ready, 0)), layer, half, patches)
        lattice, hidden = 4 * patches * 2 * half, 4 * patches * sizes["nhidden"]
        kept["store"] += stacks * layers * whole
        kept["checkpoint"] += stacks * layers * lattice
        kept["reversible"] += stacks * lattice
        peaks["checkpoint"] = max(peaks["checkpoint"], kept["checkpoint"] + whole + 2 * lattice)
        peaks["reversible"] = max(peaks["reversible"], kept["reversible"] + net + 6 * lattice + 2 * hidden)
    peaks["store"] = kept["store"] + 3 * 4 * batch * config.channels * math.prod(config.size)
    totals = {f"total {memory}": peaks[memory] + 4 * weights for memory in MEMORY}
    return {"weights": weights, "gradients": weights, "moments": 2 * weights, **peaks, **totals}


def at(function: Callable, layer: nn.Module, half: int, patches: int) -> int:
    """What autograd saves in a function of two halves for so many patches, from what it saves for one and two."""

    def count(n: int) -> int:
        halves = [torch.zeros(n, half, requires_grad=True) for _ in "ab"]
        return saved(lambda: function(*halves), [*layer.parameters(), *layer.buffers()])

    one, two = count(1), count(2)
    return one + (two - one) * (patches - 1)


def awake(flow: Flow, std: float = 0.05) -> Flow:
    """The flow with random weights everywhere, as a fresh flow is the identity and its inverse exact; small enough for
    its latents not to leave the range of a trained flow's."""
    torch.manual_seed(0)
    for p in flow.parameters():
        nn.init.normal_(p, std=std)
    return flow


def gradients(flow: nn.Module, x: Tensor) -> Tensor:
    """Of the mean negative log-likelihood, all in one vector."""
    flow.zero_grad()
    flow.log_prob(x).mean().neg().backward()
    return torch.cat([p.grad.flatten() for p in flow.parameters()])


def main(options: Options) -> dict[str, float]:
    """Prints the tables and gives their numbers."""
    torch.set_num_threads(options.threads)
    base, batch = CONFIGS[options.config]
    base, batch = replace(base, net=options.net, tied=options.tied), options.batch or batch
    print(hardware())
    print(f"{options}, batch {batch}")
    numbers: dict[str, float] = {}
    for factor in (1, options.factor):
        config = replace(base, nlayers=tuple(factor * n for n in base.per_level("nlayers")))
        flows = {memory: awake(build(replace(config, memory=memory))) for memory in MEMORY}
        x = torch.randn(batch, *flows["store"].shape)
        reference, rounds = gradients(flows["store"], x), []
        for _ in range(options.rounds):
            rounds.append({})
            for memory, flow in flows.items():
                start = time.perf_counter()
                gradients(flow, x)
                rounds[-1][memory] = time.perf_counter() - start
        predicted = predict(config, batch)
        print(f"{factor}x layers   saved MB   peak MB  predicted   seconds  / store   gradient's difference")
        for memory, flow in flows.items():
            ratio = statistics.median(r[memory] / r["store"] for r in rounds[1:])
            seconds = statistics.median(r[memory] for r in rounds[1:])
            found = gradients(flow, x)
            difference = ((found - reference).norm() / reference.norm()).item()
            left_out = [*flow.parameters(), *flow.buffers(), x]
            forward, peak = saved(partial(flow.log_prob, x), left_out), step_peak(flow, x)
            for name, value in (("peak", peak), ("saved", forward), ("time", ratio), ("difference", difference)):
                numbers[f"{memory} {factor}x {name}"] = value
            numbers[f"{memory} {factor}x predicted"] = predicted[memory]
            print(
                f"{memory:11s} {forward / 1e6:9.2f} {peak / 1e6:9.2f} {predicted[memory] / 1e6:10.2f} {seconds:9.3f} "
                f"{ratio:8.2f}   {difference:.1e}"
            )
    for memory in MEMORY:
        numbers[memory] = numbers[f"{memory} {options.factor}x peak"] / numbers[f"{memory} 1x peak"]
        print(f"{memory:11s} peak at {options.factor}x layers / 1x: {numbers[memory]:.2f}")
    paper = predict(RGFlowConfig(), 1024)
    print("predicted for the paper's config, batch 1024, float32, in GiB:")
    for name, size in paper.items():
        print(f"  {name:16s} {size / 2**30:8.2f}")
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
