"""What a training step costs beside its matrix products alone: python benchmarks/step.py --config small

The products are those that no implementation of the model can leave out: per half-coupling rows x (d/2 -> h, h -> h
per further hidden layer, h -> d/2), for s and for t, per residual block, times three for forward and backward, in
float32, each on tensors that lie in the cache. "true products" are as many, but the two of the backward pass have the
shapes they have there (gradient x weights transposed, inputs transposed x gradient). Step, encode, decode and both
kinds of products take turns, so that all see the same machine; medians of the rounds are printed, and of the ratios of
each round's times. On a machine that others use too, look at --clock cpu.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_type_hints

import torch
import tyro
from torch import Tensor

from rgflow import RGFlowConfig, build
from rgflow.compiling import compile_flow, no_kept_kernels
from rgflow.recipes import PRESETS
from rgflow.results import hardware, keep

KINDS = get_type_hints(RGFlowConfig)  # the values that a field allows
Net, Coupling, Linear, Memory = KINDS["net"], KINDS["coupling"], KINDS["linear"], KINDS["memory"]
CONFIGS = {  # name: (config, batch)
    "tiny": (RGFlowConfig(channels=1, size=8, nlayers=2, nres=1, nhidden=32), 16),
    "small": (RGFlowConfig(**PRESETS["small"]), 64),
    "paper": (RGFlowConfig(), 16),
}


@dataclass(frozen=True)
class Options:
    """What to time."""

    config: Literal["tiny", "small", "paper"] = "small"
    """tiny: for tests; small: layers 4,3,2,2, hidden 96, batch 64; paper: layers 8,6,4,2, 4 residual blocks, hidden
    512, batch 16."""
    net: Net = "residual"
    """Network of the couplings. The list of products stays the residual networks' (for plain: of one
    block)."""
    tied: bool = True
    """Both halves of a coupling use the same networks."""
    coupling: Coupling = "affine"
    """Kind of coupling; the list of products stays that of affine ones."""
    linear: Linear = None
    """Linear maps of the decimators."""
    memory: Memory = "store"
    """What is kept for the backward pass."""
    precision: Literal["32", "bf16"] = "32"
    """bf16: under autocast; log-determinants stay in float32. The products stay in float32."""
    compile: bool = False
    """Compile the couplings first; the seconds it takes without kernels kept from earlier are printed."""
    clock: Literal["wall", "cpu"] = "wall"
    """Time that passes, or time of the processor on this process."""
    rounds: int = 7
    """Rounds, the first of which is not counted."""
    threads: int = 1
    """Threads of torch."""
    out: Path | None = None
    """JSON file for the numbers and their conditions."""


def products(config: RGFlowConfig, batch: int) -> list[tuple[int, int, int, int]]:
    """The fixed list of matrix products of one step, as (how often, rows, inputs, outputs)."""
    half = config.channels * config.block**2 // 2
    listed = []
    for level in range(config.geometry.depth + 1):
        nlayers, nres, nmlp, h = (config.per_level(name)[level] for name in ("nlayers", "nres", "nmlp", "nhidden"))
        rows = batch * (config.size[0] >> level) * (config.size[1] >> level) // config.block**2
        blocks = 1 if config.net == "plain" else nres
        half_couplings = 2 * config.repeat * 2 * nlayers  # disentangler and decimator, both halves
        often = half_couplings * 2 * blocks * 3  # s and t; forward, and two products in backward
        listed += [(often, rows, half, h), (often * (nmlp - 1), rows, h, h), (often, rows, h, half)]
    return listed


def run_products(listed: list[tuple[int, int, int, int]], tensors: dict[tuple[int, int], Tensor]) -> None:
    """Does every product of the list, as often as it says."""
    for often, rows, inputs, outputs in listed:
        x, w = tensors[rows, inputs], tensors[inputs, outputs]
        for _ in range(often):
            x @ w


def run_true_products(listed: list[tuple[int, int, int, int]], tensors: dict[tuple[int, int], Tensor]) -> None:
    """The same number of products with the shapes that forward and backward have."""
    for often, rows, inputs, outputs in listed:
        x, w, grad = tensors[rows, inputs], tensors[inputs, outputs], tensors[rows, outputs]
        for _ in range(often // 3):
            x @ w
            grad @ w.t()
            x.t() @ grad


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    function()
    return clock() - start


def main(options: Options) -> dict[str, float]:
    """Prints the table and gives its medians."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config, batch = CONFIGS[options.config]
    fields = ("net", "tied", "coupling", "linear", "memory")
    config = replace(config, **{name: getattr(options, name) for name in fields})
    flow = build(config)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-4, weight_decay=5e-5, fused=True)
    images = torch.randint(0, 256, (batch, *flow.shape), dtype=torch.uint8)
    x = torch.randn(batch, *flow.shape)
    listed = products(config, batch)
    shapes = {shape for _, r, i, o in listed for shape in ((r, i), (i, o), (r, o))}
    tensors = {shape: torch.randn(shape) for shape in shapes}
    autocast = torch.autocast("cpu", torch.bfloat16) if options.precision == "bf16" else contextlib.nullcontext()
    seconds = None
    if options.compile:
        with autocast, no_kept_kernels():
            seconds = compile_flow(flow, batch)

    def step() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = flow.bits_per_dim(images).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()

    def without_gradient(function: Callable) -> Callable[[], None]:
        def call() -> None:
            with torch.no_grad(), autocast:
                function(x)

        return call

    tasks = {
        "products": lambda: run_products(listed, tensors),
        "true products": lambda: run_true_products(listed, tensors),
        "step": step,
        "encode": without_gradient(flow.encode),
        "decode": without_gradient(flow.decode),
    }
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    rounds = [{name: timed(task, clock) for name, task in tasks.items()} for _ in range(options.rounds)][1:]
    pairs = [("step", "products"), ("step", "true products"), ("decode", "encode")]
    values = {name: [r[name] for r in rounds] for name in tasks}
    values |= {f"{a} / {b}": [r[a] / r[b] for r in rounds] for a, b in pairs}
    median = {name: statistics.median(numbers) for name, numbers in values.items()}
    flops = 2 * sum(often * rows * inputs * outputs for often, rows, inputs, outputs in listed)

    print(hardware())
    print(f"{options}, batch {batch}, {sum(p.numel() for p in flow.parameters()):,} parameters")
    for name, numbers in values.items():
        unit = "s" if name in tasks else " "
        print(f"{name:21s} {median[name]:9.4f} {unit}   (lowest {min(numbers):.4f}, highest {max(numbers):.4f})")
    print(f"{'products':21s} {flops / 1e9:9.2f} GFLOP, {flops / 1e9 / median['products']:.1f} GFLOP/s")
    if options.compile:
        print(f"compilation           {f'{seconds:9.1f} s' if seconds else 'failed: these are the plain couplings'}")
        median["compilation"] = seconds
    if options.out is not None:
        keep(options.out, options, median)
    return median


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    main(tyro.cli(Options, description=__doc__))
