"""The benchmark of energies finds what is known exactly, from a flow that was hardly trained."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import benchmark_files
import pytest
import torch

from rgflow import RGFlowConfig, build, checkpoints
from rgflow.energies import Ising, Phi4, free_two_point
from rgflow.ising import enumerate_ising
from rgflow.recipes import TrainConfig
from rgflow.symmetry import Symmetrised
from rgflow.train import Variation, fit_energy

lattice = benchmark_files.load("lattice")
SHORT = {"draws": 4000, "chains": 32, "steps": 600, "burn": 90}


def trained(folder: Path, energy: Ising | Phi4, steps: int) -> Path:
    config = RGFlowConfig(
        channels=1, size=energy.size, block=2, nlayers=2, net="plain", nhidden=16, tied=False, prior="gaussian"
    )
    recipe = TrainConfig(
        steps=steps, batch_size=64, lr=1e-2, dtype="float64", quiet=True, print_step=20, plot_epoch=0, eval_epoch=0,
        save_epoch=0, eval_images=200, out_dir=str(folder / "tiny"),
    )  # fmt: skip
    fit_energy(build(config, torch.Generator().manual_seed(0)), energy, recipe, Variation("flip"))
    return folder / "tiny" / "model.safetensors"


def near(numbers: dict[str, float], name: str, exact: float, sigmas: float = 4.5) -> None:
    error = numbers[f"{name}: standard error"]
    assert 0 < error < 0.2 * max(1.0, abs(exact)), name
    assert abs(numbers[name] - exact) < sigmas * error, (name, numbers[name], error, exact)


def test_spins_are_those_of_enumeration(tmp_path: Path) -> None:
    path = trained(tmp_path, Ising(2, 3.0), 60)
    numbers = lattice.main(lattice.Options(path, out=tmp_path / "out", **SHORT))
    exact = enumerate_ising(2, 3.0)
    near(numbers, "log Z", Ising(2, 3.0).log_z)
    assert -0.2 < numbers["KL(p | q)"] < 2 and numbers["largest log weight of HMC's fields"] > numbers["log Z"]
    assert 0 < numbers["gap per site"] < 0.5 and numbers["energy per site, exact"] == pytest.approx(exact.energy / 4)
    neighbours = float(exact.two_point[0, 1])
    for kind in ("weighted draws", "Metropolis", "HMC", "HMC in latents"):
        near(numbers, f"m^2, {kind}", exact.squared)
        near(numbers, f"correlation of neighbours, {kind}", neighbours)
        near(numbers, f"energy per site, {kind}", exact.energy / 4)
    for kind in ("Metropolis", "HMC", "HMC in latents"):
        assert 0.4 < numbers[f"{kind}: acceptance"] <= 1 and numbers[f"{kind}: R-hat of m^2"] < 1.1
        assert numbers[f"{kind}: seconds per independent field"] > 0
    seen = numbers["Metropolis: acceptance"]
    assert numbers["acceptance of Metropolis, from weights"] == pytest.approx(seen, abs=0.03)
    content = json.loads((tmp_path / "out" / "tiny.json").read_text())
    assert content["numbers"] == numbers and str(tmp_path) not in json.dumps(content)


def test_the_free_field_is_the_exact_one(tmp_path: Path) -> None:
    energy = Phi4(4, 0.15, 0.0)
    numbers = lattice.main(lattice.Options(trained(tmp_path, energy, 60), name="free", out=tmp_path, **SHORT))
    g = free_two_point(4, 0.15)
    waves = torch.fft.fft2(g).real
    for kind in ("weighted draws", "Metropolis", "HMC", "HMC in latents"):
        near(numbers, f"m^2, {kind}", float(waves[0, 0]) / 16)
        near(numbers, f"correlation of neighbours, {kind}", float(g[0, 1]))
        near(numbers, f"structure factor, longest wave, {kind}", float(waves[0, 1]))
        near(numbers, f"energy per site, {kind}", 0.5)
    near(numbers, "log Z", energy.log_z)
    with open(tmp_path / "free.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == lattice.CURVE and row["step"] == "60"
    assert float(row["free_energy"]) == pytest.approx(numbers["free energy"], abs=1)


def test_without_chains(tmp_path: Path) -> None:
    path, few = trained(tmp_path, Ising(2, 3.0), 2), {"draws": 100, "chains": 0, "keep": True}
    numbers = lattice.main(lattice.Options(path, name="few", out=tmp_path, **few))
    assert "m^2, weighted draws" in numbers and not any("HMC" in name for name in numbers)
    card = checkpoints.read_card(tmp_path / "few.safetensors")["card"]
    assert card["energy"] == "ising" and card["temperature"] == 3.0


def test_what_a_model_leaves_out_is_seen_by_fields_of_the_energy() -> None:
    """Of a Gaussian of twice the variance in every number KL(p | q) is (1/2 - 1 + log 2) / 2 for each."""
    energy = Phi4(4, 0.0, 0.0)  # variance 1/2

    class Wide:
        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum((1, 2, 3))

    x = 0.5**0.5 * torch.randn(20000, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near(lattice.missed(Wide(), energy, x), "KL(p | q)", 16 * 0.5 * (0.5 - 1 + math.log(2)))


def test_averages_over_more_than_was_trained(tmp_path: Path) -> None:
    """The gap falls, by at most log of the ratio of the orders; log Z stays; the group must have the trained one."""
    energy = Ising(4, 3.0)
    path = trained(tmp_path, energy, 60)
    options = lattice.Options(path, out=tmp_path / "out", average="flip+translations", **SHORT)
    numbers = lattice.main(options)
    near(numbers, "log Z", energy.log_z)
    near(numbers, "averaged: log Z", energy.log_z)
    gain = 16 * (numbers["gap per site"] - numbers["averaged: gap per site"])
    assert 0.05 < gain < math.log(16) and numbers["averaged: gap per site"] > 0
    assert numbers["averaged: ESS per draw"] > numbers["ESS per draw"]
    assert 0 < numbers["averaged: KL(p | q)"] < numbers["KL(p | q)"]
    near(numbers, "averaged: energy per site, weighted draws", numbers["energy per site, exact"])
    with pytest.raises(ValueError, match="average must have flip, as the model has, not translations"):
        lattice.main(lattice.Options(path, out=tmp_path / "out", average="translations", **SHORT))


def test_models_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="names no energy"):
        lattice.energy_of({"data": "msds1"})


def test_the_square_has_the_reflections() -> None:
    model = Symmetrised(build(RGFlowConfig(channels=1, size=4, nlayers=1, net="plain", nhidden=4)), "reflections")
    assert len(lattice.larger(model, "square").group) == 8
    with pytest.raises(ValueError, match="average must have reflections, as the model has, not flip"):
        lattice.larger(model, "flip")
