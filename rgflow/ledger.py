"""The ledger: each claim of the paper, its rule, the numbers measured for it, and the verdict that follows.

Claims and rules in words stand in `ledger.toml`, the rules as code in `verdicts`, numbers in results/<chapter>.json.
"""

from __future__ import annotations

import inspect
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from rgflow import results
from rgflow.evidence import UNDECIDABLE, UNMEASURED, WORDS, Numbers, Verdict, names
from rgflow.results import Entry
from rgflow.verdicts import RULES

FILE = Path(__file__).with_name("ledger.toml")
CLAIMS = tuple(f"C{k}" for k in range(1, 19))  # those of the paper that the book undertook to decide


@dataclass(frozen=True)
class Claim:
    """One claim as `ledger.toml` has it; the name of the table is `id`, everything else has the names used there."""

    id: str
    claim: str
    source: str
    rule: str
    chapter: str
    """The notebook that measures it, and the file of results its rule reads."""
    numbers: tuple[str, ...] = ()
    """Of the numbers that the rule reads, those shown in the claim's line."""
    section: str = ""
    """Heading in the chapter to which the line links; empty for the chapter's top."""
    least: int = 1
    """How many images, latents or seeds each number with an interval must rest on."""
    theorem: bool = False
    """Holds by construction: its numbers are exact and need no interval."""
    note: str = ""
    """What a reader should know beside the verdict, and no interval holds."""
    undecidable: str = ""
    """Why it cannot be decided here; then it has no numbers and no rule as code."""


@dataclass(frozen=True)
class Line:
    """One claim, what follows for it, and every number its rule has read."""

    claim: Claim
    verdict: Verdict
    read: dict[str, Entry]


def load(path: Path = FILE) -> tuple[dict[str, Claim], bool]:
    """The claims of a ledger file, in order, and whether it says of itself that it is complete.

    ValueError: a key that is unknown or missing, or a claim that is both undecidable and has numbers.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    complete = content.pop("complete", None)
    if not isinstance(complete, bool):
        raise ValueError(f"{path.name} must begin with complete = true or complete = false, not {complete!r}")
    known = {f.name for f in fields(Claim)} - {"id"}
    claims = {}
    for name, table in content.items():
        if not isinstance(table, dict) or set(table) - known:
            raise ValueError(f"{name} in {path.name} may have the keys {', '.join(sorted(known))}, not {table!r}")
        missing = {"claim", "source", "rule", "chapter"} - set(table)
        if missing:
            raise ValueError(f"{name} in {path.name} has no {', '.join(sorted(missing))}")
        note = " ".join(table.get("note", "").split())
        claims[name] = Claim(name, **{**table, "numbers": tuple(table.get("numbers", ())), "note": note})
        if bool(claims[name].numbers) == bool(claims[name].undecidable):
            raise ValueError(f"{name} in {path.name} needs either numbers or a reason why it is undecidable")
    return dict(sorted(claims.items(), key=lambda item: int(item[0][1:]))), complete


def decide(claim: Claim, where: Path | None = None, rules: Mapping[str, Callable[[Numbers], Verdict]] = RULES) -> Line:
    """Applies the rule of a claim to the numbers of its chapter.

    A chapter without results, or with none of the numbers that the rule reads, makes the claim "not measured yet"; one
    whose numbers rest on fewer samples than the rule asks for, "not decidable here".

    Arguments:
        where: folder of results; the repository's by default.
        rules: functions by claim.

    ValueError: no function for the claim; a number that its rule reads and the chapter does not have, though it has
    others of them; one that should have an interval, or say how many samples it rests on, and does not; a shown number
    that the rule does not read.
    """
    if claim.undecidable:
        return Line(claim, Verdict(UNDECIDABLE, why=claim.undecidable), {})
    if claim.id not in rules:
        raise ValueError(f"{claim.id} has no rule in rgflow/verdicts.py; there are {', '.join(rules)}")
    asked = names(rules[claim.id])
    unread = [name for name in claim.numbers if name not in asked]
    if unread:
        raise ValueError(f"{claim.id} shows {unread}, which its rule does not read; it reads {asked}")
    try:
        entries = results.load(claim.chapter, where)
    except FileNotFoundError:
        return Line(claim, Verdict(UNMEASURED, why=f"chapter {claim.chapter[:2]} has no results yet"), {})
    if not set(asked) & set(entries):
        return Line(claim, Verdict(UNMEASURED, why=f"chapter {claim.chapter[:2]} has none of its numbers yet"), {})
    numbers = Numbers(claim.chapter, entries)
    try:
        verdict = rules[claim.id](numbers)
    except ValueError as error:
        raise ValueError(f"{claim.id}: {error}") from None
    bare = [name for name in claim.numbers if entries[name]["interval"] is None]
    if bare and not claim.theorem:
        raise ValueError(f"{claim.id} shows {bare} without interval; only theorems may")
    few = [f"{name!r} rests on {entries[name]['n']}" for name in numbers.measured if numbers.size(name) < claim.least]
    if few:
        verdict = Verdict(UNDECIDABLE, verdict.parts, f"the rule asks for {claim.least} samples; {few[0]}")
    return Line(claim, verdict, {name: entries[name] for name in numbers.read})


def lines(path: Path = FILE, where: Path | None = None) -> list[Line]:
    """All claims of the ledger, decided; arguments and errors as in `load` and `decide`."""
    return [decide(claim, where) for claim in load(path)[0].values()]


def gaps(decided: Iterable[Line]) -> list[str]:
    """What the ledger still lacks: claims without an entry, and those not measured. Nothing when it is complete."""
    verdicts = {line.claim.id: line.verdict for line in decided}
    absent = [f"{name}: no entry" for name in CLAIMS if name not in verdicts]
    return absent + [f"{name}: {v.why}" for name, v in verdicts.items() if v.word == UNMEASURED]


def counts(decided: Iterable[Line]) -> dict[str, int]:
    """How many claims have each verdict, in the order of `WORDS`; those without an entry are not measured yet."""
    decided = list(decided)
    found = [line.verdict.word for line in decided]
    found += [UNMEASURED] * len(set(CLAIMS) - {line.claim.id for line in decided})
    return {word: found.count(word) for word in WORDS if word in found}


def number(entry: Entry) -> str:
    """A number with its interval and unit, rounded to two digits of the interval's width; "0.675 (0.56 to 0.86)"."""
    value, interval = entry["value"], entry["interval"]
    width = interval[1] - interval[0] if interval else 0.0
    digits = max(0, 1 - math.floor(math.log10(width))) if width > 0 else None

    def shown(v: float) -> str:
        return f"{v:.4g}" if digits is None else f"{v:,.{digits}f}"

    text = shown(value) + (f" ({shown(interval[0])} to {shown(interval[1])})" if interval else "")
    return f"{text} {entry['unit']}" if entry.get("unit") else text


def table(decided: Iterable[Line]) -> str:
    """The ledger in Markdown, one line per claim, for a page beside the chapters that holds the `details` too."""
    rows = ["| verdict | claim of the paper | measured here, 95 % |", "| --- " * 3 + "|"]
    for line in decided:
        claim, shown = line.claim, [(name, line.read[name]) for name in line.claim.numbers if name in line.read]
        measured = [f"· {_plain(name)}: **{number(entry)}**, {_size(entry)}" for name, entry in shown]
        why = [f"*{line.verdict.why[:1].upper()}{line.verdict.why[1:]}.*"] if line.verdict.why and measured else []
        why += [f"*{claim.note}*"] if claim.note and measured else []
        cells = (f"[{claim.id}](#{claim.id.lower()}) **{line.verdict.word}**", f"{claim.claim} ({_link(line)})",
                 "<br>".join(measured + why) or line.verdict.why)  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def said(name: str, where: Path | None = None) -> str:
    """The verdict of one claim as its chapter prints it, in Markdown, with the parts of the rule and its note.

    ValueError: no such claim; else as in `decide`.
    """
    claims, _ = load()
    if name not in claims:
        raise ValueError(f"{name} is not in the ledger; there are {', '.join(claims)}")
    verdict, note = decide(claims[name], where).verdict, claims[name].note
    parts = "; ".join(f"{part}: {'holds' if holds else 'does not hold'}" for part, holds in verdict.parts.items())
    why = f", for {verdict.why}" if verdict.why else ""
    after = f" {note}" if note and verdict.parts else ""
    return f"**{name}: {verdict.word}**{why}" + (f" ({parts})." if parts else ".") + after


def details(line: Line) -> str:
    """What is behind one line, in Markdown, folded: the rule in words and as code, its parts, every number it read."""
    claim, verdict = line.claim, line.verdict
    text = [f"*{claim.claim}* ({claim.source[:1].upper()}{claim.source[1:]}; {_link(line)})", ""]
    text += [f"**Rule.** {' '.join(claim.rule.split())}", ""]
    text += [f"* {part}: {'holds' if holds else 'does not hold'}" for part, holds in verdict.parts.items()]
    text += ["", f"{verdict.word.capitalize()}: {verdict.why}.", ""] if verdict.why else [""]
    text += [f"**Beside it.** {claim.note}", ""] if claim.note and line.read else []
    if line.read:
        text += ["| number | value, 95 % | sample | profile | commit |", "| --- " * 5 + "|"]
        for name, entry in line.read.items():
            cells = (_plain(name), number(entry), _size(entry), entry["profile"], entry["commit"])
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    if not claim.undecidable:
        text += ["```python", inspect.getsource(RULES[claim.id]).rstrip(), "```"]
    head = [f"````{{admonition}} {claim.id} · {verdict.word}", ":class: dropdown", f":name: {claim.id.lower()}", ""]
    return "\n".join([*head, *text, "````"])


def _size(entry: Entry) -> str:
    return "exact" if entry["n"] is None else f"n = {entry['n']}"


def _link(line: Line) -> str:
    """To the chapter once it is there, to its section once that is (a link to nothing stops the build of the book)."""
    name, number = line.claim.chapter, f"chapter {line.claim.chapter[:2]}"
    toc = results.REPOSITORY / "_toc.yml"  # a notebook that is not in it has no page
    there = toc.exists() and re.search(rf"/{name}$", toc.read_text(encoding="utf-8"), re.MULTILINE)
    # As MyST makes the anchor of a heading.
    anchor = re.sub(r"[^\w\- ]", "", line.claim.section.lower().replace(" ", "-"))
    to = f"#{anchor}" if anchor and line.read else ""
    return f"[{number}]({name}.ipynb{to})" if there else number


def _plain(name: str) -> str:
    """A name as a cell of a Markdown table may hold it."""
    return name.replace("|", "\\|").replace("*", "\\*")
