"""Every claim has a rule, every rule its numbers, every verdict follows; shown on results made up here, and on ours."""

from __future__ import annotations

import json
import random
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from rgflow import evidence, ledger
from rgflow.evidence import NOT, PARTLY, REPRODUCED, UNDECIDABLE, UNMEASURED, Numbers, Verdict, graded, names
from rgflow.ledger import Claim
from rgflow.verdicts import RULES

ROOT = Path(__file__).resolve().parent.parent
CLAIMS, COMPLETE = ledger.load()


# ---- what is committed ----


def test_every_claim_has_its_rule_and_every_rule_its_claim() -> None:
    assert set(CLAIMS) == set(RULES) | {name for name, claim in CLAIMS.items() if claim.undecidable}
    assert list(CLAIMS) == [name for name in ledger.CLAIMS if name in CLAIMS], "claims are C1, C2, ... in this order"
    for claim in CLAIMS.values():
        assert "eproduced if" in claim.rule and claim.claim.endswith(".") and claim.source.startswith("paper")
        assert claim.theorem == ("theorem" in claim.rule)


def test_every_verdict_follows_and_the_complete_ledger_has_no_gaps() -> None:
    decided = ledger.lines()  # raises where a number is missing, or has no interval
    for line in decided:
        if line.verdict.word != UNMEASURED and not line.claim.undecidable:
            assert line.read and (line.claim.theorem or any(entry["interval"] for entry in line.read.values()))
    if COMPLETE:
        assert not ledger.gaps(decided)


def test_chapters_of_the_ledger_are_those_of_the_book() -> None:
    from test_notebooks import CHAPTERS

    assert {claim.chapter for claim in CLAIMS.values()} <= set(CHAPTERS)


def test_links_lead_to_headings_that_exist() -> None:
    for line in ledger.lines():
        path = ROOT / "notebooks" / f"{line.claim.chapter}.ipynb"
        if path.exists() and line.verdict.word != UNMEASURED:
            cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
            headings = re.findall(r"^##+ (.+)$", "\n".join("".join(cell["source"]) for cell in cells), re.MULTILINE)
            assert line.claim.section in headings, f"{line.claim.id}: {line.claim.section!r} is not in {headings}"
    fills = ledger.decide(CLAIMS["C10"])
    assert "[chapter 06](06_inpainting.ipynb#figure-6-fills-of-holes)" in ledger.table([fills])


def test_a_chapter_says_its_verdict(tmp_path: Path) -> None:
    assert ledger.said("C10", tmp_path) == "**C10: not measured yet**, for chapter 06 has no results yet."
    said = ledger.said("C10")
    assert said.startswith(f"**C10: {ledger.decide(CLAIMS['C10']).verdict.word}** (") and "(a) msds1: holds" in said
    with pytest.raises(ValueError, match="C19 is not in the ledger; there are C1, "):
        ledger.said("C19")


@pytest.mark.parametrize("name", list(RULES))
def test_a_rule_reads_the_same_numbers_whatever_they_are(name: str) -> None:
    asked = names(RULES[name])
    assert asked and len(asked) == len(set(asked))
    for seed in range(40):
        rng = random.Random(seed)
        scale = 10 ** rng.uniform(-12, 3)
        entries = {}
        for what in asked:
            low, value, high = sorted(rng.gauss(0, scale) for _ in range(3))
            entries[what] = {"value": value, "interval": [low, high], "n": 10}
        numbers = Numbers("00_x", entries)
        assert RULES[name](numbers).word in evidence.WORDS
        assert numbers.read == asked


# ---- verdicts stated in prose ----

STATED = re.compile(r"\bC(\d+)\b")
WORD = re.compile(r"\b(?:partly reproduced|not reproduced|not decidable here|not measured yet|reproduced)\b")


def stated(text: str) -> list[tuple[str, str]]:
    """Claims and the one verdict said of them in bold in the same line, be it a table's row or 'C7: **reproduced**'."""
    found = []
    for line in text.splitlines():
        words = [word for bold in re.findall(r"\*\*([^*]+)\*\*", line) for word in WORD.findall(bold)]
        claims = STATED.findall(line)
        if len(words) == 1:
            found += [(f"C{number}", words[0]) for number in dict.fromkeys(claims)]
    return found


def test_the_scanner_reads_verdicts_and_no_rules() -> None:
    text = """| C2: in the cone | 0.0 | **reproduced** |
By the rule, claim **C10** is **not reproduced**, but C3
C4 would be reproduced if it were so.
Claims C5 and C6: **partly reproduced**"""
    assert stated(text) == [("C2", REPRODUCED), ("C10", NOT), ("C3", NOT), ("C5", PARTLY), ("C6", PARTLY)]


def test_verdicts_that_pages_state_are_those_of_the_ledger() -> None:
    verdicts = {line.claim.id: line.verdict.word for line in ledger.lines()}
    pages = {path.name: path.read_text() for path in [ROOT / "README.md", *(ROOT / "book").glob("*.md")]}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        pages[path.name] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    wrong = [(page, *said) for page, text in pages.items() for said in stated(text) if verdicts.get(said[0]) != said[1]]
    assert not wrong


# ---- the machinery, on results made here ----


def entry(value: float, low: float | None = None, high: float | None = None, n: int | None = 100) -> dict:
    interval = None if low is None else [low, high]
    return {"value": value, "interval": interval, "n": n, "seed": 0, "unit": None, "note": None, "profile": "book",
            "commit": "0", "hardware": {}}  # fmt: skip


def claim(**changes) -> Claim:
    about = dict(id="C1", claim="A.", source="paper", rule="Reproduced if.", chapter="01_x", numbers=("a",), least=10)
    return Claim(**{**about, **changes})


def decide(tmp_path: Path, entries: dict, rule=None, **changes) -> ledger.Line:
    (tmp_path / "01_x.json").write_text(json.dumps(entries))
    return ledger.decide(claim(**changes), tmp_path, {"C1": rule or (lambda n: graded({"(a)": n["a"].low > 0.5}))})


def test_a_verdict_follows_from_the_interval(tmp_path: Path) -> None:
    assert decide(tmp_path, {"a": entry(0.7, 0.6, 0.8), "b": entry(1)}).verdict.word == REPRODUCED
    line = decide(tmp_path, {"a": entry(0.7, 0.4, 0.8)})
    assert line.verdict.word == NOT and line.verdict.parts == {"(a)": False} and list(line.read) == ["a"]


def test_a_chapter_without_results_is_never_a_pass(tmp_path: Path) -> None:
    line = ledger.decide(claim(chapter="07_none"), tmp_path, {"C1": lambda n: graded({"": n["a"].value < 1})})
    assert line.verdict.word == UNMEASURED and "07" in line.verdict.why
    assert decide(tmp_path, {"other": entry(1, 0, 2)}).verdict.word == UNMEASURED


def test_errors_say_what_is_missing(tmp_path: Path) -> None:
    def both(n: Numbers) -> Verdict:
        return graded({"": bool(n["a"].value + n["bee"].value)})

    good = entry(0.7, 0.6, 0.8)
    with pytest.raises(ValueError, match=r"C1: results/01_x.json has no number 'bee'.*'be'"):
        decide(tmp_path, {"a": good, "be": good}, both)
    with pytest.raises(ValueError, match="C1: 'a' in results/01_x.json has no interval"):
        decide(tmp_path, {"a": entry(0.7)})
    with pytest.raises(ValueError, match=r"C1: 'a' .* is a curve"):
        decide(tmp_path, {"a": {**good, "value": [1, 2]}})
    with pytest.raises(ValueError, match=r"C1 shows \['b'\], which its rule does not read"):
        decide(tmp_path, {"a": good, "b": good}, numbers=("b",))
    with pytest.raises(ValueError, match=r"C1 shows \['a'\] without interval; only theorems may"):
        decide(tmp_path, {"a": entry(0.0)}, lambda n: graded({"": n.exact("a") == 0}))
    with pytest.raises(ValueError, match="'a' .* does not say on how many samples"):
        decide(tmp_path, {"a": entry(0.7, 0.6, 0.8, n=None)})
    with pytest.raises(ValueError, match="C1 has no rule in rgflow/verdicts.py; there are C2"):
        ledger.decide(claim(), tmp_path, {"C2": both})


def test_theorems_are_exact(tmp_path: Path) -> None:
    line = decide(tmp_path, {"a": entry(0.0, n=None)}, lambda n: graded({"": n.exact("a") == 0}), theorem=True)
    assert line.verdict.word == REPRODUCED and ": **0**, exact |" in ledger.table([line])


def test_too_small_a_sample_decides_nothing(tmp_path: Path) -> None:
    verdict = decide(tmp_path, {"a": entry(0.7, 0.6, 0.8, n=9)}).verdict
    assert verdict.word == UNDECIDABLE and verdict.why == "the rule asks for 10 samples; 'a' rests on 9"
    assert decide(tmp_path, {"a": entry(0.7, 0.6, 0.8, n=10)}).verdict.word == REPRODUCED


def test_what_cannot_be_decided_here_says_why(tmp_path: Path) -> None:
    line = ledger.decide(claim(numbers=(), undecidable="no such data"), tmp_path, {})
    assert line.verdict == Verdict(UNDECIDABLE, why="no such data") and "no such data" in ledger.table([line])
    with pytest.raises(ValueError, match="needs a reason"):
        Verdict(UNDECIDABLE)
    with pytest.raises(ValueError, match="must be one of reproduced, .* not 'good'"):
        Verdict("good")


def test_gaps_and_counts_know_the_claims_without_an_entry(tmp_path: Path) -> None:
    line = decide(tmp_path, {"a": entry(0.7, 0.6, 0.8)})
    waiting = ledger.decide(claim(id="C2", chapter="07_none"), tmp_path, {"C2": lambda n: graded({"": n["a"].low > 0})})
    assert ledger.gaps([line])[0] == "C2: no entry" and len(ledger.gaps([line])) == 17
    assert ledger.gaps([line, waiting])[-1] == "C2: chapter 07 has no results yet"
    assert ledger.counts([line, waiting]) == {REPRODUCED: 1, UNMEASURED: 17}


GOOD = '[C1]\nclaim = "A."\nsource = "paper"\nrule = "R."\nchapter = "01_x"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'numbers = ["a"]', "must begin with complete"),
        ("complete = true\n" + GOOD, "needs either numbers or a reason"),
        ("complete = true\n" + GOOD + 'numbers = ["a"]\nundecidable = "x"', "needs either numbers or a reason"),
        ("complete = true\n" + GOOD + 'number = ["a"]', "may have the keys chapter, claim"),
        ('complete = true\n[C1]\nclaim = "A."\nnumbers = ["a"]', "has no chapter, rule, source"),
        ("complete = true\nC1 = 3", "may have the keys"),
    ],
)
def test_a_ledger_file_with_a_mistake_is_not_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ledger.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        ledger.load(tmp_path / "ledger.toml")


def test_claims_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    body = GOOD.replace("[C1]", "[C10]") + 'numbers = ["a"]\n' + GOOD.replace("[C1]", "[C9]") + 'numbers = ["a"]\n'
    (tmp_path / "ledger.toml").write_text("complete = false\n" + body)
    assert list(ledger.load(tmp_path / "ledger.toml")[0]) == ["C9", "C10"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (entry(0.67461, 0.56485, 0.85556), "0.67 (0.56 to 0.86)"),
        (entry(3.7580, 3.7020, 3.8140), "3.76 (3.70 to 3.81)"),
        (entry(1209.4, 1092, 1344), "1,209 (1,092 to 1,344)"),
        (entry(0.0), "0"),
        (entry(732), "732"),
        (entry(0.5, 0.5, 0.5), "0.5 (0.5 to 0.5)"),
        ({**entry(28.04, 27.5, 28.6), "unit": "dB"}, "28.0 (27.5 to 28.6) dB"),
    ],
)
def test_numbers_are_rounded_to_their_intervals(value: dict, text: str) -> None:
    assert ledger.number(value) == text


def test_names_do_not_break_the_table(tmp_path: Path) -> None:
    good = {"|x|*": entry(0.7, 0.6, 0.8)}
    line = decide(tmp_path, good, lambda n: graded({"": n["|x|*"].low > 0}), numbers=("|x|*",))
    row = ledger.table([line]).splitlines()[2]
    assert row.replace("\\|", "").count("|") == 4


# ---- the rules, by hand ----


def verdict(name: str, default: tuple, **changes: tuple) -> str:
    """The verdict of a rule when every number is `default` but those whose names contain a key of `changes`."""
    entries = {}
    for what in names(RULES[name]):
        chosen = [value for key, value in changes.items() if key.replace("_", " ") in what]
        entries[what] = entry(*(chosen[-1] if chosen else default))
    return RULES[name](Numbers("00_x", entries)).word


def test_theorems() -> None:
    assert verdict("C1", (1e-10,)) == REPRODUCED and verdict("C1", (1e-10,), Jacobian=(2e-9,)) == NOT
    assert verdict("C1", (1e-10,), patches32=(2e-9,)) == NOT
    assert verdict("C2", (0.0,)) == REPRODUCED and verdict("C2", (1e-30,)) == NOT
    even = {f"{what}, L = {2**k}": entry(100 + 13 * k) for what in ("latents", "blocks") for k in range(5, 11)}
    even["cones: sites and blocks counted otherwise by the engine"] = entry(0)
    assert RULES["C3"](Numbers("x", even)).word == REPRODUCED
    for name, value in [("blocks, L = 1024", 231), ("cones: sites and blocks counted otherwise by the engine", 1)]:
        assert RULES["C3"](Numbers("x", {**even, name: entry(value)})).word == NOT


def radii(**changes: tuple) -> str:
    levels = {"level 0": (1.5, 1.4, 1.6), "level 1": (3, 2.9, 3.1), "level 2": (5, 4.9, 5.1), "level 3": (8, 7, 9)}
    entries = {f"{s}: {k}: median radius": entry(*v) for s in ("msds1", "patches32") for k, v in levels.items()}
    for name, value in changes.items():
        entries[f"patches32: {name.replace('_', ' ')}: median radius"] = entry(*value)
    return RULES["C4"](Numbers("x", entries)).word


def test_fields() -> None:
    assert radii() == REPRODUCED
    assert radii(level_1=(3, 1.5, 3.1)) == NOT, "neighbouring intervals overlap"
    assert radii(level_0=(2.1, 2.0, 2.2)) == PARTLY
    assert radii(level_3=(6.5, 6.4, 6.6)) == PARTLY and radii(level_3=(6.6, 6.4, 6.8)) == REPRODUCED
    few, many = (0.1, 0.05, 0.2), (0.8, 0.7, 0.9)
    assert verdict("C5", few, tenth=many) == REPRODUCED
    assert verdict("C5", few) == PARTLY and verdict("C5", many) == PARTLY
    assert verdict("C5", many, tenth=few) == NOT
    mixed = {name: entry(*few) for name in names(RULES["C5"])}
    mixed["msds1: share of squared strength in the strongest tenth"] = entry(*many)
    mixed["msds1: share of all strengths above one"] = entry(*many)
    assert RULES["C5"](Numbers("x", mixed)).word == NOT, "another part on each set is not one part on both"
    assert verdict("C18", (0.5, 0.4, 0.7)) == REPRODUCED and verdict("C18", (0.8, 0.7, 0.9)) == PARTLY
    assert verdict("C18", (0.3, 0.2, 0.4)) == NOT


def test_factors_and_mixing() -> None:
    all_of_it, nothing = (0.9, 0.8, 1.0), (0.0, -0.05, 0.05)
    levels = dict(swapped_0=nothing)
    assert verdict("C6", all_of_it, **levels) == REPRODUCED
    assert verdict("C6", all_of_it, **levels, positions=nothing) == PARTLY
    assert verdict("C6", all_of_it, swapped_0=(0.0, -0.05, 0.2)) == NOT
    assert verdict("C6", all_of_it, swapped_0=(-0.1, -0.2, 0.05)) == NOT
    assert verdict("C6", all_of_it, **levels, global_angle=nothing) == PARTLY
    worst = {"study_msds1_laplace_2": nothing, "study_msds2_laplace_1": nothing}
    assert verdict("C6", all_of_it, **levels, **worst) == NOT, "one seed of three fails on each set"
    assert verdict("C9", all_of_it) == REPRODUCED
    assert verdict("C9", all_of_it, B_angles=nothing) == PARTLY
    assert verdict("C9", all_of_it, excess=(0.35, 0.29, 0.4)) == NOT
    assert verdict("C9", all_of_it, laplace_1=nothing) == NOT


def test_sparse_prior() -> None:
    more, less, wide, small = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.0, -0.3, 0.3), (0.0, -0.02, 0.02)
    assert verdict("C8", wide, MIG=more) == REPRODUCED
    assert verdict("C8", less, MIG=more) == PARTLY, "for by one measure, against by the other"
    assert verdict("C8", wide, msds1=more) == PARTLY
    assert verdict("C8", wide, msds1=less) == NOT
    assert verdict("C8", small) == NOT and verdict("C8", wide) == UNDECIDABLE


def test_pinwheel() -> None:
    def pinwheel(**changes: tuple) -> str:
        given = {f"R_{test}_laplace": (0.8, 0.6, 0.9) for test in ("seeds", "turned")}
        given |= {f"rayleigh_p_{test}_laplace": (0.001,) for test in ("seeds", "turned")}
        given |= {"purity_at_0": (0.8, 0.75, 0.9), "kl": (0.05, 0.04, 0.06)}
        return verdict("C7", (0.3, 0.1, 0.4), **{**given, **changes})

    assert pinwheel() == REPRODUCED
    assert pinwheel(purity_at_0=(0.6, 0.5, 0.7)) == PARTLY
    assert pinwheel(rayleigh_p_seeds_gaussian=(0.04,)) == PARTLY
    assert pinwheel(kl=(0.2, 0.1, 0.3)) == NOT
    assert pinwheel(R_seeds_laplace=(0.6, 0.4, 0.7), rayleigh_p_turned_laplace=(0.02,)) == NOT


def test_fills() -> None:
    names_of = {"RG-Flow in its cone": 20, "biharmonic": 18, "Real NVP": 21, "RG-Flow less Real NVP constrained": 5}
    base = {f"{s}, {w}: PSNR": entry(v, v - 1, v + 1) for s in ("msds1", "patches32") for w, v in names_of.items()}

    def word(**changes: float) -> str:
        new = {f"{k}: PSNR": entry(v, v - 1, v + 1) for k, v in changes.items()}
        assert set(new) <= set(base)
        return RULES["C10"](Numbers("x", {**base, **new})).word

    assert word() == REPRODUCED
    assert word(**{"msds1, biharmonic": 21.1}) == PARTLY and word(**{"msds1, biharmonic": 21.0}) == REPRODUCED
    assert word(**{"msds1, RG-Flow less Real NVP constrained": 2.9}) == PARTLY
    assert word(**{"patches32, Real NVP": 16.9}) == PARTLY
    three = {"msds1, Real NVP": 16.0, "msds1, biharmonic": 30.0, "patches32, RG-Flow less Real NVP constrained": 0.0}
    assert word(**three) == NOT


def test_real_nvp_and_temperatures() -> None:
    better, level, worse = (-0.1, -0.2, -0.01), (0.0, -0.01, 0.019), (0.03, 0.021, 0.04)
    assert verdict("C11", better) == REPRODUCED
    assert verdict("C11", better, faces=level) == PARTLY and verdict("C11", better, patches32=worse) == NOT
    assert verdict("C11", better, msds1=level) == NOT
    far = {"effect_outside": (0.1, 0.06, 0.2), "realnvp:_level_0:_median_spread": (5, 4.2, 6)}
    assert verdict("C12", (2, 1.9, 2.1), **far) == REPRODUCED
    assert verdict("C12", (2, 1.9, 2.2), **far) == PARTLY, "not twice"
    near = {"msds1-realnvp: level 1: effect outside the cone": (0.1, 0.04, 0.2)}
    assert verdict("C12", (2, 1.9, 2.1), **far, **near) == PARTLY
    assert verdict("C12", (2, 1.9, 2.2), **far, **near) == NOT
    accuracies = {"accuracy": (0.9,)}
    assert verdict("C13", better, **accuracies) == REPRODUCED
    assert verdict("C13", better, **accuracies, **{"faces: mixed less 0.6": level}) == PARTLY
    assert verdict("C13", better, **accuracies, **{"msds1: mixed less 1": level}) == NOT
    told_apart = {"faces: accuracy": (0.991,)}
    assert verdict("C13", better, **accuracies, **told_apart) == UNDECIDABLE
    assert verdict("C13", better, **accuracies, **told_apart, **{"faces: accuracy, mixed": (0.9,)}) == REPRODUCED


def test_memory_scale_depth() -> None:
    assert verdict("C14", (0.25, 0.2, 0.3), gradients=(1e-6,)) == REPRODUCED
    assert verdict("C14", (0.4, 0.3, 0.5), gradients=(1e-6,)) == PARTLY
    assert verdict("C14", (0.25, 0.2, 0.3), gradients=(1e-4,)) == NOT
    assert verdict("C14", (0.5, 0.4, 0.6), gradients=(1e-6,)) == NOT
    good, rest = (0.3, 0.2, 0.4), {"one_more_step": (1e-12,), "not_finite": (0,)}
    assert verdict("C15", good, **rest) == REPRODUCED
    assert verdict("C15", good, **rest | {"one_more_step": (1e-3,)}) == NOT
    assert verdict("C15", good, **rest, better_control=(0.05, -0.1, 0.2)) == PARTLY
    assert verdict("C15", good, **rest | {"not_finite": (1,)}) == PARTLY
    assert verdict("C15", (0.3, -0.1, 0.6), **rest) == NOT
    better, unsure = (-0.1, -0.2, -0.05), (-0.1, -0.3, 0.1)
    assert verdict("C16", better) == REPRODUCED and verdict("C16", better, **{"4_layers_less_2": unsure}) == PARTLY
    assert verdict("C16", better, **{"8_layers_less_1": unsure, "4_layers_less_2": unsure}) == UNDECIDABLE
    for none in ((-0.01, -0.04, 0.02), (0.2, 0.1, 0.3)):
        assert verdict("C16", better, **{"8_layers_less_1": none, "4_layers_less_2": none}) == NOT
    later = (1.0, 0.5, 1.5)
    assert verdict("C17", later) == REPRODUCED and verdict("C17", later, msds1=(0.5, -0.1, 1)) == PARTLY
    assert verdict("C17", later, msds1=(-0.1, -0.5, 1)) == NOT and verdict("C17", (0.5, -0.1, 1)) == NOT
    assert verdict("C17", (0.5, -0.1, 1.1)) == UNDECIDABLE and verdict("C17", (-1.0, -2.0, -0.5)) == NOT


def test_rules_in_words_and_code_name_the_same_bounds() -> None:
    """Numbers that stand in a comparison of a function stand in its rule, or in the words that define its parts."""
    import inspect

    text = tomllib.loads(ledger.FILE.read_text())
    spelt = {"0": "0", "0.5": "0.5|half", "2": "at most 2", "1": "1 dB", "3": "3 dB", "1e-9": "1e-9", "1e-5": "1e-5",
             "0.1": "0.1", "0.3": "0.3", "0.05": "0.05", "-0.1": "0.1"}  # fmt: skip
    for name, rule in RULES.items():
        for bound in re.findall(r"(?:<=?|>=?|==) (-?\d[\d.e-]*)(?=[\s),:])", inspect.getsource(rule)):
            words = spelt.get(bound, re.escape(bound))
            assert re.search(words, text[name]["rule"]) or bound in ("0", "1"), f"{name}: {bound} is not in its rule"


def test_a_note_stands_beside_its_verdict() -> None:
    """In the row, behind it, and in the chapter; nowhere while the claim is not measured."""
    found = {line.claim.id: line for line in ledger.lines()}
    line = found["C4"]
    assert line.claim.note.startswith("Intervals are over latents") and "\n" not in line.claim.note
    assert f"*{line.claim.note}*" in ledger.table([line])
    assert f"**Beside it.** {line.claim.note}" in ledger.details(line)
    assert ledger.said("C4").endswith(f"). {line.claim.note}")
    waiting = replace(line, verdict=Verdict(UNMEASURED, why="nothing yet"), read={})
    assert line.claim.note not in ledger.table([waiting]) + ledger.details(waiting)
