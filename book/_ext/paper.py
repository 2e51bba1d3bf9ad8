"""Sphinx extension: the paper's figures and tables with the chapters that make them anew.

```{paper-figures}
1 | the renormalization group as a recursion | 00_hierarchy
```

Each line: number, what it shows, and the chapters, separated by commas. A chapter that has no page yet is named and not
linked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

TOC = Path(__file__).resolve().parents[2] / "_toc.yml"


def chapters(toc: str) -> set[str]:
    """The chapters that have a page, by the text of the table of contents."""
    return set(re.findall(r"^ *- file: book/executed/(\w+)", toc, re.MULTILINE))


def table(lines: list[str], there: set[str]) -> list[str]:
    """The same in Markdown, with links to the chapters that are there.

    ValueError: a line that has not three parts.
    """
    rows = ["| of the paper | what it shows | made anew in |", "| --- | --- | --- |"]
    for line in filter(str.strip, lines):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{line!r} must be a number, what it shows, and chapters, with | between them")
        links = []
        for name in (name.strip() for name in parts[2].split(",")):
            number = f"chapter {name[:2]}"
            links.append(f"[{number}](executed/{name}.ipynb)" if name in there else f"{number} (to come)")
        label = f"figure {parts[0]}" if parts[0][0].isdigit() else parts[0]
        rows.append(f"| {label} | {parts[1]} | {', '.join(links)} |")
    return rows


class PaperFigures(Directive):
    """The table of the lines in its body."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        there, holder = chapters(TOC.read_text(encoding="utf-8")), nodes.Element()
        self.state.nested_parse(StringList(table(list(self.content), there), "paper"), self.content_offset, holder)
        return holder.children


def setup(app: Any) -> dict[str, Any]:
    """Entry point that Sphinx calls."""
    app.add_directive("paper-figures", PaperFigures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
