"""Runs of benchmarks/factors.py read back, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rgflow import studies

KEYS = [(name, prior, seed) for name in studies.SETS for prior in studies.PRIORS for seed in studies.SEEDS]


def scores() -> dict[studies.Key, dict[str, float]]:
    """Laplace ahead by 0.1 + 0.01 seed in MIG on msds1, by nothing elsewhere."""
    return {
        (name, prior, seed): {
            "MIG, top": 0.2 + (0.1 + 0.01 * seed) * (prior == "laplace" and name == "msds1"),
            "DCI disentanglement, top": 0.5 + 0.1 * seed,
        }
        for name, prior, seed in KEYS
    }


def test_differences_are_paired_over_seeds() -> None:
    found = studies.differences(scores())
    assert list(found) == ["MIG, msds1", "DCI disentanglement, msds1", "MIG, msds2", "DCI disentanglement, msds2"]
    # 0.10, 0.11, 0.12: mean 0.11, standard error 0.01 / sqrt(3), Student's factor for two degrees of freedom 4.3027
    assert found["MIG, msds1"] == pytest.approx((0.11, 0.11 - 4.3027 * 0.0057735, 0.11 + 4.3027 * 0.0057735), abs=1e-6)
    assert found["DCI disentanglement, msds1"] == pytest.approx((0, 0, 0), abs=1e-12), "seeds differ, pairs do not"


def test_a_missing_run_leaves_out_its_set() -> None:
    runs = scores()
    assert studies.missing(runs) == []
    del runs["msds2", "gaussian", 1]
    assert studies.missing(runs) == [("msds2", "gaussian", 1)]
    assert list(studies.differences(runs)) == ["MIG, msds1", "DCI disentanglement, msds1"]


def test_runs_are_read_by_set_prior_and_seed(tmp_path: Path) -> None:
    assert studies.load(tmp_path / "none") == {}
    numbers = {"MIG, top": 0.25, "MIG, top low": 0.2, "MIG, top high": 0.3}
    content = {"options": {"data": "msds1", "prior": "gaussian", "seed": 2}, "numbers": numbers}
    (tmp_path / "msds1-gaussian-2.json").write_text(json.dumps(content))
    runs = studies.load(tmp_path)
    assert studies.interval(runs["msds1", "gaussian", 2], "MIG, top") == (0.25, 0.2, 0.3)
    assert studies.named(runs, "study msds1 gaussian 2: MIG, top") == (0.25, 0.2, 0.3)
    assert studies.named(runs, "study msds1 laplace 2: MIG, top") is None
    with pytest.raises(ValueError, match="'study SET PRIOR SEED: WHAT', not 'MIG, top'"):
        studies.named(runs, "MIG, top")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="other.json is not a run of benchmarks/factors.py"):
        studies.load(tmp_path)


def test_all_that_is_asked_or_nothing() -> None:
    runs = {key: numbers | {"x": 1.0, "x low": 0.5, "x high": 2.0} for key, numbers in scores().items()}
    asked = ["study msds1 laplace 1: x", "Laplace minus Gaussian: MIG, msds1"]
    found = studies.asked(runs, asked)
    assert list(found) == asked
    assert found[asked[0]] == (1, 0.5, 2) and found[asked[1]] == studies.differences(runs)["MIG, msds1"]
    del runs["msds1", "gaussian", 0]
    assert studies.asked(runs, asked) is None and studies.asked(runs, asked[:1]) is not None
    assert studies.asked({}, asked) is None
    with pytest.raises(ValueError, match="is named"):
        studies.asked(runs, ["MIG, msds1"])
