"""Sphinx extension: the built pages ask no other host for anything and load each script once."""

from __future__ import annotations

import re
from typing import Any

FONT_AWESOME = re.compile(r"<link\b[^>]*font-?awesome[^>]*>", re.IGNORECASE)


def without_font_link(html: str) -> str:
    """The page body without the style-sheet link that matplotlib's to_jshtml() puts before its player."""
    return FONT_AWESOME.sub("", html)


def without_repeats(scripts: list[Any]) -> list[Any]:
    """The scripts of a page, thebe's taken out (it loads from another host) and each of the others once."""
    kept, seen = [], set()
    for script in scripts:
        attributes = getattr(script, "attributes", {})
        key = (str(getattr(script, "filename", script) or ""), attributes.get("body", ""))
        if "thebe" in key[0] or "thebe" in key[1] or key in seen:
            continue
        seen.add(key)
        kept.append(script)
    return kept


def clean_page(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Mends the context of one page in place, after every other extension has had its say."""
    if "script_files" in context:
        context["script_files"] = without_repeats(context["script_files"])
    if "body" in context:
        context["body"] = without_font_link(context["body"])


def setup(app: Any) -> dict[str, Any]:
    """Entry point that Sphinx calls."""
    app.add_css_file("book.css")
    app.connect("html-page-context", clean_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
