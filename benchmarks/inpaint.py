"""What it costs to know how likely a fill of a hole is: python benchmarks/inpaint.py

One log_prob of a 4 x 4 hole and its gradient, by the blocks of the hole's cone alone and by the whole flow. Both take
turns, sizes too, so that all see the same machine; medians over rounds, and of each round's ratios. The model shares
its weights between levels, so that every size has the same, drawn at random; they are constants for both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from rgflow import Flow, RGFlowConfig, build, cones
from rgflow.inpaint import condition, plan
from rgflow.local import frozen
from rgflow.results import hardware, keep

BOX = (9, 10, 4, 4)  # rows 9-12, columns 10-13
GOALS = {  # of the ratios, for the default options: (least, most)
    "local 1024 / local 32": (0.0, 3.0),
    "full 1024 / full 32": (150.0, float("inf")),
    "full 1024 / local 1024": (60.0, float("inf")),
    "full 32 / local 32": (1.3, float("inf")),
    "full 32 x16 / local 32 x16": (2.5, float("inf")),
    "full 32 x64 / local 32 x64": (4.0, float("inf")),
    "full 32 half / local 32 half": (1.0, float("inf")),
    **{f"blocks {32 << k}": (31 + 13 * k, 31 + 13 * k) for k in range(6)},
    "latents 32": (732, 732),
    "latents 1024": (2352, 2352),
}


@dataclass(frozen=True)
class Options:
    """What to time."""

    sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    """Edges of the images."""
    candidates: tuple[int, ...] = (16, 64)
    """Numbers of fills that are evaluated at once, at the first size; besides one, at all sizes."""
    nlayers: int = 3
    """Coupling layers of a block."""
    nhidden: int = 96
    """Width of the networks."""
    rounds: int = 9
    """Rounds, the first of which is not counted."""
    least: float = 0.2
    """Seconds that a task has in each round, at least; short ones are called many times."""
    seed: int = 0
    """Of weights and images."""
    threads: int = 1
    """Threads of torch."""
    out: Path | None = None
    """JSON file for the numbers and their conditions."""


def random_flow(options: Options) -> Flow:
    """Weights as built, the same for all levels and sizes, but for what is built as 0: else a flow is the identity."""
    config = RGFlowConfig(size=options.sizes[0], nlayers=options.nlayers, nres=1, nhidden=options.nhidden,
                          share_levels=True)  # fmt: skip
    generator = torch.Generator().manual_seed(options.seed)
    flow = build(config, generator)
    with torch.no_grad():
        for weight in flow.parameters():
            if not weight.any():
                weight.normal_(0, 0.05, generator=generator)
    return flow


def local_task(flow: Flow, x: Tensor, hole: Tensor, fills: Tensor) -> Callable[[], Tensor]:
    """log p and its gradient by the cone."""
    conditional = condition(flow, x, hole)

    def run() -> Tensor:
        free = fills.clone().requires_grad_()
        return torch.autograd.grad(conditional.log_prob(free).sum(), free)[0]

    return run


def full_task(flow: Flow, x: Tensor, hole: Tensor, fills: Tensor) -> Callable[[], Tensor]:
    """log p and its gradient by the whole flow."""

    def run() -> Tensor:
        free = fills.clone().requires_grad_()
        images = x.repeat(len(free), 1, 1, 1)
        images[:, :, hole] = free
        return torch.autograd.grad(flow.log_prob(images).sum(), free)[0]

    return run


def turn(task: Callable[[], Tensor], least: float) -> float:
    """Seconds of one call, the mean of as many as fill `least` seconds, after one that is not counted."""
    task()  # finds the caches and the memory as whatever was before it left them
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < least:
        task()
        calls += 1
    return (time.perf_counter() - start) / calls


def main(options: Options) -> dict[str, float]:
    """Prints counts, times and ratios, and gives them."""
    torch.set_num_threads(options.threads)
    first, generator = random_flow(options), torch.Generator().manual_seed(options.seed)
    tasks: dict[str, Callable[[], Tensor]] = {}
    numbers: dict[str, float] = {}
    for size in options.sizes:
        flow = frozen(first.resized(size))
        x = torch.randn(flow.shape, generator=generator)
        known = plan(flow, BOX)
        hole = condition(flow, x, known).hole
        counted = int(cones.block_counts(flow.geometry, hole).sum())
        numbers |= {f"blocks {size}": int(known.blocks.sum()), f"latents {size}": len(known.sites)}
        if counted != numbers[f"blocks {size}"]:
            raise AssertionError(f"the plan has {numbers[f'blocks {size}']} blocks, cones.block_counts {counted}")
        holes = [(f"{size}", hole, 1)]
        if size == options.sizes[0]:
            half = torch.zeros_like(hole)
            half[: size // 2] = True
            holes += [(f"{size} x{n}", hole, n) for n in options.candidates] + [(f"{size} half", half, 1)]
        for name, mask, n in holes:
            fills = torch.randn(n, flow.shape[0], int(mask.sum()), generator=generator)
            tasks[f"local {name}"], tasks[f"full {name}"] = (f(flow, x, mask, fills) for f in (local_task, full_task))
            mine, other = tasks[f"local {name}"](), tasks[f"full {name}"]()
            numbers[f"gradient {name}"] = float((mine - other).norm() / other.norm())
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(options.rounds):
        for name, task in tasks.items():
            seconds[name].append(turn(task, options.least))
    seconds = {name: values[1:] for name, values in seconds.items()}
    least, most = options.sizes[0], options.sizes[-1]
    pairs = [(f"full {name[6:]}", name) for name in tasks if name.startswith("local")]
    pairs += [(f"{kind} {most}", f"{kind} {least}") for kind in ("local", "full")]
    numbers |= {name: statistics.median(values) for name, values in seconds.items()}
    for a, b in pairs:
        ratios = [p / q for p, q in zip(seconds[a], seconds[b], strict=True)]
        numbers |= {f"{a} / {b}": statistics.median(ratios)}

    print(hardware())
    print(options)
    for name, value in numbers.items():
        goal = ""
        if name in GOALS:
            least, most = GOALS[name]
            goal = f"goal {least:g} to {most:g}: {'met' if least <= value <= most else 'not met'}"
        print(f"{name:32s} {value:12,.4g}   {goal}")
    if options.out is not None:
        keep(options.out, options, numbers)
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
