"""What a training step costs beside its matrix products alone: python benchmarks/step.py --config small

The products are those that no implementation of the model can leave out: per half-coupling rows x (d/2 -> h, h -> h
per further hidden layer, h -> d/2), for s and for t, per residual block, times three for forward and backward. Step,
encode, decode and products take turns, so that all see the same machine; medians of the rounds are printed, and the
ratios of each round's times.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from torch import Tensor

from rgflow import RGFlowConfig, build

CONFIGS = {  # name: (config, batch)
    "tiny": (RGFlowConfig(channels=1, size=8, nlayers=2, nres=1, nhidden=32), 16),
    "small": (RGFlowConfig(nlayers=(4, 3, 2, 2), nres=1, nhidden=96), 64),
    "paper": (RGFlowConfig(), 16),
}


@dataclass(frozen=True)
class Options:
    """What to time."""

    config: Literal["tiny", "small", "paper"] = "small"
    """tiny: for tests; small: layers 4,3,2,2, hidden 96, batch 64; paper: layers 8,6,4,2, 4 residual blocks, hidden
    512, batch 16."""
    net: Literal["residual", "plain"] = "residual"
    """Network of the couplings. The list of products stays the residual networks' (for plain: of one block with two
    hidden layers)."""
    tied: bool = True
    """Both halves of a coupling use the same networks."""
    rounds: int = 7
    """Rounds, the first of which is not counted."""
    threads: int = 1
    """Threads of torch."""


def products(config: RGFlowConfig, batch: int) -> list[tuple[int, int, int, int]]:
    """The fixed list of matrix products of one step, as (how often, rows, inputs, outputs)."""
    half = config.channels * config.block**2 // 2
    listed = []
    for level in range(config.geometry.depth + 1):
        nlayers, nres, nmlp, h = (config.per_level(name)[level] for name in ("nlayers", "nres", "nmlp", "nhidden"))
        rows = batch * (config.size[0] >> level) * (config.size[1] >> level) // config.block**2
        blocks = 1 if config.net == "plain" else nres
        hidden = 2 if config.net == "plain" else nmlp
        half_couplings = 2 * config.repeat * 2 * nlayers  # disentangler and decimator, both halves
        often = half_couplings * 2 * blocks * 3  # s and t; forward, and two products in backward
        listed += [(often, rows, half, h), (often * (hidden - 1), rows, h, h), (often, rows, h, half)]
    return listed


def run_products(listed: list[tuple[int, int, int, int]], tensors: dict[tuple[int, int], Tensor]) -> None:
    """Does every product of the list, as often as it says."""
    for often, rows, inputs, outputs in listed:
        x, w = tensors[rows, inputs], tensors[inputs, outputs]
        for _ in range(often):
            x @ w


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(options: Options) -> dict[str, float]:
    """Prints the table and gives its medians."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config, batch = CONFIGS[options.config]
    config = replace(config, net=options.net, tied=options.tied)
    flow = build(config)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-4, weight_decay=5e-5)
    images = torch.randint(0, 256, (batch, *flow.shape), dtype=torch.uint8)
    x = torch.randn(batch, *flow.shape)
    listed = products(config, batch)
    tensors = {shape: torch.randn(shape) for _, r, i, o in listed for shape in ((r, i), (i, o))}

    def step() -> None:
        optimizer.zero_grad()
        flow.bits_per_dim(images).mean().backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()

    def without_gradient(function: Callable) -> Callable[[], None]:
        def call() -> None:
            with torch.no_grad():
                function(x)

        return call

    tasks = {
        "products": lambda: run_products(listed, tensors),
        "step": step,
        "encode": without_gradient(flow.encode),
        "decode": without_gradient(flow.decode),
    }
    rounds = [{name: timed(task) for name, task in tasks.items()} for _ in range(options.rounds)][1:]
    median = {name: statistics.median(r[name] for r in rounds) for name in tasks}
    median["step / products"] = statistics.median(r["step"] / r["products"] for r in rounds)
    median["decode / encode"] = statistics.median(r["decode"] / r["encode"] for r in rounds)
    flops = 2 * sum(often * rows * inputs * outputs for often, rows, inputs, outputs in listed)

    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.threads} thread(s)")
    print(f"{options}, batch {batch}, {sum(p.numel() for p in flow.parameters()):,} parameters")
    for name, value in median.items():
        spread = [r[name] for r in rounds] if name in tasks else [
            r[name.split(" / ")[0]] / r[name.split(" / ")[1]] for r in rounds
        ]  # fmt: skip
        unit = "s" if name in tasks else " "
        print(f"{name:16s} {value:9.4f} {unit}   (lowest {min(spread):.4f}, highest {max(spread):.4f})")
    print(f"products         {flops / 1e9:9.2f} GFLOP, {flops / 1e9 / median['products']:.1f} GFLOP/s")
    return median


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
