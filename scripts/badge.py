"""Draws the ledger's counts as book/_static/ledger.svg and puts them into README.md; --check only compares.

The badge is a file of this repository: no page that shows it asks another host for anything.
"""

from __future__ import annotations

import argparse
import sys
from html import escape
from pathlib import Path

from rgflow import ledger
from rgflow.evidence import NOT, PARTLY, REPRODUCED, UNDECIDABLE, UNMEASURED
from rgflow.files import replacing

ROOT = Path(__file__).resolve().parent.parent
SVG = ROOT / "book" / "_static" / "ledger.svg"
README = ROOT / "README.md"
START, END = "<!-- ledger: scripts/badge.py writes this line -->", "<!-- end of ledger -->"
# White on each has a contrast of at least 4.5 (WCAG 2.1, AA), on light pages and on dark ones.
COLOURS = {REPRODUCED: "#00694a", PARTLY: "#8a5a00", NOT: "#a83800", UNDECIDABLE: "#50606f", UNMEASURED: "#6b6b6b"}
LABEL = "#24292f"
HEIGHT, LETTER, PADDING = 20, 6.7, 7.0  # pixels; letters of 11 px are about this wide


def svg(counts: dict[str, int]) -> str:
    """The badge: the word ledger, then of each verdict how many claims have it."""
    parts = [("ledger", LABEL)] + [(f"{n} {word}", COLOURS[word]) for word, n in counts.items()]
    x, boxes = 0.0, []
    for text, colour in parts:
        width = round(len(text) * LETTER + 2 * PADDING, 1)
        boxes.append(f'<rect x="{x:g}" width="{width:g}" height="{HEIGHT}" fill="{colour}"/>')
        boxes.append(f'<text x="{x + width / 2:g}" y="14" textLength="{width - 2 * PADDING:g}">{escape(text)}</text>')
        x = round(x + width, 1)
    size = f'width="{x:g}" height="{HEIGHT}" viewBox="0 0 {x:g} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    style = '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
    return "\n".join([head, f"<title>{escape(words(counts))}</title>", style, *boxes, "</g>", "</svg>"]) + "\n"


def words(counts: dict[str, int]) -> str:
    """The same in words, for who cannot see it."""
    return f"The ledger, {sum(counts.values())} claims: " + ", ".join(f"{n} {word}" for word, n in counts.items())


def with_line(readme: str, counts: dict[str, int]) -> str:
    """The text of README.md with the badge between its two marks.

    ValueError: it does not have both marks once.
    """
    if readme.count(START) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must have the marks {START} and {END} once each")
    before, rest = readme.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n![{words(counts)}]({SVG.relative_to(ROOT).as_posix()})\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 when --check finds a badge that is not the ledger's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the badge is out of date")
    options = parser.parse_args(arguments)
    counts = ledger.counts(ledger.lines())
    wanted = {SVG: svg(counts), README: with_line(README.read_text(encoding="utf-8"), counts)}
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    for path in stale:
        if options.check:
            print(f"{path.name} is not what the ledger says; run scripts/badge.py", file=sys.stderr)
        else:
            with replacing(path) as partial:
                partial.write_text(wanted[path], encoding="utf-8")
    print(words(counts))
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
