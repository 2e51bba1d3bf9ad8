"""Writes the API pages of the book, one per row of the table "Where things are" in CONTRIBUTING.md, into book/api/.

They hold Sphinx directives only; the text comes from the docstrings. The pages are made before each build and not kept
in git, so that a new file of the package needs its row in that table and nothing else.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rgflow.files import replacing

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "api"
OPTIONS = ("members:", "show-inheritance:", "member-order: bysource", "ignore-module-all:")
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (.+) \|$", re.MULTILINE)


def rows(contributing: str) -> list[tuple[list[str], str]]:
    """Files of each row of the table, without .py, and what it says of them.

    ValueError: no such rows.
    """
    found = [(re.findall(r"`(\w+)`", names), about.strip()) for names, about in ROW.findall(contributing)]
    if not found:
        raise ValueError('CONTRIBUTING.md has no table "Where things are"')
    return found


def page(names: list[str], about: str) -> str:
    """The page of one row, in MyST Markdown."""
    text = [f"# {', '.join(names)}", "", f"{about[:1].upper()}{about[1:]}.", ""]
    options = [f"   :{option}" for option in OPTIONS]
    for name in names:
        text += [f"## rgflow.{name}", "", "```{eval-rst}", f".. automodule:: rgflow.{name}", *options, "```", ""]
    return "\n".join(text)


def index(found: list[tuple[list[str], str]]) -> str:
    """The table of all pages, with links, for the page `book/api.md` to include."""
    text = ["| file | what lives there |", "| --- | --- |"]
    for number, (names, about) in enumerate(found):
        text.append(f"| [{', '.join(names)}](api/{stem(number, names)}.md) | {about} |")
    return "\n".join(text) + "\n"


def stem(number: int, names: list[str]) -> str:
    """The name of a row's page; numbers keep the order of the table."""
    return f"{number:02d}_{names[0]}"


def main() -> int:
    """Command line; returns the exit status."""
    found = rows((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = {f"{stem(number, names)}.md": page(names, about) for number, (names, about) in enumerate(found)}
    wanted["index.txt"] = index(found)
    for old in {path.name for path in FOLDER.iterdir()} - set(wanted):
        (FOLDER / old).unlink()
    for name, text in wanted.items():
        with replacing(FOLDER / name) as partial:
            partial.write_text(text, encoding="utf-8")
    print(f"{len(found)} API pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
