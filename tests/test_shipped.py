"""The models that come with the package: what their cards promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import rgflow
from rgflow import checkpoints, pixels
from rgflow.batches import evaluate
from rgflow.energy_runs import chosen
from rgflow.importance import free_energy, weighted_draws
from rgflow.symmetry import Symmetrised

NAMES = checkpoints.shipped()
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"  # real images, which are not part of the project
FACES = SHARED / "celeba_aligned_32.npz"


def learned_energy(name: str) -> bool:
    """Whether it was trained on an energy, and not on images."""
    return "energy" in checkpoints.read_card(name)["card"]


def images_of(card: dict[str, object], folder: Path) -> torch.utils.data.Dataset:
    """The test set of a card; skips where its images are not at hand."""
    if card["data"] == "images":
        if not FACES.exists():
            pytest.skip("the faces of CelebA are not at hand")
        with np.load(FACES) as file:
            np.savetxt(folder / card["test_index"], np.flatnonzero(file["identity200"] >= 180), fmt="%d")
        return rgflow.data.load("images", "test", FACES, test_index=folder / card["test_index"])
    if card["data"] == "mnist32":
        if not (SHARED / "MNIST").exists():
            pytest.skip("MNIST is not at hand")
        return rgflow.data.load("mnist32", "test", SHARED)
    return rgflow.data.load(card["data"], "test")


@pytest.mark.parametrize("name", NAMES)
def test_cards_and_sizes(name: str) -> None:
    card = checkpoints.read_card(name)["card"]
    learned = ("energy", "free_energy", "symmetry") if learned_energy(name) else ("data", "test_bits_per_dim")
    for key in ("command", "licence", "hardware", "date", "seed", "steps", "seconds", *learned):
        assert key in card, f"the card of {name} lacks {key}"
    assert not any(word.startswith("/") for word in card["command"].split()), "folders of a machine"
    assert checkpoints.find(name).stat().st_size <= 8 * 2**20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_trained_flows_come_back(name: str, dtype: torch.dtype, bound: float) -> None:
    """Test images where they need no download, else samples: of these a flow may hold some that it stretches so much
    that rounding is seen (msds2: one of 16 is encoded to a latent of 1,700)."""
    flow, kind = rgflow.load(name, dtype=dtype), name.split("-")[0]
    with torch.no_grad():
        x = flow.sample(16, generator=torch.Generator().manual_seed(0))
        if not learned_energy(name):  # else x is a field
            images = pixels.from_logit(x)
            if kind in ("msds1", "msds2", "patches32"):
                images = torch.stack([rgflow.data.load(kind, "test")[k][0] for k in range(16)])
            x = pixels.to_logit(images, pixels.keyed_noise(flow.shape, 0, 0, torch.arange(16), dtype))[0]
        back = flow.decode(flow.encode(x)[0])[0]
    assert (x - back).abs().max() <= bound


@pytest.mark.parametrize("name", [name for name in NAMES if not learned_energy(name)])
def test_scores_of_the_cards(name: str, tmp_path: Path) -> None:
    card = checkpoints.read_card(name)["card"]
    test = images_of(card, tmp_path)
    mean, error, _ = evaluate(rgflow.load(name), test, indices=range(0, len(test), max(1, len(test) // 400)))
    assert mean == pytest.approx(card["test_bits_per_dim"], abs=5 * error)


@pytest.mark.parametrize("name", [name for name in NAMES if learned_energy(name)])
def test_free_energies_of_the_cards(name: str) -> None:
    card, flow = checkpoints.read_card(name)["card"], rgflow.load(name)
    energy = chosen(card).to(flow.dtype)
    model = Symmetrised(flow, "none" if card["penalty"] else card["symmetry"])
    found = free_energy(weighted_draws(model, energy, 400, torch.Generator().manual_seed(5)).log_weights)
    assert found.value == pytest.approx(card["free_energy"], abs=5 * found.standard_error)
