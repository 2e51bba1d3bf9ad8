"""The reader's path: the map, the figure of the landing page, glossary, pages of the package, launch links."""

from __future__ import annotations

import importlib
import io
import re
import sys
from pathlib import Path

import pytest
import yaml
from docutils import nodes
from docutils.core import publish_doctree
from sphinx.ext.napoleon import Config, GoogleDocstring

import rgflow
from rgflow import ledger

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path[:0] = [str(ROOT / "scripts"), str(BOOK / "_ext")]

import api  # noqa: E402
import docstrings  # noqa: E402
import front  # noqa: E402
import launch  # noqa: E402
import paper  # noqa: E402

INTRO = (BOOK / "intro.md").read_text()
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


# ---- the landing page ----


def test_the_map_names_the_claims_that_each_chapter_measures() -> None:
    lines = [line.split("|") for line in INTRO.splitlines() if line.startswith("| [")]
    rows = [(re.search(r"\(executed/(\w+)\.ipynb\)", line[1])[1], line[4]) for line in lines]
    assert sorted(f"{name}.ipynb" for name, _ in rows) == NOTEBOOKS
    claims = ledger.load()[0].values()
    for name, listed in rows:
        found = set(re.findall(r"C\d+", listed))
        if name == "99_ledger":
            continue
        assert found == {claim.id for claim in claims if claim.chapter == name}, name


def test_every_figure_of_the_paper_has_its_chapter() -> None:
    lines = INTRO.split("```{paper-figures}\n")[1].split("```")[0].splitlines()
    shown = {number: names for number, _, names in (map(str.strip, line.split("|")) for line in lines)}
    figures = {int(n) for label in shown for n in re.findall(r"\d+", label) if label != "table 1"}
    assert figures | {11, 12} == set(range(1, 15)) and "10 to 13" in shown and "table 1" in shown
    named = {name.strip() for names in shown.values() for name in names.split(",")}
    from test_notebooks import CHAPTERS

    assert named <= set(CHAPTERS)
    rows = paper.table(lines, set(CHAPTERS))
    assert len(rows) == len(lines) + 2 and "to come" not in "".join(rows)


def test_a_chapter_without_a_page_is_named_and_not_linked() -> None:
    toc = "chapters:\n  - file: book/executed/01_a\n  - file: book/other\n"
    rows = paper.table(["3(a) | b | 01_a, 02_c", "table 1 | x | 01_a"], paper.chapters(toc))
    assert rows[2:] == [
        "| figure 3(a) | b | [chapter 01](executed/01_a.ipynb), chapter 02 (to come) |",
        "| table 1 | x | [chapter 01](executed/01_a.ipynb) |",
    ]
    with pytest.raises(ValueError, match="must be a number, what it shows, and chapters"):
        paper.table(["1 | b"], set())


def test_the_figure_is_what_the_shipped_model_draws() -> None:
    assert front.main(["--check"]) == 0


def test_another_picture_would_be_noticed() -> None:
    png = front.FILE.read_bytes()
    images = front.pictures()
    assert images.shape == (4, 5, 3, 32, 32)
    finer = (images[:, 0].float() - images[:, 1].float()).abs().mean()
    assert finer < (images[:, 0].float() - images[:, 2].float()).abs().mean(), "columns are in another order"
    buffer = front.BytesIO()
    front.figure(images.flip(0)).savefig(buffer, format="png")
    assert front.same(png, png) and not front.same(png, buffer.getvalue())


def test_the_glossary_has_ten_words_and_every_formula_is_closed() -> None:
    text = (BOOK / "glossary.md").read_text()
    body = text.split("```{glossary}\n")[1].split("```")[0]
    words = [line for line in body.splitlines() if line and not line.startswith(" ")]
    assert len(words) == 10 == len(set(words))
    assert body.count("$") % 2 == 0


def test_names_of_the_package_on_the_pages_exist() -> None:
    flow = rgflow.build(rgflow.RGFlowConfig(size=8, nlayers=1, nres=1, nhidden=4))
    for page in ("intro.md", "glossary.md", "api.md", "own_images.md", "models.md"):
        for name in re.findall(r"`(rgflow(?:\.\w+)+|flow\.\w+)`", (BOOK / page).read_text()):
            thing = flow if name.startswith("flow") else rgflow
            for part in name.split(".")[1:]:
                thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(f"rgflow.{part}")


def test_every_page_is_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = {Path(toc["root"]).name} | {Path(chapter["file"]).name for chapter in toc["chapters"]}
    assert {page.stem for page in BOOK.glob("*.md")} <= files
    sections = [chapter["sections"] for chapter in toc["chapters"] if "sections" in chapter]
    assert sections == [[{"glob": "book/api/*"}]], "the pages of the package are found, not listed"
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.index("scripts/api.py") < makefile.index("jupyter-book build")


# ---- launch links ----


def test_launch_links_open_the_notebook_that_is_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "some-one/rg.flow")
    (items,) = launch.Launch.run(None)
    found = [node["refuri"] for node in items.findall(nodes.reference)]
    assert len(found) == 2 * len(NOTEBOOKS)
    for address in found:
        assert "some-one/rg.flow/" in address and address.startswith("https://")
        assert (ROOT / "notebooks" / re.split(r"/|%2F", address)[-1]).is_file()
    assert "img" not in str(items) and "00 · " in items.astext()


def test_without_a_repository_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    (paragraph,) = launch.Launch.run(None)
    assert "not built from a public repository" in paragraph.astext() and not list(paragraph.findall(nodes.reference))
    monkeypatch.setenv("GITHUB_REPOSITORY", "no slash")
    with pytest.raises(ValueError, match="'no slash'; it must be owner/name"):
        launch.repository()


# ---- the pages of the package ----


def test_every_file_has_its_page_in_the_order_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FOLDER", tmp_path / "api")
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "99_gone.md").write_text("a row that is no more")
    assert api.main() == 0
    pages = sorted(path for path in (tmp_path / "api").glob("*.md"))
    documented = [name for p in pages for name in re.findall(r"^\.\. automodule:: rgflow\.(\w+)$", p.read_text(), re.M)]
    files = {path.stem for path in (ROOT / "rgflow").glob("*.py")} - {"__init__", "__main__"}
    assert sorted(documented) == sorted(files)
    assert documented.index("files") < documented.index("flow") < documented.index("cli")
    index = (tmp_path / "api" / "index.txt").read_text()
    assert re.findall(r"\(api/(\w+\.md)\)", index) == [path.name for path in pages]
    with pytest.raises(ValueError, match="has no table"):
        api.rows("# nothing\n")


def complaints(lines: list[str]) -> str:
    """What docutils has to say against lines of reStructuredText."""
    stream = io.StringIO()
    settings = {"report_level": 1, "warning_stream": stream, "default_role": "code"}
    found = GoogleDocstring(lines, Config(napoleon_google_docstring=True)).lines()
    publish_doctree("\n".join(found), settings_overrides=settings)
    return stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "The magnitude |x| and |y|, with *arguments and a trailing name_ of (3 K, *x.shape).",
        "A sum.\n\nname: one\n    that goes on\nother: two\nthird: three\n    goes on\n        and on",
        "A prior\n- is one thing that\n  goes on;\n- or another.\n\nNext.",
        "A.\n\n.. math:: y = |x|\n    + z_\n\nafter",
        "A.\n\nArguments:\n    channels: C.\n    layout: order\n        of two\n\nRaises:\n    ValueError: |s| = 1.",
        "Departure: one line\n    that goes on.\nSource: another.",
    ],
)
def test_docstrings_become_clean_markup(text: str) -> None:
    assert not complaints(docstrings.mended(text.splitlines()))


def test_what_is_mathematics_or_code_is_left_alone() -> None:
    text = ["With :math:`|x|_2` and `|y|` and ``*z*``:", "", ".. math:: |x| * y_", "    |z|", "", "|out|"]
    assert docstrings.mended(text) == [*text[:5], r"\|out\|"]
    assert docstrings.mended(["a: one", "    two", "b: three"]) == ["* a: one two", "* b: three"]
    assert docstrings.mended(["Only: one", "    entry"]) == ["Only: one entry"]


@pytest.mark.parametrize("text", ["The magnitude |x|.", "a name_ of", "channels: one\n    two\nother: three"])
def test_raw_docstrings_would_not_do(text: str) -> None:
    assert complaints(text.splitlines())


def test_built_pages_of_the_package_show_mathematics_and_no_raw_markup() -> None:
    pages = sorted((BOOK / "_build" / "html" / "book" / "api").glob("*.html"))
    if not pages:
        pytest.skip("book/_build/html is not built; make book builds it")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert "rgflow.couplings.AffineCoupling" in text and text.count('class="math') > 50
    shown = re.sub(r"<[^>]+>", "", re.sub(r"<(script|style|pre)\b.*?</\1>", "", text, flags=re.DOTALL))
    assert ":math:" not in shown and ".. math::" not in shown and "Alias for field number" not in shown
