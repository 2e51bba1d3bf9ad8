"""What a flow has learned of an energy, against exact values and HMC: python benchmarks/lattice.py --model FILE

Of a model that `rgflow train --energy` wrote (its card says which energy, and which symmetry):

- the variational free energy, log Z by importance sampling, both less the exact one where it is known, the effective
  sample size per draw and the variance of the log-weights;
- observables by importance sampling (of an Ising model those of its spins), beside the exact ones where known and those
  of long HMC chains in the fields;
- the way there: the free energy at the evaluations of its training, as NAME.csv (from the log beside the model);
- the chains themselves: Metropolis whose proposals are draws of the flow, HMC in the fields and, unless the flow is a
  neural ODE, in its latents: acceptance, and how long m^2 is remembered, in steps and in seconds of one chain;
- what the flow leaves out: the log-weights of the fields at which HMC ends (its chains start as noise, not as draws of
  the flow), and with the exact log Z the divergence KL(p | q), which no draw of the flow can tell;
- with `--average GROUP` the same numbers of the flow averaged over a larger group than it was trained with, from the
  same draws (their names begin with "averaged: "; the chains' proposals are still those of the flow).
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor

from rgflow import ODEFlowConfig, checkpoints
from rgflow.autocorrelation import autocorrelation_time, chain_mean, split_r_hat
from rgflow.chains import Chains, hmc_chains, latent_density, metropolis
from rgflow.energies import Energy, Ising, ising_energy
from rgflow.energy_runs import chosen
from rgflow.files import replacing
from rgflow.importance import (
    Draws,
    effective_share,
    free_energy,
    log_z,
    metropolis_acceptance,
    weighted_draws,
    weighted_mean,
)
from rgflow.observables import spin_two_point, structure_factor, two_point
from rgflow.results import hardware, keep
from rgflow.symmetry import Symmetrised, parts

CURVE = ("step", "seconds", "free_energy", "free_energy_error", "test_ess", "variance", "acceptance", "log_z")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: Path
    """File of the model."""
    name: str = ""
    """Of the result; empty: the model's."""
    draws: int = 20000
    """Of the flow, for weights and observables."""
    average: str = ""
    """Group over which the flow is averaged besides, such as flip+translations; it must have that of the card."""
    chains: int = 64
    """Side by side; 0: no chains at all."""
    steps: int = 2000
    """Of Metropolis and of HMC in the fields; a quarter of it in the latents."""
    burn: int = 300
    """Steps of HMC that tune it and are thrown away."""
    seed: int = 0
    """Of all draws."""
    threads: int = 1
    """Threads of torch."""
    keep: bool = False
    """Whether the model is copied beside the numbers, as NAME.safetensors."""
    out: Path = Path("results/runs/lattice")
    """Folder for the numbers, as NAME.json."""


def energy_of(card: dict[str, object]) -> Energy:
    """The energy that a card names.

    ValueError: the model was not trained on an energy.
    """
    if "energy" not in card:
        raise ValueError("the card of this model names no energy; it was trained on images")
    return chosen(card)


def observed(energy: Energy) -> Callable[[Tensor], Tensor]:
    """Observables of fields, (B, 4): m^2, the correlations of neighbours and at half the lattice, and the energy per
    site (of the spins, H / N; of phi^4 E / N). For phi^4 the structure factor at the longest wave takes the place of
    the correlation at half the lattice.
    """
    half, sites = energy.size // 2, energy.size**2

    def spins(x: Tensor) -> Tensor:
        g = spin_two_point(x)
        near = (g[:, 0, 1] + g[:, 1, 0]) / 2
        return torch.stack([energy.squared_magnetisation(x), near, (g[:, 0, half] + g[:, half, 0]) / 2, -2 * near], 1)

    def fields(x: Tensor) -> Tensor:
        g, s = two_point(x), structure_factor(x)
        near, long = (g[:, 0, 1] + g[:, 1, 0]) / 2, (s[:, 0, 1] + s[:, 1, 0]) / 2
        return torch.stack([energy.squared_magnetisation(x), near, long, energy(x) / sites], 1)

    return spins if isinstance(energy, Ising) else fields


def names_of(energy: Energy) -> tuple[str, ...]:
    """Of what `observed` gives, in its order."""
    third = "correlation at half the lattice" if isinstance(energy, Ising) else "structure factor, longest wave"
    return ("m^2", "correlation of neighbours", third, "energy per site")


@torch.no_grad()
def main(options: Options) -> dict[str, float]:
    """Measures, writes and prints."""
    torch.set_num_threads(options.threads)
    flow, card = checkpoints.load(options.model), checkpoints.read_card(options.model)["card"]
    flow = flow.eval().requires_grad_(False)
    energy = energy_of(card).to(flow.dtype)
    model = Symmetrised(flow, "none" if card.get("penalty") else card["symmetry"])
    generator = torch.Generator().manual_seed(options.seed)

    draws = weighted_draws(model, energy, options.draws, generator)
    numbers: dict[str, float] = {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "training steps": card["steps"], "training seconds": card["seconds"],
    }  # fmt: skip
    if energy.log_z is not None:
        numbers["log Z, exact"] = energy.log_z
    if isinstance(energy, Ising):
        numbers["energy per site, exact"] = ising_energy(energy.size, energy.temperature) / energy.size**2
    numbers |= of_draws(draws, energy)
    averaged = larger(model, options.average) if options.average else None
    if averaged:
        numbers |= prefixed("averaged: ", of_draws(again(draws, averaged, energy), energy))

    if options.chains:
        numbers |= of_chains(model, averaged, energy, options, generator)
    name = options.name or Path(options.model).parent.name
    options.out.mkdir(parents=True, exist_ok=True)
    if options.keep:
        checkpoints.save(flow, options.out / f"{name}.safetensors", card)
    keep(options.out / f"{name}.json", replace(options, name=name), numbers)
    copy_curve(options.model.with_name("metrics.csv"), options.out / f"{name}.csv")
    print(hardware())
    print(name, *(f"{key:60s} {value:,.6g}" for key, value in numbers.items()), sep="\n  ")
    return numbers


def of_draws(draws: Draws, energy: Energy) -> dict[str, float]:
    """What draws with their weights say: the free energy, log Z, how good the weights are, observables."""
    weights, sites = draws.log_weights, energy.size**2
    free, found = free_energy(weights), log_z(weights)
    numbers = {
        **put("free energy", free.value, free.standard_error), **put("log Z", found.value, found.standard_error),
        "ESS per draw": float(effective_share(weights)), "variance of log weights": float(weights.var()),
        "acceptance of Metropolis, from weights": metropolis_acceptance(weights),
    }  # fmt: skip
    if energy.log_z is not None:
        numbers |= put("gap per site", (free.value + energy.log_z) / sites, free.standard_error / sites)
        numbers["log Z less exact"] = found.value - energy.log_z
    values = torch.cat([observed(energy)(part) for part in draws.x.split(1000)])
    for name, column in zip(names_of(energy), values.T, strict=True):
        numbers |= put(f"{name}, weighted draws", *weighted_mean(column, weights))
        numbers[f"{name}, draws as they are"] = float(column.mean())
    return numbers


def larger(model: Symmetrised, symmetry: str) -> Symmetrised:
    """The flow of a model averaged over a larger group.

    ValueError: the group does not have that of the model, so that draws of the one are not draws of the other.
    """
    asked = set(parts(symmetry))
    missing = set(parts(model.symmetry)) - asked - ({"reflections"} if "square" in asked else set())
    if missing:
        raise ValueError(f"average must have {', '.join(sorted(missing))}, as the model has, not {symmetry}")
    return Symmetrised(model.flow, symmetry)


def prefixed(words: str, numbers: dict[str, float]) -> dict[str, float]:
    """Numbers by longer names."""
    return {f"{words}{name}": number for name, number in numbers.items()}


def again(draws: Draws, averaged: Symmetrised, energy: Energy) -> Draws:
    """Draws of a flow as draws of its average: a random image of each would be one, and all have the same weight.

    What is observed is the same of all images too.
    """
    log_q = torch.cat([averaged.log_prob(part) for part in draws.x.split(64)])
    return draws._replace(log_weights=-energy(draws.x).double() - log_q.double())


def of_chains(
    model: Symmetrised, averaged: Symmetrised | None, energy: Energy, options: Options, generator: torch.Generator
) -> dict[str, float]:
    """What `measured` says of chains of each kind, and what those of HMC in the fields say of the model."""
    flow, observe, names = model.flow, observed(energy), names_of(energy)

    def field_density(x: Tensor) -> Tensor:
        return -energy(x)

    start = model.sample(options.chains, generator)
    fields = torch.randn(start.shape, dtype=start.dtype, generator=generator)  # draws would hide what a flow leaves out
    kinds: dict[str, Callable[[], Chains]] = {
        "Metropolis": lambda: metropolis(model, energy, options.steps, options.chains, observe, generator),
        "HMC": lambda: hmc_chains(
            field_density, fields, options.steps, observe, options.burn, energy.trajectory, 0.1, generator=generator
        ),
    }
    if not isinstance(flow.config, ODEFlowConfig):
        kinds["HMC in latents"] = lambda: hmc_chains(
            latent_density(flow, energy), flow.encode(start)[0], max(10, options.steps // 4),
            lambda z: observe(flow.decode(z)[0]), options.burn // 3, step=0.2, generator=generator,
        )  # fmt: skip
    numbers = {}
    for kind, run in kinds.items():
        before = time.process_time()
        chains = run()
        numbers |= measured(kind, chains, names, before)
        if kind == "HMC" and f"{kind}: too short" not in numbers:
            numbers |= missed(model, energy, chains.last)
            if averaged:
                numbers |= prefixed("averaged: ", missed(averaged, energy, chains.last))
    return numbers


def copy_curve(log: Path, path: Path) -> None:
    """The rows of a training's log that have a score, with the columns of `CURVE`; nothing if there is no log."""
    if not log.exists():
        return
    with open(log, newline="", encoding="utf-8") as file:
        rows = [[row.get(name, "") for name in CURVE] for row in csv.DictReader(file) if row["free_energy"]]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([CURVE, *rows])


def put(name: str, value: float, error: float) -> dict[str, float]:
    """A number with its standard error."""
    return {name: value, f"{name}: standard error": error}


def missed(model: Symmetrised, energy: Energy, x: Tensor) -> dict[str, float]:
    """What fields x of the energy say of the model: the largest log-weight, and KL(p | q) where log Z is known."""
    weights = -(energy(x) + model.log_prob(x)).double()
    numbers = {"largest log weight of HMC's fields": float(weights.max())}
    if energy.log_z is None or len(x) < 2:
        return numbers
    error = float(weights.std()) / math.sqrt(len(x))
    return numbers | put("KL(p | q)", float(weights.mean()) - energy.log_z, error)


def measured(kind: str, chains: Chains, names: tuple[str, ...], before: float) -> dict[str, float]:
    """What chains say of themselves and of the observables; seconds count from `before`, burning in included."""
    steps, count, _ = chains.values.shape
    seconds = (time.process_time() - before) / steps
    numbers = {
        f"{kind}: acceptance": chains.acceptance, f"{kind}: step": chains.step, f"{kind}: leaps": chains.leaps,
        f"{kind}: steps": steps, f"{kind}: chains": count, f"{kind}: seconds per step of all chains": seconds,
    }  # fmt: skip
    try:
        remembered = autocorrelation_time(chains.values[..., 0])
    except ValueError:  # too short: nothing that follows from it can be said
        return numbers | {f"{kind}: too short": 1}
    numbers |= put(f"{kind}: autocorrelation time of m^2, steps", remembered.time, remembered.standard_error)
    numbers[f"{kind}: seconds per independent field"] = max(1.0, remembered.time) * seconds / count
    numbers[f"{kind}: R-hat of m^2"] = split_r_hat(chains.values[..., 0])
    for name, column in zip(names, chains.values.unbind(2), strict=True):
        try:
            numbers |= put(f"{name}, {kind}", *chain_mean(column))
        except ValueError:
            numbers[f"{name}, {kind}"] = math.nan
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
