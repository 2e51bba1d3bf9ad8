r"""What a training step keeps in memory: measured, and predicted by a formula.

With N_l = B H W / (4^l m^2) the patches of level l, n_l the coupling layers of its stacks (2, a disentangler and a
decimator), Lambda_l = 4 N_l C m^2 the bytes of its lattice, h its hidden width, the activations of a step take

    store       sum over l of 2 n_l layer_l(N_l)  +  3 Lambda_0
    checkpoint  max over l of  sum over j <= l of 2 n_j Lambda_j  +  layer_l(N_l)  +  2 Lambda_l
    reversible  max over l of  sum over j <= l of 2 Lambda_j      +  net_l(N_l)    +  6 Lambda_l + 8 N_l h

bytes. layer_l and net_l are what autograd saves in one coupling layer and in one evaluation of its network, prepared
weights included: linear in N, and counted on one and two patches. For the paper's networks net_l is about
16 n_res n_mlp h bytes per patch. The backward pass goes from the top level down, so at level l what finer levels keep
is still there. The last terms are what it holds beside: lattices and halves with their gradients, and gradients of two
hidden layers.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rgflow.configs import RGFlowConfig
from rgflow.flow import build

MEMORY = ("store", "checkpoint", "reversible")


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

    The formula is that of this module. It covers couplings between halves (of splines what is kept, but not what their
    backward pass holds for a moment); not linear maps, not autocast, not the optimizer's own scratch memory, not what
    an allocator wastes, not the libraries' workspaces.

    Raises:
        ValueError: another flow, or another coupling.
    """
    if getattr(config, "coupling", None) not in ("affine", "spline"):
        given = getattr(config, "coupling", type(config).__name__)
        raise ValueError(f"only RG-Flows with affine or spline couplings are predicted, not {given}")
    stacks, weights, kept, peaks = 2 * config.repeat, 0, dict.fromkeys(MEMORY, 0), dict.fromkeys(MEMORY, 0)
    half = config.channels * config.block**2 // 2
    for level, layers in enumerate(config.per_level("nlayers")):
        patches = batch * math.prod(config.size) // (4**level * config.block**2)
        sizes = {name: config.per_level(name)[level] for name in ("nres", "nmlp", "nhidden")}
        one = replace(config, size=config.block, nlayers=min(layers, 2), repeat=1, linear=None, **sizes)
        few = build(one, torch.Generator().manual_seed(0))
        *first, last = few.bijector.steps[0].decimators[0].bijector.layers  # the last may be of another kind
        kinds = [(last, 1), *((layer, layers - 1) for layer in first)]
        if level == 0 or not config.share_levels:
            weights += 4 * stacks * sum(often * sum(p.numel() for p in layer.parameters()) for layer, often in kinds)
        wholes = [_at(layer.forward_halves, layer, half, patches) for layer, _ in kinds]
        net, whole = max(_at(partial(_network, layer), layer, half, patches) for layer, _ in kinds), max(wholes)
        lattice, hidden = 4 * patches * 2 * half, 4 * patches * sizes["nhidden"]
        kept["store"] += stacks * sum(size * often for size, (_, often) in zip(wholes, kinds, strict=True))
        kept["checkpoint"] += stacks * layers * lattice
        kept["reversible"] += stacks * lattice
        peaks["checkpoint"] = max(peaks["checkpoint"], kept["checkpoint"] + whole + 2 * lattice)
        peaks["reversible"] = max(peaks["reversible"], kept["reversible"] + net + 6 * lattice + 2 * hidden)
    peaks["store"] = kept["store"] + 3 * 4 * batch * config.channels * math.prod(config.size)
    totals = {f"total {memory}": peaks[memory] + 4 * weights for memory in MEMORY}
    return {"weights": weights, "gradients": weights, "moments": 2 * weights, **peaks, **totals}


def _network(layer: nn.Module, a: Tensor, b: Tensor) -> tuple:
    prepared = layer.prepare()
    return prepared, layer.theta(a, prepared, 0)


def _at(function: Callable, layer: nn.Module, half: int, patches: int) -> int:
    """What autograd saves in a function of two halves for so many patches, from what it saves for one and two."""

    def count(n: int) -> int:
        halves = [torch.zeros(n, half, requires_grad=True) for _ in "ab"]
        return saved(lambda: function(*halves), [*layer.parameters(), *layer.buffers()])

    one, two = count(1), count(2)
    return one + (two - one) * (patches - 1)
