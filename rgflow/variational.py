"""Training of a flow on an energy: the reverse Kullback-Leibler divergence, its evaluation and its log."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from rgflow.callbacks import SAMPLES, Evaluation, Journal
from rgflow.chains import hmc_chains, latent_density
from rgflow.descent import Descent, keyed
from rgflow.energies import Energy
from rgflow.flow import Flow
from rgflow.importance import effective_share, free_energy, log_z, metropolis_acceptance, weighted_draws
from rgflow.penalties import Penalised, penalised
from rgflow.persistent import PersistentChains
from rgflow.recipes import TrainConfig
from rgflow.symmetry import Symmetrised, asymmetry
from rgflow.variations import Variation

EPOCH = 100  # steps that count as one
STEP, SCORE, PICTURE, CHAINS, PROBES, FIELDS = range(6)  # streams of random numbers
CHAINS_PER_DRAW = 8  # persistent chains for each of those that a step looks at
COLUMNS = ("step", "epoch", "seconds", "lr", "loss", "loss_std", "ess", *(
    "free_energy", "free_energy_error", "test_ess", "log_z", "log_z_error", "variance", "acceptance",
    "acceptance_x", "acceptance_z", "squared_x", "squared_z",
))  # fmt: skip


class EnergyScore(NamedTuple):
    """An evaluation, in nats of the whole field; n draws.

    Of neural ODEs with more numbers in a step than `ODEFlowConfig.exact` it is an estimate, and the mean no bound: the
    log-density is then one of fixed probes.

    Arguments:
        mean: the variational free energy, at least -log Z.
        standard_error: of it.
        ess: effective sample size per draw.
        log_z, log_z_error: by importance sampling.
        variance: of the log-weights, nats^2.
        acceptance: of Metropolis with draws of the flow as proposals.
        acceptance_x, acceptance_z: of HMC in the fields and in the latents; nan without.
        squared_x, squared_z: m^2 at the end of these chains, see `Energy.squared_magnetisation`.
    """

    mean: float
    standard_error: float
    n: int
    ess: float
    log_z: float
    log_z_error: float
    variance: float
    acceptance: float
    acceptance_x: float = math.nan
    acceptance_z: float = math.nan
    squared_x: float = math.nan
    squared_z: float = math.nan


class EnergyTraining(Descent):
    r"""The training step of a flow on an energy.

    .. math:: \text{loss} = \frac1D \bigl( E_{x \sim q}[\log q(x) + E(x) + \text{penalty} \cdot a(x)] +
        \text{penalties} \bigr),

    D the numbers in a field, with what bijectors such as neural ODEs add (see `penalties`). Without penalties it is the
    variational free energy per number, at least :math:`-\log Z / D`, and its distance from that KL(q | p) / D. Where
    the trace of an ODE is estimated it is that in the mean, or more (its forward part, or less): averaging over a group
    is convex in log q. The draws of step k depend on (seed, k) only.

    With `Variation.forward` = a the first part is, of fields y of chains,

    .. math:: (1 - a) E_{x \sim q}[\log q(x) + E(x)] - a E_{y \sim p}[\log q(y)].

    The log has, of each batch: the mean of log q + E and its standard deviation over draws, nats of the whole field,
    and the effective sample size per draw.

    Source: Li & Wang 2018 (arXiv:1802.02840), eq. 3; chains beside it after Tieleman 2008 and Gabrie, Rotskoff &
        Vanden-Eijnden 2022, whose chains also take draws of the flow.
    """

    score_type, score_names = EnergyScore, ("free_energy", "free_energy_error", "draws", *EnergyScore._fields[3:])

    def __init__(
        self,
        flow: Flow,
        energy: Energy,
        recipe: TrainConfig,
        record: dict[str, dict[str, object]],
        variation: Variation,
    ) -> None:
        if variation.gradient == "path" and any(isinstance(module, Penalised) for module in flow.modules()):
            raise ValueError("gradient must be total for neural ODEs")
        memory = getattr(flow.config, "memory", "store")
        if variation.gradient == "path" and memory != "store":
            raise ValueError(f"gradient must be total with memory {memory}, which evaluates the networks again")
        super().__init__(flow, recipe, record, EPOCH)
        self.energy, self.variation = energy, variation
        self.fields = PersistentChains(energy, CHAINS_PER_DRAW * recipe.batch_size) if variation.forward else None
        self.moved: tuple[Tensor, Tensor] | None = None  # chains of the last loss, and where a step takes them

    @property
    def model(self) -> Symmetrised:
        """The density that is trained, see `Variation.model`."""
        return self.variation.model(self.flow)

    def check(self, ranks: int) -> None:
        if ranks > 1:
            raise ValueError(f"training on an energy runs on one device, not {ranks}")

    def begin(self) -> None:
        if self.fields:
            self.fields.begin(self.flow.dtype, self.device, self.generator(FIELDS))

    def generator(self, stream: int, step: int = 0) -> torch.Generator:
        """Random numbers that depend on (seed, stream, step) only."""
        return keyed(self.recipe.seed, stream, step, device=self.device)

    def train_dataloader(self) -> Iterator[int]:
        return itertools.repeat(0)  # what a step needs it draws itself

    def training_step(self, batch: object, _: int) -> Tensor:
        loss, self.bits = self._loss(self.global_step, now=not self.lazy)
        if self.fields:
            self.fields.keep(*self.moved)
        return loss

    def again(self, step: int) -> Tensor:
        # With `forward` a past step meets the chains where they are now, not where they were.
        with self.trainer.precision_plugin.train_step_context():
            return self._loss(step, now=True)[0]

    @torch.no_grad()
    def measure(self) -> EnergyScore:
        """The score of the flow as it is, from `eval_images` draws that are the same numbers at every evaluation."""
        n = self.recipe.eval_images
        draws = weighted_draws(self.model, self.energy, n, self.generator(SCORE), max(self.recipe.batch_size, 256))
        free, found = free_energy(draws.log_weights), log_z(draws.log_weights)
        weights = draws.log_weights
        spread = float(weights.var()), metropolis_acceptance(weights)
        ess = float(effective_share(weights))
        return EnergyScore(free.value, free.standard_error, n, ess, *found, *spread, *self._chains(draws.x))

    def _chains(self, x: Tensor) -> tuple[float, ...]:
        """Acceptance of HMC in fields and latents, and m^2 where they end; they start with draws."""
        how, generator = self.variation, self.generator(CHAINS)
        if not how.hmc:
            return ()
        x = x[: self.recipe.batch_size]
        z = self.flow.sample_latents(len(x), generator=generator)
        acceptance, squared = [], []
        for log_prob, at, fields in (
            (lambda y: -self.energy(y), x, lambda y: y),
            (latent_density(self.flow, self.energy), z, lambda y: self.flow.decode(y)[0]),
        ):
            length = how.hmc_step * how.hmc_leaps
            chains = hmc_chains(
                log_prob, at, how.hmc_moves, lambda y: y[:0], 0, length, how.hmc_step, jitter=0.0, generator=generator
            )
            acceptance.append(chains.acceptance)
            squared.append(float(self.energy.squared_magnetisation(fields(chains.last)).mean()))
        return (*acceptance, *squared)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.fields:
            checkpoint["rgflow"]["fields"] = self.fields.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.fields:
            self.fields.load_state_dict(checkpoint["rgflow"]["fields"])

    def _draws(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Fields of a step and their log density, with the gradients that are asked for."""
        if self.variation.gradient == "total":
            return self.model.sample_and_log_prob(self.recipe.batch_size, generator=generator)
        x = self.model.sample(self.recipe.batch_size, generator)
        weights = [weight for weight in self.flow.parameters() if weight.requires_grad]
        try:
            for weight in weights:
                weight.requires_grad_(False)
            return x, self.model.log_prob(x)  # the weights reach it through x alone
        finally:
            for weight in weights:
                weight.requires_grad_(True)

    def _fields(self, step: int) -> Tensor:
        """Fields of chains for a step; the chains move when the step is made."""
        self.moved = self.fields.moved(self.recipe.batch_size, self.generator(FIELDS, 1 + step))
        return self.moved[1]

    def _loss(self, step: int, now: bool) -> tuple[Tensor, Tensor]:
        """The loss of a step, and what the log has of it; looks whether it is finite now, or never."""
        how = self.variation
        with penalised(self.flow, keyed(self.recipe.seed, PROBES, step)) as penalties:
            x, log_q = self._draws(self.generator(STEP, step))
            skew = asymmetry(self.flow, x, log_q, how.symmetry).mean() if how.penalty else 0.0
            missed = -self.model.log_prob(self._fields(step)).mean() if how.forward else log_q.new_zeros(())
        e = self.energy(x)
        free = log_q + e
        loss = (1 - how.forward) * free.mean() + how.forward * missed + how.penalty * skew + penalties.mean()
        if now and not bool(loss.isfinite()):
            parts = {"the draws": x, "their density": log_q, "their energy": e, "the density of the chains": missed}
            where = next((name for name, part in parts.items() if not bool(part.isfinite().all())), "the penalty")
            raise FloatingPointError(f"the loss is not finite at step {step}: first in {where}")
        free = free.detach()
        logged = torch.stack([free.mean(), free.std(), effective_share(-free)])
        return loss / math.prod(self.flow.shape), logged


class EnergyEvaluation(Evaluation):
    """Scores the flow every `eval_epoch` epochs, every `eval_minutes` and at the end; with `ema` the averaged one."""

    unit = "numbers of the free energy"

    def __init__(self) -> None:
        self.wanted = True

    def measured(self, trainer: pl.Trainer, module: EnergyTraining) -> EnergyScore:
        return module.measure()


class EnergyJournal(Journal):
    """The log of training on an energy; nats of the whole field."""

    columns = COLUMNS

    def on_train_start(self, trainer: pl.Trainer, module: EnergyTraining) -> None:
        super().on_train_start(trainer, module)
        if isinstance(self.sum, Tensor):
            self.sum = self.sum.to(module.device)

    def measured(self, mean: Tensor, module: EnergyTraining) -> list[float | str]:
        found, batch = module.score, mean.tolist()
        if found is None:
            return [*batch, *[""] * (len(COLUMNS) - COLUMNS.index("free_energy"))]
        numbers = (found.mean, found.standard_error, *found[3:])
        return [*batch, *("" if math.isnan(number) else number for number in numbers)]

    def said(self, module: EnergyTraining) -> str:
        row, found = self.rows[-1], module.last_score
        text = f"loss {row['loss']:.3f} +/- {row['loss_std']:.3f}, ESS {row['ess']:.2f}"
        if found is None:
            return text
        exact = module.energy.log_z
        beyond = "" if exact is None else f", {(found.mean + exact) / module.energy.size**2:.4f} per site above exact"
        return f"{text}; F {found.mean:.3f}{beyond}, ESS {found.ess:.2f}"

    def pictures(self, module: EnergyTraining) -> Tensor:
        with torch.no_grad():
            x = module.model.sample(SAMPLES, module.generator(PICTURE))
        return (127.5 * (1 + x.tanh())).round().to(torch.uint8).cpu()

    def state_dict(self) -> dict[str, object]:
        total = self.sum.tolist() if isinstance(self.sum, Tensor) else []
        return {"sum": total, "count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.sum = torch.tensor(state["sum"], dtype=torch.float64) if state["sum"] else 0.0
        self.count = state["count"]
