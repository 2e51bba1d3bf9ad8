"""Sphinx extension: links that open a chapter in Binder or Colab, for the repository that builds the book.

GitHub Actions names the repository in GITHUB_REPOSITORY (owner/name); a book built elsewhere says so in place of links.
The links are text, so that showing them asks no other host for a button's picture.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
ABSENT = (
    "This copy was not built from a public repository, so there is nothing that Binder or Colab could open. Built by "
    "GitHub, or with GITHUB_REPOSITORY=owner/name in the environment, the page has their links here."
)


def repository() -> str | None:
    """owner/name; None if the environment does not say.

    ValueError: it says something else.
    """
    name = os.environ.get("GITHUB_REPOSITORY", "")
    if name and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"GITHUB_REPOSITORY is {name!r}; it must be owner/name")
    return name or None


def links(name: str, notebook: str) -> dict[str, str]:
    """Where a notebook of the repository `owner/name` can be run, by what the link says."""
    return {
        "Binder": f"https://mybinder.org/v2/gh/{name}/main?labpath=notebooks%2F{notebook}",
        "Colab": f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{notebook}",
    }


def title(notebook: Path) -> str:
    """The heading of a notebook's first cell."""
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].lstrip("# ")


class Launch(Directive):
    """A list of all chapters with their links."""

    def run(self) -> list[nodes.Node]:
        name = repository()
        if name is None:
            return [nodes.paragraph("", ABSENT)]
        items = nodes.bullet_list(classes=["launch"])
        for notebook in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
            line = nodes.paragraph("", title(notebook) + " ")
            for text, address in links(name, notebook.name).items():
                line += [nodes.reference("", text, refuri=address, classes=["launch"]), nodes.Text(" ")]
            items += nodes.list_item("", line)
        return [items]


def setup(app: Any) -> dict[str, Any]:
    """Entry point that Sphinx calls."""
    app.add_directive("launch", Launch)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
