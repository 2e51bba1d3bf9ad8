"""The rules of claims C6, C8 and C9 on made-up numbers, either side of every threshold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rgflow import rules

KEYS = [(name, prior, seed) for name in rules.SETS for prior in rules.PRIORS for seed in rules.SEEDS]


def numbers(values: dict[str, float], half: float = 0.05) -> dict[str, float]:
    """Each value with an interval of this half width."""
    ends = {
        f"{name} {end}": value + sign * half
        for name, value in values.items()
        for end, sign in (("low", -1), ("high", 1))
    }
    return values | ends  # fmt: skip


def separated(**changed: float) -> dict[str, float]:
    """Numbers under which all parts of C6 and C9 hold; keywords change some by their first letters."""
    values = {}
    for name in ("global colour", "global angle"):
        values |= {f"donor {name}, swapped 3": 0.9, f"donor {name}, swapped 0": 0.0, f"A {name}, cut 3": 0.9}
    for name in ("angles", "positions"):
        values |= {f"donor {name}, swapped below 3": 0.9, f"B {name}, cut 3": 0.9}
    return numbers(values | {"excess separation, cut 3": 0.8} | changed)


def changed_in(key: rules.Key, **changed: float) -> dict[rules.Key, dict[str, float]]:
    return {k: separated(**(changed if k == key else {})) for k in KEYS}


def test_levels_separate_by_the_rule() -> None:
    good = {key: separated() for key in KEYS}
    assert rules.levels_separate(good).verdict == rules.REPRODUCED
    one = ("msds2", "laplace", 1)  # a single seed is enough to break a part
    for change, part in (
        ({"donor global angle, swapped 3": 0.54}, "(a) msds2"),
        ({"donor global angle, swapped 0": -0.06}, "(a) msds2"),
        ({"donor global angle, swapped 0": 0.06}, "(a) msds2"),
        ({"donor positions, swapped below 3": 0.54}, "(b) msds2"),
    ):
        found = rules.levels_separate(changed_in(one, **change))
        assert found.verdict == rules.PARTLY
        assert [name for name, holds in found.parts.items() if not holds] == [part]
    own = {"donor angles, swapped below 3": 0.0}  # counts on msds1 only, and not for the Gaussian prior
    assert rules.levels_separate(changed_in(one, **own)).verdict == rules.REPRODUCED
    assert rules.levels_separate(changed_in(("msds1", "gaussian", 0), **own)).verdict == rules.REPRODUCED
    assert rules.levels_separate(changed_in(("msds1", "laplace", 0), **own)).verdict == rules.PARTLY
    both = {"donor global angle, swapped 3": 0.0, "donor global colour, swapped 3": 0.0}
    assert rules.levels_separate({key: separated(**both) for key in KEYS}).verdict == rules.NOT


def disentangled(**gains: float) -> dict[rules.Key, dict[str, float]]:
    """Laplace ahead by the gains, named MIG1, DCI1, MIG2, DCI2, with a spread over seeds of about 0.01."""
    names = {"MIG": "MIG, top", "DCI": "DCI disentanglement, top"}
    return {
        (name, prior, seed): {
            names[short]: 0.2 + (gains.get(short + name[-1], 0) + 0.002 * seed) * (prior == "laplace")
            for short in names
        }
        for name, prior, seed in KEYS
    }


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({"MIG1": 0.1, "DCI2": 0.1}, rules.REPRODUCED),
        ({"MIG1": 0.1, "DCI1": 0.1}, rules.PARTLY),
        ({"MIG1": 0.1, "DCI2": 0.1, "MIG2": -0.1}, rules.PARTLY),
        ({"MIG1": -0.1}, rules.NOT),
        ({}, rules.NOT),  # all intervals contain 0 and end below 0.05
    ],
)
def test_the_sparse_prior_by_the_rule(gains: dict[str, float], verdict: str) -> None:
    found, differences = rules.sparse_prior_disentangles(disentangled(**gains))
    assert found.verdict == verdict and len(differences) == 4
    assert differences["MIG, msds1"].value == pytest.approx(gains.get("MIG1", 0) + 0.002)


def test_wide_intervals_leave_the_sparse_prior_undecided() -> None:
    runs = disentangled()
    runs["msds1", "laplace", 0]["MIG, top"] += 0.3
    assert rules.sparse_prior_disentangles(runs)[0].verdict == rules.UNDECIDED


def test_mixing_by_the_rule() -> None:
    key = ("msds1", "laplace", 2)
    assert rules.mixing_by_levels(changed_in(("msds2", "laplace", 2), **{"A global colour, cut 3": 0.0})).verdict == (
        rules.REPRODUCED
    )
    for change, verdict in (
        ({"A global colour, cut 3": 0.54}, rules.NOT),
        ({"B positions, cut 3": 0.54}, rules.PARTLY),
        ({"B angles, cut 3": 0.54}, rules.PARTLY),
        ({"excess separation, cut 3": 0.34}, rules.NOT),
    ):
        assert rules.mixing_by_levels(changed_in(key, **change)).verdict == verdict


def test_a_missing_seed_leaves_no_verdict() -> None:
    runs = {key: separated() for key in KEYS if key != ("msds1", "laplace", 1)}
    assert rules.mixing_by_levels(runs).verdict is None
    found = rules.levels_separate(runs)
    assert found.verdict is None and found.parts["(a) msds1"] is None and found.parts["(a) msds2"]
    runs = {key: value for key, value in disentangled(MIG1=0.1).items() if key[:2] != ("msds2", "gaussian")}
    found, differences = rules.sparse_prior_disentangles(runs)
    assert found.verdict is None and found.parts == {"msds1": True, "msds2": None} and len(differences) == 2


def test_runs_are_read_by_set_prior_and_seed(tmp_path: Path) -> None:
    assert rules.load(tmp_path / "none") == {}
    content = {"options": {"data": "msds1", "prior": "gaussian", "seed": 2}, "numbers": numbers({"MIG, top": 0.25})}
    (tmp_path / "msds1-gaussian-2.json").write_text(json.dumps(content))
    runs = rules.load(tmp_path)
    assert rules.interval(runs["msds1", "gaussian", 2], "MIG, top") == pytest.approx((0.25, 0.2, 0.3))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="other.json is not a run of benchmarks/factors.py"):
        rules.load(tmp_path)
