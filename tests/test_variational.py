"""Training on an energy: the loss and its bound, restarts that change no bit, cards, and the command."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from bijectors import wake_up

from rgflow import checkpoints, flags, observables
from rgflow.callbacks import read_log
from rgflow.cli import main
from rgflow.descent import keyed
from rgflow.energies import Energy, Ising, Phi4
from rgflow.energy_runs import MODELS, NEURALRG
from rgflow.flow import ODEFlowConfig, RGFlowConfig, build
from rgflow.ising import CRITICAL, enumerate_ising, ising_energy
from rgflow.options import EnergyFlags
from rgflow.penalties import penalised
from rgflow.persistent import PersistentChains
from rgflow.recipes import TrainConfig
from rgflow.symmetry import Symmetrised, asymmetry
from rgflow.targets import PEAKS
from rgflow.train import Variation, fit_energy
from rgflow.variational import COLUMNS, FIELDS, EnergyJournal, EnergyTraining

CONFIG = RGFlowConfig(channels=1, size=4, block=2, nlayers=1, net="plain", nhidden=8, tied=False, prior="gaussian")
ODE = ODEFlowConfig(1, 4, widths=4, nhyper=0, solver="euler", nsteps=2, exact_training=1, jacobian=1.0)
KEPT = dataclasses.replace(CONFIG, memory="checkpoint")
QUIET = {"batch_size": 16, "quiet": True, "print_step": 1, "plot_epoch": 0, "lr": 1e-2, "eval_images": 200}
QUIET |= {"dtype": "float64", "eval_epoch": 0, "save_epoch": 0}
HOT = Ising(4, 4.0)


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setattr("rgflow.callbacks.tensorboard", lambda folder, step: None)


def fresh(config=CONFIG):
    return build(config, torch.Generator().manual_seed(0))


def same(a, b):
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def training(energy=HOT, variation=None, config=CONFIG, **recipe):
    flow = wake_up(fresh(config).double(), 0.2)
    return EnergyTraining(flow, energy, TrainConfig(**{**QUIET, **recipe}), {}, variation or Variation())


# The loss


@pytest.mark.parametrize("energy", [HOT, Phi4(4, 0.25, 0.1)], ids=lambda e: e.name)
@pytest.mark.parametrize("symmetry", ["none", "flip"])
def test_loss_is_the_free_energy_of_its_own_draws(energy, symmetry):
    module = training(energy, Variation(symmetry))
    loss, logged = module._loss(7, now=True)
    x, _ = module.model.sample_and_log_prob(16, generator=module.generator(0, 7))
    free = Symmetrised(module.flow, symmetry).log_prob(x) + energy(x)
    assert float(loss.detach()) == pytest.approx(float(free.detach().mean()) / 16)
    assert logged[:2].tolist() == pytest.approx([float(free.detach().mean()), float(free.detach().std())])
    weights = (-free).softmax(0)
    assert float(logged[2]) == pytest.approx(float(1 / weights.detach().square().sum()) / 16)
    assert not torch.equal(x, module.model.sample_and_log_prob(16, generator=module.generator(0, 8))[0])
    assert torch.equal(module._loss(7, now=False)[0], loss)


def test_the_penalty_is_added_and_the_density_is_not_averaged():
    plain, module = training(), training(variation=Variation("flip", penalty=2.0))
    assert len(module.model.group) == 1
    (first, logged), (second, as_well) = plain._loss(3, now=True), module._loss(3, now=True)
    x, log_q = plain.model.sample_and_log_prob(16, generator=plain.generator(0, 3))
    expected = 2 * asymmetry(plain.flow, x, log_q, "flip").mean() / 16
    assert float(second - first) == pytest.approx(float(expected)) and abs(expected) > 1e-4
    assert torch.equal(logged, as_well)


@pytest.mark.parametrize("symmetry", ["none", "flip"])
def test_the_gradient_is_that_of_the_free_energy(symmetry):
    """By finite differences of one weight, with the draws of one step (they move with the weights)."""
    module = training(variation=Variation(symmetry))
    weight = next(p for name, p in module.flow.named_parameters() if name.endswith("b3"))
    (loss, _), values = module._loss(0, now=True), []
    loss.backward()
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            weight[0] += shift
            values.append(float(module._loss(0, now=True)[0]))
            weight[0] -= shift
    assert float(weight.grad[0]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def gradients(loss, module):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, module.flow.parameters())])


@pytest.mark.parametrize("how", [Variation(), Variation("flip"), Variation("flip", penalty=2.0)])
def test_the_path_gradient_lacks_that_of_the_density_at_fixed_fields(how):
    total, module = training(variation=how), training(variation=dataclasses.replace(how, gradient="path"))
    (first, logged), (second, as_well) = total._loss(3, now=True), module._loss(3, now=True)
    torch.testing.assert_close(as_well, logged)
    x, _ = total.model.sample_and_log_prob(16, generator=total.generator(0, 3))
    score = gradients((1 + how.penalty) * total.model.log_prob(x.detach()).mean() / 16, total)
    path = gradients(second, module)
    torch.testing.assert_close(path, gradients(first, total) - score)
    assert score.abs().max() > 1e-3 and path.abs().max() > 1e-3
    assert all(weight.requires_grad for weight in module.flow.parameters())


def test_the_path_gradient_is_nothing_where_the_flow_is_perfect():
    class Own(Broken):
        def energy(self, x):
            return -self.q.log_prob(x)

    energy, found = Own(), []
    energy.q = Symmetrised(training().flow, "flip")
    for gradient in ("total", "path"):
        module = training(energy, Variation("flip", gradient=gradient))
        found.append(float(gradients(module._loss(0, now=True)[0], module).abs().max()))
    assert found[0] > 1e-3 and found[1] < 1e-12


def test_the_other_divergence_is_taken_on_fields_of_chains():
    """The loss of a step, put together by hand; looking at a step moves no chain, making it does."""
    a, plain = 0.25, training(variation=Variation("flip"))
    module = training(variation=Variation("flip", forward=a))
    module.begin()
    before = module.fields.fields.clone()
    loss, logged = module._loss(3, now=True)
    chosen, fields = module.fields.moved(QUIET["batch_size"], module.generator(FIELDS, 4))
    assert torch.equal(module.fields.fields, before) and len(before) == 8 * QUIET["batch_size"]
    missed = -module.model.log_prob(fields).mean() / 16
    first, as_well = plain._loss(3, now=True)
    torch.testing.assert_close(loss, (1 - a) * first + a * missed)
    torch.testing.assert_close(logged, as_well)
    chosen, fields = module.fields.moved(QUIET["batch_size"], module.generator(FIELDS, 1))
    module.training_step(0, 0)
    assert torch.equal(module.fields.fields[chosen], fields)
    moved = (module.fields.fields != before).flatten(1).any(1)
    assert moved.any() and set(torch.nonzero(moved)[:, 0].tolist()) <= set(chosen.tolist())


def test_chains_that_break_are_named(monkeypatch):
    module = training(variation=Variation("flip", forward=0.5))
    monkeypatch.setattr(module, "_fields", lambda step: torch.full((16, 1, 4, 4), 1e200, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match="not finite at step 0: first in the density of the chains"):
        module._loss(0, now=True)


def test_chains_of_a_run_forget_where_they_began(caplog):
    """At the critical point, from disordered fields: the exact energy after burning in; and the log says where."""
    energy = Ising(8, CRITICAL)
    chains = PersistentChains(energy, 200)
    with caplog.at_level("INFO"):
        chains.begin(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    g = observables.spin_two_point(chains.fields)
    near = (g[:, 0, 1] + g[:, 1, 0]) / 2
    exact = -ising_energy(8, CRITICAL) / 128
    assert float(near.mean()) == pytest.approx(exact, abs=4 * float(near.std()) / 200**0.5)
    assert "200 chains after 200 proposals" in caplog.text


def test_chains_of_a_run_are_those_of_the_energy():
    """Burned in, and moved on, they have the exact energy and both signs alike."""
    energy = Ising(4, 3.0)
    chains = PersistentChains(energy, 600)
    chains.begin(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    for k in range(60):
        chains.keep(*chains.moved(200, torch.Generator().manual_seed(1 + k)))
    near = observables.spin_two_point(chains.fields)[:, 0, 1]
    exact = enumerate_ising(4, 3.0)
    assert float(near.mean()) == pytest.approx(float(exact.two_point[0, 1]), abs=4 * float(near.std()) / 600**0.5)
    assert abs(float(chains.fields.tanh().mean())) < 0.1
    again = PersistentChains(energy, 600)
    again.load_state_dict(chains.state_dict())
    again.begin(torch.float64, torch.device("cpu"), torch.Generator())
    assert torch.equal(again.fields, chains.fields) and again.step == chains.step > 0


@pytest.mark.parametrize("symmetry", ["none", "flip"])
def test_free_energy_is_a_bound(symmetry):
    found = training(variation=Variation(symmetry), eval_images=4000).measure()
    assert found.mean > -HOT.log_z + 5 * found.standard_error
    assert found.n == 4000 and 0 < found.ess < 1
    assert found.variance == pytest.approx(4000 * found.standard_error**2)
    assert 0 < found.acceptance < 1
    assert math.isnan(found.acceptance_x)


def test_a_neural_ode_pays_for_its_maps_and_draws_its_probes_by_seed_and_step():
    """Trained on its own terms: the mean over all maps of a step, those of the symmetry's other images too."""
    plain = training(variation=Variation("flip"), config=dataclasses.replace(ODE, kinetic=0.0, jacobian=0.0))
    module = training(variation=Variation("flip"), config=ODE)
    (first, logged), (second, as_well) = plain._loss(3, now=True), module._loss(3, now=True)
    assert torch.equal(logged, as_well)
    probes = keyed(0, 4, 3)
    with penalised(module.flow, probes) as penalties:
        module.model.sample_and_log_prob(16, generator=module.generator(0, 3))
    assert float((second - first).detach()) == pytest.approx(float(penalties.mean().detach()) / 16, rel=1e-9)
    assert {len(costs) for costs in penalties.terms.values()} == {2} and float(penalties.mean()) > 1e-3
    assert torch.equal(module._loss(3, now=False)[0], second)
    second.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in module.flow.parameters() if p.numel())
    x, log_q = module.model.sample_and_log_prob(16, generator=module.generator(0, 3))
    estimated = logged[0] - (log_q + HOT(x)).mean()
    assert 1e-6 < abs(float(estimated)) < 3  # probes in training, the exact trace of 16 numbers in evaluations


def test_a_step_never_waits_for_the_device():
    """Tensors on the meta device have no values: whoever asks for one, as float() and bool() do, fails."""
    recipe = TrainConfig(**QUIET | {"dtype": "float32"}, ema=0.9)
    module = EnergyTraining(wake_up(fresh(), 0.2), Ising(4, 4.0), recipe, {}, Variation("flip", penalty=1.0))
    module.trainer = type("Trainer", (), {"world_size": 1, "global_step": 3})()
    module.to("meta")
    module.generator = lambda *_: None  # torch has no generators there
    optimizer = type("Optimizer", (), {})()
    loss = module.training_step(0, 0)
    loss.backward()
    module.configure_gradient_clipping(optimizer)
    module.average.update(3)
    assert module.lazy and loss.device.type == optimizer.found_inf.device.type == "meta"


# Runs


def test_training_approaches_the_bound():
    """2 x 2 spins in 150 steps: what is above -log Z falls to a third, and importance sampling finds log Z."""
    energy, config = Ising(2, 3.0), dataclasses.replace(CONFIG, size=2)
    before = EnergyTraining(fresh(config).double(), energy, TrainConfig(**QUIET), {}, Variation("flip"))
    start = before.measure().mean + energy.log_z
    flow = fresh(config)
    run = fit_energy(flow, energy, TrainConfig(**QUIET | {"batch_size": 64}, steps=150, out_dir=""), Variation("flip"))
    gap = run.score.mean + energy.log_z
    assert 0 < gap < start / 3
    assert abs(run.score.log_z - energy.log_z) < 4 * run.score.log_z_error
    assert run.steps == 150 and run.epochs == 1 and len(run.rows) == 150
    assert run.rows[-1]["loss"] < run.rows[0]["loss"] and run.rows[-1]["ess"] > run.rows[0]["ess"]


@pytest.mark.parametrize(("config", "forward"), [(CONFIG, 0.0), (CONFIG, 0.5), (ODE, 0.0)])
def test_a_run_goes_on_to_the_same_bits(tmp_path, config, forward):
    whole, halves = fresh(config), fresh(config)
    recipe = {**QUIET, "warmup_steps": 3, "ema": 0.9}
    variation = Variation("flip+reflections", forward=forward)
    complete = fit_energy(whole, HOT, TrainConfig(**recipe, steps=8, out_dir=str(tmp_path / "a")), variation)
    fit_energy(halves, HOT, TrainConfig(**recipe, steps=3, out_dir=str(tmp_path / "b")), variation)
    assert not same(whole, halves)
    again = fresh(config)
    resumed = fit_energy(again, HOT, TrainConfig(**recipe, steps=8, out_dir=str(tmp_path / "b")), variation)
    assert same(whole, again) and not same(whole, fresh(config))
    assert resumed.score == pytest.approx(complete.score, nan_ok=True)
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in complete.rows]
    more = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.rows if row["step"] != 3]
    assert [row for row in kept if row["step"] != 3] == more and len(kept) == 8
    assert list(resumed.rows[0]) == list(COLUMNS)
    assert read_log(tmp_path / "b" / "metrics.csv") == resumed.rows


def test_the_log_goes_on_within_a_row():
    """What a journal has summed up since its last row is in the checkpoint, to the bit."""
    first, second = EnergyJournal(None), EnergyJournal(None)
    first.sum, first.count = torch.tensor([1 / 3, 2.0, 0.5], dtype=torch.float64), 3
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.sum, first.sum) and second.sum.dtype == torch.float64 and second.count == 3
    second.load_state_dict(EnergyJournal(None).state_dict())
    assert second.sum == 0.0 and second.count == 0


def test_another_energy_is_another_run(tmp_path):
    recipe = TrainConfig(**QUIET, steps=1, out_dir=str(tmp_path))
    fit_energy(fresh(), HOT, recipe)
    with pytest.raises(ValueError, match=r"data temperature is 4.0 there and 3.0 here"):
        fit_energy(fresh(), Ising(4, 3.0), recipe)
    with pytest.raises(ValueError, match=r"data symmetry is 'none' there and 'flip' here"):
        fit_energy(fresh(), HOT, recipe, Variation("flip"))


def test_the_card_tells_how_to_use_the_model(tmp_path):
    recipe = TrainConfig(**QUIET, steps=2, out_dir=str(tmp_path))
    run = fit_energy(fresh(), HOT, recipe, Variation("flip"), {"by": "a test"})
    card = checkpoints.read_card(tmp_path / "model.safetensors")["card"]
    assert card["energy"] == "ising" and card["temperature"] == 4.0 and card["by"] == "a test"
    assert card["symmetry"] == "flip" and card["exact_log_z"] == HOT.log_z and card["steps"] == 2
    assert card["free_energy"] == run.score.mean and card["draws"] == 200 and "acceptance_x" not in card
    flow = checkpoints.load(tmp_path / "model.safetensors")
    module = EnergyTraining(flow, HOT, recipe, {}, Variation(card["symmetry"]))
    assert module.measure() == pytest.approx(run.score, nan_ok=True)


def test_hmc_on_request():
    recipe = TrainConfig(**QUIET, steps=1, out_dir="")
    run = fit_energy(fresh(), HOT, recipe, Variation(hmc=True, hmc_moves=3, hmc_leaps=2, hmc_step=0.05))
    assert 0.5 < run.score.acceptance_x <= 1 and 0.5 < run.score.acceptance_z <= 1
    assert 0 < run.score.squared_x < 1 and 0 < run.score.squared_z < 1
    assert run.rows[-1]["acceptance_z"] == run.score.acceptance_z


class Broken(Energy):
    """Not finite from its third call on."""

    name, calls = "broken", 0

    def __init__(self):
        super().__init__(4, 1)

    settings = {"energy": "broken"}

    def energy(self, x):
        self.calls += 1
        return x.square().sum((1, 2, 3)) * (math.nan if self.calls > 2 else 1)


def test_what_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match="not finite at step 2: first in their energy"):
        fit_energy(fresh(), Broken(), TrainConfig(**QUIET, steps=9, out_dir=""))


def test_samples_are_drawn_as_pictures(tmp_path):
    recipe = TrainConfig(**QUIET | {"plot_epoch": 1, "print_step": 100}, steps=100, out_dir=str(tmp_path))
    fit_energy(fresh(), HOT, recipe)
    assert (tmp_path / "samples" / "epoch_00001.png").stat().st_size > 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Variation("turn"), "symmetry must be none, or some of flip"),
        (lambda: Variation(penalty=1.0), "a penalty needs a symmetry"),
        (lambda: Variation("flip", penalty=-1.0), "penalty must be at least 0, not -1"),
        (lambda: Variation(hmc_step=0), "hmc_step positive, not 10, 10 and 0"),
        (lambda: fit_energy(fresh(), Ising(8, 2.0)), r"\(1, 8, 8\), the flow has \(1, 4, 4\)"),
        (lambda: fit_energy(fresh(), HOT, TrainConfig(batch_size=1)), "batch_size and eval_images must be at least 2"),
        (lambda: fit_energy(fresh(), HOT, TrainConfig(compile=True)), "compile and linear are for training on images"),
        (lambda: Variation(forward=1.0), "forward must be at least 0 and below 1, not 1.0"),
        (lambda: training(variation=Variation(gradient="path"), config=KEPT), "total with memory checkpoint"),
        (lambda: Variation(gradient="straight"), "gradient must be total or path, not 'straight'"),
        (lambda: training(variation=Variation(gradient="path"), config=ODE), "gradient must be total for neural ODEs"),
        (lambda: training().check(2), "one device, not 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The command


def test_the_command_trains(tmp_path, capsys):
    words = "train --energy ising --size 4 --temperature 3.0 --repeat 2 --symmetry flip --depth 0 --steps 2 --nhidden 8"
    words += " --nlayers 1 --batch-size 8 --eval-images 50 --hmc --hmc-moves 1 --print-step 1 --quiet"
    assert main([*words.split(), "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    card = checkpoints.read_card(tmp_path / "model.safetensors")
    assert card["config"]["repeat"] == 2 and card["config"]["depth"] == 0 and card["config"]["prior"] == "gaussian"
    assert card["config"]["size"] == [4, 4] and card["dtype"] == "F64" and card["card"]["temperature"] == 3.0
    assert "acceptance_z" in card["card"]
    assert main([*words.replace("--quiet", "").split(), "-o", str(tmp_path)]) == 0
    assert "per site above exact" in capsys.readouterr().out


def test_the_command_trains_other_models_and_energies(tmp_path, capsys):
    words = "train --energy phi4 --size 4 --channels 2 --kappa 0.2 --lam 0 --symmetry flip --penalty 0.5 --steps 1"
    words += " --batch-size 8 --eval-images 50"
    rest = "--nlayers 1 --nhidden 4".split()
    assert main([*words.split(), *rest, "-o", str(tmp_path / "a")]) == 0
    assert "exact" in capsys.readouterr().out
    small = "--model realnvp --scales 1 --ncouplings 1 --nres 1 --nhidden 4".split()
    assert main([*words.replace("--lam 0", "--lam 0.1").split(), *small, "-o", str(tmp_path / "b")]) == 0
    assert "exact" not in capsys.readouterr().out
    assert checkpoints.read_card(tmp_path / "b" / "model.safetensors")["model"] == "RealNVPConfig"
    small = "--model ode --widths 4 --nhyper 0 --solver euler --nsteps 2 --kinetic 0.1".split()
    assert main([*words.split(), *small, "-o", str(tmp_path / "c")]) == 0
    card = checkpoints.read_card(tmp_path / "c" / "model.safetensors")
    assert card["model"] == "ODEFlowConfig" and card["config"]["kinetic"] == 0.1 and card["config"]["channels"] == 2


@pytest.mark.parametrize("model", MODELS)
def test_every_option_is_a_flag_with_help(capsys, model):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--energy", "ising", "--model", model, "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0 and "upper bound of -log Z" in text
    for kind in (EnergyFlags, MODELS[model], TrainConfig):
        for field in dataclasses.fields(kind):
            if kind is EnergyFlags or field.name not in ("size", "channels"):
                assert f"{flags.field_helps(kind)[field.name]} (" in text, field.name
    assert {field.name for field in dataclasses.fields(Variation)} < {f.name for f in dataclasses.fields(EnergyFlags)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--energy ising --kappa 0.2", "kappa belongs to the energy phi4, not to ising"),
        ("--energy phi4 --temperature 2", "temperature belongs to the energy ising, not to phi4"),
        ("--energy potts", "potts"),
        ("--energy ising --symmetry turn", "symmetry must be none"),
        ("--energy ising --size 12", "does not fit blocks of 2"),
        ("--energy ising --temperature 0", "temperature must be finite and at least 0.01, not 0"),
    ],
)
def test_bad_commands(tmp_path, capsys, words, message):
    assert main(["train", *words.split(), "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_another_budget_takes_the_place_of_the_default(monkeypatch):
    seen = []

    def caught(flow, energy, recipe, *others):
        seen.append(recipe.steps)
        raise ValueError("enough")

    monkeypatch.setattr("rgflow.train.fit_energy", caught)
    for words in ("", "--minutes 1", "--epochs 30", "--minutes 1 --steps 7"):
        assert main(["train", "--energy", "ising", "--size", "4", "--quiet", *words.split()]) == 2
    assert seen == [NEURALRG["steps"], None, None, 7]


def test_path_gradients_leave_frozen_weights_frozen(monkeypatch):
    module = training(variation=Variation("flip", gradient="path"))
    frozen, other = list(module.flow.parameters())[:2]
    frozen.requires_grad_(False)
    module._draws(torch.Generator().manual_seed(0))
    assert not frozen.requires_grad and other.requires_grad
    monkeypatch.setattr(type(module.model), "log_prob", lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        module._draws(torch.Generator().manual_seed(0))
    assert not frozen.requires_grad and other.requires_grad


def test_chains_need_an_energy_that_has_them(tmp_path):
    flow = build(ODEFlowConfig(channels=1, size=(1,), widths=2, nhyper=0))
    for variation in (Variation(forward=0.5), Variation(hmc=True)):
        with pytest.raises(ValueError, match="forward and hmc need an energy of rgflow.energies, not Bumps"):
            fit_energy(flow, PEAKS, TrainConfig(steps=1, out_dir=""), variation)
