"""Sphinx extension: docstrings of the package as reStructuredText.

They are written for people who read the code: |x| is a magnitude, a backtick marks code, `name: what it is` stands on a
line of its own, and what does not fit goes on, indented, on the next. The API pages show them so.
"""

from __future__ import annotations

import re
from typing import Any

# What must stay as it is: a role with its text, literals, code.
KEPT = re.compile(r"(:\w+(?::\w+)?:`[^`]*`|``.*?``|`[^`]*`)")
SPECIAL = re.compile(r"(?<!\\)([|*]|(?<=\w)_(?=\W|$))")
DIRECTIVE = re.compile(r"^\.\. \w+::")
ENTRY = re.compile(r"^\w[\w, ]*: \S")
LIST = re.compile(r"^(?:[-*] |\d+\. )")
NUMERAL = re.compile(r": ([A-Z])\.$")  # "channels: C." would open a numbered list
SECTION = re.compile(r"^(?:Arguments|Raises|Returns|Yields|Example|Shapes):$")


def escaped(line: str) -> str:
    """A line of prose with what reStructuredText would take for markup escaped."""
    return "".join(p if k % 2 else SPECIAL.sub(r"\\\1", p) for k, p in enumerate(KEPT.split(line)))


def paragraph(lines: list[str]) -> list[str]:
    """A paragraph without hanging indents; two entries or more become a list."""
    base = len(lines[0]) - len(lines[0].lstrip())
    joined: list[str] = []
    for line in lines:
        if joined and len(line) - len(line.lstrip()) > base:
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.strip())
    if any(LIST.match(line) for line in joined):  # a list in the middle of a paragraph needs space around it
        return [part for line in joined for part in ("", line) if LIST.match(line) or part] + [""]
    if sum(bool(ENTRY.match(line)) for line in joined) > 1 and ENTRY.match(joined[0]):
        items: list[str] = []
        for line in joined:
            if ENTRY.match(line):
                items.append(f"* {line}")
            else:
                items[-1] += f" {line}"
        joined = items
    return [" " * base + line for line in joined]


def mended(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText; directives stay as they are, and sections keep their indents for napoleon."""
    new: list[str] = []
    block: list[str] = []
    kept: int | None = None  # indent of the directive, or of the section, whose inside stays
    directive = False

    def close() -> None:
        if block:
            new.extend(paragraph(block))
            block.clear()

    for line in lines:
        width, text = len(line) - len(line.lstrip()), line.strip()
        if kept is not None and text and width <= kept:
            kept = None
        if kept is not None:
            new.append(line if directive else NUMERAL.sub(r": \1", escaped(line)))
        elif not text:
            close()
            new.append("")
        elif DIRECTIVE.match(text) or SECTION.match(text):
            close()
            directive, kept = bool(DIRECTIVE.match(text)), width
            new.append(line)
        else:
            block.append(escaped(line))
    close()
    return new


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mends one docstring in place, before napoleon reads its sections."""
    lines[:] = mended(lines)


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out the fields of named tuples, which Python documents by their number."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Any) -> dict[str, Any]:
    """Entry point that Sphinx calls."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
