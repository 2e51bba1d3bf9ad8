"""Brings notebooks/*.ipynb into the form in which they are committed; --check only says which are not.

Outputs are stripped except in cells tagged nbval-check-output, whose execution_count becomes 1 (nbval fails on
null with outputs); papermill and widget metadata go; execution counts of all other cells become null.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
KEEP = "nbval-check-output"
CELL_METADATA = {"tags", "mystnb"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def is_checked(cell: Any) -> bool:
    """Whether nbval compares this cell's output."""
    return cell.cell_type == "code" and KEEP in cell.metadata.get("tags", [])


def with_outputs(notebook: Any, executed: Any) -> Any:
    """A copy whose checked cells have the outputs of the same cells of the executed notebook.

    ValueError when the executed notebook comes from another version of the source.
    """
    notebook = copy.deepcopy(notebook)
    if [cell.source for cell in notebook.cells] != [cell.source for cell in executed.cells]:
        raise ValueError("the executed notebook has other cells than the source; run make book again")
    for cell, run in zip(notebook.cells, executed.cells, strict=True):
        if is_checked(cell):
            cell.outputs = copy.deepcopy(run.outputs)
    return notebook


def cleaned(notebook: Any) -> Any:
    """A clean copy of a notebook (nbformat node); the argument is left alone."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        if "id" in cell:  # stable across machines, so that a diff shows only what was written
            cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in CELL_METADATA})
        if cell.cell_type != "code":
            continue
        if is_checked(cell) and cell.outputs:
            cell.execution_count = 1
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = 1
        else:
            cell.outputs, cell.execution_count = [], None
    return notebook


def text(notebook: Any) -> str:
    """The file's text: one-space indentation, one newline at the end, as nbformat writes it."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 when --check finds a notebook that is not clean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: notebooks/*.ipynb)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a notebook is not clean")
    parser.add_argument(
        "--outputs-from",
        type=Path,
        metavar="FOLDER",
        help="take the outputs of checked cells from the executed notebooks there (book/executed)",
    )
    options = parser.parse_args(arguments)
    dirty = 0
    for path in options.paths or sorted((ROOT / "notebooks").glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        if options.outputs_from and (options.outputs_from / path.name).exists():
            try:
                notebook = with_outputs(notebook, nbformat.read(options.outputs_from / path.name, as_version=4))
            except ValueError as error:
                parser.error(f"{path.name}: {error}")
        after = text(cleaned(notebook))
        if after == before:
            continue
        dirty += 1
        if options.check:
            print(f"{path}: not clean; run make notebooks-clean", file=sys.stderr)
        else:
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(after, encoding="utf-8")
            os.replace(partial, path)
            print(f"{path}: cleaned")
    return 1 if dirty and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
