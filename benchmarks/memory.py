r"""What a training step keeps in memory, at 1x and 4x the coupling layers: python benchmarks/memory.py

For each of memory = store, checkpoint and reversible: the bytes that autograd has saved when the forward pass ends, and
the peak of all that is alive during the step beside weights, their gradients and the optimizer's moments. Both count
each storage once. The peak sees the output of every operator, transient ones and those of the backward pass too, but no
scratch memory inside an operator. Gradients are compared with those of "store" on random weights. Times are taken in
turns, so that all modes see the same machine; medians of the rounds' ratios are printed.

The paper's model with four times the layers takes 8 GiB. --bare counts its bytes on tensors without contents (torch's
device meta), for which every operator says what it would make; nothing is timed, and gradients are compared for one
image. Of --config small the peaks are then the same to 0.6 %.

Last, the prediction of `rgflow.footprint` for the paper's config and batch.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn

from rgflow import Flow, RGFlowConfig, build
from rgflow.couplings import CouplingStack
from rgflow.footprint import MEMORY, predict, saved, step_peak
from rgflow.recipes import PRESETS
from rgflow.results import hardware, keep

CONFIGS = {  # name: (config, batch)
    "tiny": (RGFlowConfig(channels=1, size=8, nlayers=1, nres=1, nhidden=64), 32),
    "small": (RGFlowConfig(**PRESETS["small"]), 64),
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
    bare: bool = False
    """Count bytes on tensors without contents."""
    rounds: int = 5
    """Rounds of timing, the first of which is not counted."""
    threads: int = 1
    """Threads of torch."""
    out: Path | None = None
    """JSON file for the numbers and their conditions."""


def awake(flow: Flow, std: float = 0.05) -> Flow:
    """The flow with random weights everywhere, as a fresh flow is the identity and its inverse exact; small enough for
    its latents not to leave the range of a trained flow's."""
    torch.manual_seed(0)
    for p in flow.parameters():
        nn.init.normal_(p, std=std)
    return flow


def keeping(flow: Flow, memory: str) -> Flow:
    """The flow, whose coupling layers are told to keep what a mode keeps for the backward pass."""
    stacks = [module for module in flow.modules() if isinstance(module, CouplingStack)]
    if not stacks:
        raise ValueError("the flow has no stacks of couplings")
    for stack in stacks:
        stack.memory = memory
    return flow


def step(flow: nn.Module, x: Tensor) -> None:
    """Gradients of the mean negative log-likelihood."""
    flow.zero_grad()
    flow.log_prob(x).mean().neg().backward()


def difference(flow: nn.Module, x: Tensor, reference: list[Tensor]) -> float:
    """How far the gradients are from others, relative to the norm of these, all parameters taken together."""
    step(flow, x)
    off, size = 0.0, 0.0
    for p, other in zip(flow.parameters(), reference, strict=True):
        off += (p.grad - other).square().sum(dtype=torch.float64).item()
        size += other.square().sum(dtype=torch.float64).item()
    return (off / size) ** 0.5


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
        flow = awake(build(config))  # one for all modes: the paper's with four times the layers has 1.4 GB of weights
        x = torch.randn(1 if options.bare else batch, *flow.shape)
        step(flow, x)
        reference, rounds = [p.grad.clone() for p in flow.parameters()], []
        for _ in range(0 if options.bare else options.rounds):
            rounds.append({})
            for memory in MEMORY:
                keeping(flow, memory)
                start = time.perf_counter()
                step(flow, x)
                rounds[-1][memory] = time.perf_counter() - start
        differences = {memory: difference(keeping(flow, memory), x, reference) for memory in MEMORY}
        del reference
        if options.bare:
            flow, x = flow.to("meta"), torch.empty(batch, *flow.shape, device="meta")
        predicted = predict(config, batch)
        print(f"{factor}x layers   saved MB   peak MB  predicted   seconds  / store   gradient's difference")
        for memory in MEMORY:
            keeping(flow, memory)
            seconds = statistics.median(r[memory] for r in rounds[1:]) if rounds else math.nan
            ratio = statistics.median(r[memory] / r["store"] for r in rounds[1:]) if rounds else math.nan
            left_out = [*flow.parameters(), *flow.buffers(), x]
            forward, peak = saved(partial(flow.log_prob, x), left_out), step_peak(flow, x)
            numbers |= {f"{memory} {factor}x peak": peak, f"{memory} {factor}x saved": forward}
            numbers |= {f"{memory} {factor}x time": ratio} if rounds else {}
            numbers[f"{memory} {factor}x difference"] = differences[memory]
            numbers[f"{memory} {factor}x predicted"] = predicted[memory]
            print(
                f"{memory:11s} {forward / 1e6:9.2f} {peak / 1e6:9.2f} {predicted[memory] / 1e6:10.2f} {seconds:9.3f} "
                f"{ratio:8.2f}   {differences[memory]:.1e}"
            )
    for memory in MEMORY:
        numbers[memory] = numbers[f"{memory} {options.factor}x peak"] / numbers[f"{memory} 1x peak"]
        print(f"{memory:11s} peak at {options.factor}x layers / 1x: {numbers[memory]:.2f}")
    paper = predict(RGFlowConfig(), 1024)
    print("predicted for the paper's config, batch 1024, float32, in GiB:")
    for name, size in paper.items():
        print(f"  {name:16s} {size / 2**30:8.2f}")
    if options.out is not None:
        keep(options.out, options, numbers)
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
