"""The built book loads nothing from another host; the scanner that says so is tested on a planted page."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "book" / "_build" / "html"
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import offline  # noqa: E402

EXTERNAL = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)
CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# Attributes that make a browser load something; <a href> is not among them, nor are links that only tell.
LOADING = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "track": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "input": ("src",),
    "link": ("href",),
}
TELLING = {"canonical", "author", "license", "next", "prev", "search", "index", "alternate", "help"}


def loads_of_css(text: str) -> list[str]:
    """Addresses on other hosts that a style sheet loads."""
    return CSS_URL.findall(CSS_COMMENT.sub("", text))


class Loads(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        if tag == "script" and "src" in named:
            self.scripts.append(named["src"])
        if tag == "link" and set(named.get("rel", "").lower().split()) <= TELLING and named.get("rel"):
            return
        for name in LOADING.get(tag, ()):
            addresses = named.get(name, "").split(",") if name == "srcset" else [named.get(name, "")]
            self.found += [address.strip() for address in addresses if EXTERNAL.match(address)]
        self.found += loads_of_css(named.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found += loads_of_css(data)


def scan(html: str) -> Loads:
    page = Loads()
    page.feed(html)
    return page


PLANTED = """<html><head>
<link rel="stylesheet" href="https://a.example/font-awesome.css"><link rel="canonical" href="https://ok.example/">
<link href="_static/book.css" rel="stylesheet"><link rel="preload" as="font" href="//b.example/f.woff2">
<script src="https://c.example/require.js"></script><script src="_static/require.js"></script>
<style>/* url(https://comment.example/x) */ @font-face { src: url("https://d.example/f.woff2") }
@import 'https://e.example/x.css'; .a { background: url(data:image/png;base64,AAAA) }</style></head>
<body style="background: url(http://f.example/b.png)"><img src="http://g.example/i.png">
<img src="data:image/png;base64,//8">
<img
srcset="a.png 1x, https://h.example/2.png 2x"><a href="https://ok.example/paper">the paper</a>
<iframe src="https://i.example/"></iframe><p>https://ok.example/text</p></body></html>"""


def test_the_scanner_finds_every_planted_load_and_no_plain_link() -> None:
    hosts = [re.sub(r"^(?:https?:)?//([a-z]+)\.example.*", r"\1", found) for found in scan(PLANTED).found]
    assert hosts == ["a", "b", "c", "d", "e", "f", "g", "h", "i"]


def built(kind: str) -> list[Path]:
    pages = sorted(HTML.rglob(f"*.{kind}")) if HTML.is_dir() else []
    if kind == "html":  # the theme leaves a template, never served, among its static files
        pages = [page for page in pages if "_static" not in page.relative_to(HTML).parts]
    if not pages:
        pytest.skip("book/_build/html is not built; make book builds it")
    return pages


def test_no_built_page_loads_from_another_host() -> None:
    found = {str(page.relative_to(HTML)): scan(page.read_text(encoding="utf-8")).found for page in built("html")}
    assert not {page: loads for page, loads in found.items() if loads}


def test_no_style_sheet_loads_from_another_host() -> None:
    found = {str(sheet.relative_to(HTML)): loads_of_css(sheet.read_text(encoding="utf-8")) for sheet in built("css")}
    assert not {sheet: loads for sheet, loads in found.items() if loads}


def test_every_script_of_a_page_exists_and_is_loaded_once() -> None:
    for page in built("html"):
        scripts = [script.split("?")[0] for script in scan(page.read_text(encoding="utf-8")).scripts]
        assert len(scripts) == len(set(scripts)), f"{page.name} loads a script twice"
        missing = [script for script in scripts if not (page.parent / script).exists()]
        assert not missing, f"{page.name} names scripts that are not there"


def test_every_chapter_of_the_toc_is_built() -> None:
    built("html")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    for entry in [toc["root"], *(chapter["file"] for chapter in toc["chapters"])]:
        assert (HTML / f"{entry}.html").exists(), f"{entry} is in _toc.yml but not in the built book"


def test_vendored_files_named_in_the_config_are_there_with_their_licences() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    static = ROOT / "book" / "_static"
    licences = (static / "vendor" / "LICENSES.md").read_text()
    for name in [config["mathjax_path"], *config["nb_ipywidgets_js"]]:
        assert (static / name).is_file()
        if name.startswith("vendor/"):
            assert f"`{Path(name).name}`" in licences


class Script:
    def __init__(self, filename: str | None, **attributes: str) -> None:
        self.filename, self.attributes = filename, attributes


def test_the_extension_drops_thebe_and_repeats_only() -> None:
    first, second, inline = Script("a.js"), Script("b.js"), Script(None, body="let x = 1")
    scripts = [
        first,
        Script("thebe.js"),
        second,
        Script("a.js"),
        inline,
        Script(None, body="let x = 1"),
        Script(None, body="const thebe_selector = 1"),
        Script(None, body="let y = 2"),
    ]
    kept = offline.without_repeats(scripts)
    assert kept[:3] == [first, second, inline] and kept[3].attributes["body"] == "let y = 2" and len(kept) == 4


def test_the_extension_takes_out_the_font_link_of_a_player_and_nothing_else() -> None:
    body = '<p>font-awesome</p><link rel="stylesheet"\nhref="https://x.example/font-awesome/4.4.0/css/font-awesome.min.css"><b>'
    context = {"body": body, "script_files": ["a.js", "a.js"]}
    offline.clean_page(None, "page", "page.html", context, None)
    assert context == {"body": "<p>font-awesome</p><b>", "script_files": ["a.js"]}
