"""Every notebook is committed clean, names its profile, is in the book, and the tools around notebooks work."""

from __future__ import annotations

import ast
import copy
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import clean_notebooks  # noqa: E402
import execute  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHAPTERS = (
    "00_hierarchy 01_pinwheel 02_training 03_receptive_fields 04_factors 05_mixing 06_inpainting 07_realnvp "
    "08_scale_invariance 09_training_faster 10_ode 11_lattice 12_family 99_ledger"
).split()
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def parameters_problem(notebook: nbformat.NotebookNode) -> str | None:
    """What is wrong with the parameters cell, or None."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return f"{len(tagged)} cells are tagged parameters; there must be one"
    source = tagged[0].source
    assigned = {
        target.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "profile" not in assigned:
        return "the parameters cell does not set profile"
    if "RGFLOW_PROFILE" not in source and "results.profile()" not in source:
        return "the parameters cell does not read RGFLOW_PROFILE"
    return None


def unchecked(notebook: nbformat.NotebookNode) -> list[int]:
    """Cells tagged nbval-check-output without a stored output: nbval would pass them silently."""
    return [
        number for number, cell in enumerate(notebook.cells) if clean_notebooks.is_checked(cell) and not cell.outputs
    ]


@every_notebook
def test_notebook_is_clean(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert clean_notebooks.text(clean_notebooks.cleaned(nbformat.reads(text, as_version=4))) == text, (
        "run make notebooks-clean"
    )
    nbformat.validate(nbformat.reads(text, as_version=4))


@every_notebook
def test_notebook_reads_its_profile_in_the_parameters_cell(path: Path) -> None:
    assert parameters_problem(nbformat.read(path, as_version=4)) is None


@every_notebook
def test_checked_cells_have_stored_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not unchecked(notebook)
    for cell in filter(clean_notebooks.is_checked, notebook.cells):
        kinds = {output.output_type for output in cell.outputs}
        assert "error" not in kinds and "image/png" not in str(cell.outputs), "check text, not figures or errors"


@every_notebook
def test_notebook_installs_and_shells_out_nothing(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"^\s*[!%](?!matplotlib|config)", cell.source, re.MULTILINE), cell.source


@every_notebook
def test_notebook_starts_with_one_title(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S", first.source)


def test_chapters_are_numbered_as_designed_and_all_in_the_book() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert set(names) <= set(CHAPTERS), f"unknown chapters: {set(names) - set(CHAPTERS)}"
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    entries = [entry["file"] for entry in toc["chapters"]]
    assert [Path(entry).name for entry in entries if entry.startswith("book/executed/")] == names
    assert toc["root"] == "book/intro"
    linked = set(re.findall(r"\(executed/(\w+)\.ipynb\)", (ROOT / "book" / "intro.md").read_text()))
    assert linked == set(names), "book/intro.md maps other chapters than there are"


def test_figures_and_equations_have_names_of_their_own() -> None:
    """Two of one name stop the build of the book."""
    names = []
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            figure = cell.metadata.get("mystnb", {}).get("figure", {}) | cell.metadata.get("figure", {})
            names += [figure["name"]] if "name" in figure else []
            names += (
                re.findall(r"^\$\$ \(([\w-]+)\)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
            )
    assert len(names) > 50
    assert not {name for name in names if names.count(name) > 1}


# ---- the tools, on notebooks made here ----


def example() -> nbformat.NotebookNode:
    v4 = nbformat.v4
    stream = v4.new_output("stream", text="3\n")
    result = v4.new_output("execute_result", data={"text/plain": "3"}, execution_count=7)
    notebook = v4.new_notebook(
        metadata={"widgets": {"x": 1}, "papermill": {"y": 2}},
        cells=[
            v4.new_markdown_cell("# Title"),
            v4.new_code_cell(
                "import os\nprofile = os.environ.get('RGFLOW_PROFILE', 'book')",
                metadata={"tags": ["parameters"], "papermill": {"duration": 1}},
            ),
            v4.new_code_cell("print(3)", outputs=[stream], execution_count=2),
            v4.new_code_cell("1 + 2", outputs=[result], execution_count=7, metadata={"tags": ["nbval-check-output"]}),
        ],
    )
    return notebook


def test_cleaning_keeps_only_checked_outputs() -> None:
    dirty = example()
    before = copy.deepcopy(dirty)
    clean = clean_notebooks.cleaned(dirty)
    assert dirty == before, "the argument was changed"
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert clean.cells[1].metadata == {"tags": ["parameters"]}
    assert clean.cells[2].outputs == [] and clean.cells[2].execution_count is None
    assert clean.cells[3].outputs[0].data["text/plain"] == "3"
    assert clean.cells[3].execution_count == clean.cells[3].outputs[0].execution_count == 1
    assert clean_notebooks.text(clean_notebooks.cleaned(clean)) == clean_notebooks.text(clean)


def test_check_reports_and_leaves_alone_and_cleaning_mends(tmp_path: Path) -> None:
    path = tmp_path / "01_x.ipynb"
    nbformat.write(example(), path)
    text = path.read_text()
    assert clean_notebooks.main([str(path), "--check"]) == 1
    assert path.read_text() == text
    assert clean_notebooks.main([str(path)]) == 0
    assert clean_notebooks.main([str(path), "--check"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["01_x.ipynb"]


def test_outputs_of_checked_cells_are_taken_from_a_run_of_the_same_source() -> None:
    source, run = example(), example()
    run.cells[3].outputs[0].data["text/plain"] = "4"
    taken = clean_notebooks.with_outputs(clean_notebooks.cleaned(source), run)
    assert taken.cells[3].outputs[0].data["text/plain"] == "4" and taken.cells[2].outputs == []
    run.cells[2].source = "print(4)"
    with pytest.raises(ValueError, match="other cells than the source"):
        clean_notebooks.with_outputs(source, run)


def test_notebook_checks_see_what_they_are_for() -> None:
    notebook = example()
    assert parameters_problem(notebook) is None and unchecked(notebook) == []
    notebook.cells[3].outputs = []
    assert unchecked(notebook) == [3]
    notebook.cells[1].source = "profile = 'book'"
    assert parameters_problem(notebook) == "the parameters cell does not read RGFLOW_PROFILE"
    notebook.cells[1].source = "x = 1"
    assert parameters_problem(notebook) == "the parameters cell does not set profile"
    notebook.cells[1].metadata["tags"] = []
    assert parameters_problem(notebook) == "0 cells are tagged parameters; there must be one"


def test_execute_runs_all_deletes_failing_output_and_drops_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, out = tmp_path / "notebooks", tmp_path / "executed"
    sources.mkdir(), out.mkdir()
    good, bad = example(), example()
    good.cells[2].source = "import os; print(os.environ['OMP_NUM_THREADS'], profile, os.path.basename(os.getcwd()))"
    bad.cells[2].source = "raise RuntimeError('planted')"
    nbformat.write(good, sources / "01_good.ipynb")
    nbformat.write(bad, sources / "02_bad.ipynb")
    (out / "02_bad.ipynb").write_text("old output")
    (out / "09_renamed.ipynb").write_text("a chapter that is no more")
    monkeypatch.setenv("RGFLOW_PROFILE", "quick")
    assert execute.main(["--sources", str(sources), "--out", str(out)]) == 1
    assert [path.name for path in out.iterdir()] == ["01_good.ipynb"]
    executed = nbformat.read(out / "01_good.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text == "1 quick notebooks\n"
    said = capsys.readouterr()
    assert "ok     01_good" in said.out and "FAILED 02_bad" in said.out and "planted" in said.err


def test_execute_names_an_unknown_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        execute.main(["07_none", "--sources", str(tmp_path)])
    assert "no notebook named 07_none; there are none" in capsys.readouterr().err
