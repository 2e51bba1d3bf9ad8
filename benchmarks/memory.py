r"""What a training step keeps in memory, at 1x and 4x the coupling layers: python benchmarks/memory.py

For each of memory = store, checkpoint and reversible: the bytes that autograd has saved when the forward pass ends, and
the peak of all that is alive during the step beside weights, their gradients and the optimizer's moments. Both count
each storage once. The peak sees the output of every operator, transient ones and those of the backward pass too, but no
scratch memory inside an operator. Gradients are compared with those of "store" on random weights. Times are taken in
turns, so that all modes see the same machine; medians of the rounds' ratios are printed.

Last, the prediction of `rgflow.footprint` for the paper's config and batch.
"""

from __future__ import annotations

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


def keeping(flow: Flow, memory: str) -> None:
    """Lets the coupling layers of a flow keep what a mode keeps for the backward pass."""
    stacks = [module for module in flow.modules() if isinstance(module, CouplingStack)]
    if not stacks:
        raise ValueError("the flow has no stacks of couplings")
    for stack in stacks:
        stack.memory = memory


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
        flow = awake(build(config))  # one for all modes: the paper's with four times the layers has 1.4 GB of weights
        x = torch.randn(batch, *flow.shape)
        reference, rounds = gradients(flow, x), []
        for _ in range(options.rounds):
            rounds.append({})
            for memory in MEMORY:
                keeping(flow, memory)
                start = time.perf_counter()
                gradients(flow, x)
                rounds[-1][memory] = time.perf_counter() - start
        predicted = predict(config, batch)
        print(f"{factor}x layers   saved MB   peak MB  predicted   seconds  / store   gradient's difference")
        for memory in MEMORY:
            keeping(flow, memory)
            ratio = statistics.median(r[memory] / r["store"] for r in rounds[1:])
            seconds = statistics.median(r[memory] for r in rounds[1:])
            found = gradients(flow, x)
            difference = (found.sub_(reference).norm() / reference.norm()).item()
            del found
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
    if options.out is not None:
        keep(options.out, options, numbers)
    return numbers


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
