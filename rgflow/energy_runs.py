"""`rgflow train --energy`: a flow learns an energy, from no data but its own draws."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence

import torch

from rgflow import flags, results
from rgflow.console import log_to_stderr, say
from rgflow.energies import ENERGIES, Energy
from rgflow.files import check_folder
from rgflow.flow import ODEFlowConfig, RealNVPConfig, RGFlowConfig, build
from rgflow.options import EnergyFlags
from rgflow.recipes import TrainConfig, divided

MODELS = {"rgflow": RGFlowConfig, "realnvp": RealNVPConfig, "ode": ODEFlowConfig}
NEURALRG: dict[str, object] = {
    "block": 2,
    "nlayers": 4,
    "net": "plain",
    "nhidden": 32,
    "tied": False,
    "prior": "gaussian",
    "dtype": "float64",
    "batch_size": 64,
    "schedule": "cosine",
    "steps": 2000,
    "eval_epoch": 5,
    "keep_epoch": 0,
    "plot_epoch": 0,
}  # what differs from the defaults for images: blocks of 2 x 2 and a Gaussian prior are what makes it a NeuralRG
OF = {"ising": ("temperature", "offset"), "phi4": ("kappa", "lam", "channels")}  # flags of one energy only


def train_on_energy(args: Sequence[str]) -> None:
    """Trains a flow on an energy, or goes on with an interrupted run: the same command again.

    The loss is the variational free energy, an upper bound of -log Z; no data are needed.
    """
    kind = MODELS.get(flags.peek(args, "model"), RGFlowConfig)
    defaults = NEURALRG if kind is RGFlowConfig else {**divided(NEURALRG)[1], "prior": "gaussian"}
    defaults = {**defaults, "out_dir": f"runs/{flags.peek(args, 'energy')}"}
    if any(flags.peek(args, name) for name in ("epochs", "minutes")):  # another budget takes the place of this one
        del defaults["steps"]
    about = " ".join(train_on_energy.__doc__.split())
    given = flags.parse("rgflow train", about, [EnergyFlags, kind, TrainConfig], args, defaults, {"out_dir": "-o"})
    recipe, energy = flags.make(TrainConfig, given), chosen(given, args)
    log_to_stderr(recipe.quiet)
    check_folder(recipe.folder)
    config = flags.make(kind, {**given, "channels": energy.shape[0]})
    flow = build(config, torch.Generator().manual_seed(recipe.seed))
    from rgflow.train import Variation, fit_energy  # here, for Lightning takes seconds to import

    run = fit_energy(flow, energy, recipe, flags.make(Variation, given), provenance(args))
    if recipe.quiet:
        return
    say(f"{run.steps} steps, {run.seconds:.0f} s")
    if run.score:
        found, sites = run.score, energy.size**2
        say(f"free energy {found.mean:.4f} +/- {found.standard_error:.4f} nats, ESS {found.ess:.3f} of {found.n} draws")
        line = f"log Z by importance sampling {found.log_z:.4f} +/- {found.log_z_error:.4f}"
        if energy.log_z is not None:
            line += f", exact {energy.log_z:.4f}; F is {(found.mean + energy.log_z) / sites:.5f} per site above exact"
        say(line)
    if run.folder is not None:
        say(f"model: {run.folder / 'model.safetensors'}")


def chosen(given: dict[str, object], args: Sequence[str] = ()) -> Energy:
    """The energy of these flags.

    Raises:
        ValueError: a value that is not allowed, or a flag in args that belongs to another energy.
    """
    name = given["energy"]
    for other, names in OF.items():
        foreign = [key for key in names if other != name and flags.peek(args, key) is not None]
        if foreign:
            raise ValueError(f"{', '.join(foreign)} belongs to the energy {other}, not to {name}")
    return ENERGIES[name](given["size"], **{key: given[key] for key in OF[name]})


def provenance(args: Sequence[str]) -> dict[str, str]:
    """What the card of a model says of the run that made it: command, date and hardware."""
    machine = results.hardware()
    return {
        "command": shlex.join(["rgflow", "train", *flags.without_folders(args)]),
        "date": datetime.date.today().isoformat(),
        "hardware": f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread(s)",
    }
