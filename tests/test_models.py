"""The lists of shipped models are those of their cards."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import models  # noqa: E402

from rgflow import RealNVPConfig, RGFlowConfig, checkpoints  # noqa: E402


def test_the_committed_lists_are_those_of_the_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--check"]) == 0, capsys.readouterr().err
    page = models.PAGE.read_text(encoding="utf-8")
    for name in checkpoints.shipped():
        card = checkpoints.read_card(name)["card"]
        assert page.count(f"\n## {name}\n") == 1
        assert card["command"] in " ".join(page.replace("\\\n", " ").split()), "folded, but the same words"
        assert (ROOT / "rgflow" / "weights" / f"{name}.csv").exists()


def test_check_reports_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme, page = tmp_path / "README.md", tmp_path / "models.md"
    for path in (readme, page):
        path.write_text(f"before\n{models.START}\nold\n{models.END}\nafter\n")
    monkeypatch.setattr(models, "README", readme)
    monkeypatch.setattr(models, "PAGE", page)
    assert models.main(["--check"]) == 1 and "old" in readme.read_text()
    assert models.main([]) == 0 and models.main(["--check"]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{models.START}\n| name ") and text.endswith(f"{models.END}\nafter\n")
    assert "old" not in text and "## msds1\n" in text and "## msds1\n" not in readme.read_text()
    with pytest.raises(ValueError, match="there must be the marks"):
        models.between("text", "new")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RGFlowConfig(), "RG-Flow, affine, the paper's networks, Laplace prior"),
        (RGFlowConfig(net="plain", coupling="spline", linear="whitened", places=True, prior="gaussian"),
         "RG-Flow, spline, plain networks, linear maps, places, Gaussian prior"),
        (RealNVPConfig(), "Real NVP, Gaussian prior"),
    ],
)  # fmt: skip
def test_kinds(config: RGFlowConfig | RealNVPConfig, words: str) -> None:
    assert models.kind({"model": type(config).__name__, "config": asdict(config)}) == words


def test_a_row_has_the_numbers_of_the_card() -> None:
    card = {"data": "images", "command": "rgflow train --data images --data-path mine.npz", "seconds": 1800.4}
    card |= {"steps": 1234, "test_bits_per_dim": 3.14159, "test_standard_error": 0.0123, "test_images": 600}
    content = {"model": "RealNVPConfig", "config": asdict(RealNVPConfig()), "parameters": 12345, "card": card}
    row = models.table({"mine": content}).splitlines()[-1]
    assert row.startswith("| `mine` | `mine.npz` | Real NVP, Gaussian prior | 12,345 | 30 min, 1,234 steps | ")
    assert row.endswith(" | 3.142 ± 0.012 (600 images) |")
    content["card"] = card | {"clock": "processor", "data": "msds2"}
    row = models.table({"mine": content}).splitlines()[-1]
    assert "| `msds2` |" in row and "30 min of processor time, 1,234 steps" in row


def test_energies_have_a_table_of_their_own() -> None:
    card = {
        "energy": "ising",
        "size": 8,
        "temperature": 2.2691853,
        "symmetry": "flip",
        "seconds": 1200.0,
        "steps": 9000,
    }
    card |= {
        "free_energy": -100.0,
        "free_energy_error": 0.64,
        "exact_log_z": 100.32,
        "ess": 0.456,
        "clock": "processor",
    }
    content = {"model": "RealNVPConfig", "config": asdict(RealNVPConfig()), "parameters": 12345, "card": card}
    row = models.tables({"spins": content}).splitlines()[-1]
    assert row.startswith(
        "| `spins` | ising, 8 x 8, temperature 2.2692, symmetry flip | Real NVP, Gaussian prior | 12,345 |"
    )
    assert row.endswith("| 20 min of processor time, 9,000 steps | 0.0050 ± 0.0100 | 0.46 |")
    del card["exact_log_z"]
    content["card"] = card | {"energy": "phi4", "kappa": 0.27, "lam": 0.022}
    assert "kappa 0.27, lam 0.022" in models.tables({"field": content}) and "| not known |" in models.tables(
        {"f": content}
    )
    image = {"data": "msds2", "seconds": 60.0, "steps": 10, "test_bits_per_dim": 2.0, "test_standard_error": 0.1}
    image = {**content, "card": {**image, "test_images": 5, "command": "rgflow train"}}
    both = models.tables({"field": content, "picture": image}).split("\n\n")
    assert ["`picture`" in part for part in both] == [True, False]
