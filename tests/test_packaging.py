"""pyproject.toml, constraints.txt and environment.yml say the same, and cover what the code imports."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
# What a module is called where it is not called as its distribution is.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "pytorch_lightning": "pytorch-lightning",
}
OURS = {"rgflow", "tests", "conftest", "benchmarks"}


def requirements() -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", line) for line in lines]
    assert all(found), f"not a plain pin: {[line for line, f in zip(lines, found, strict=True) if not f]}"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def imported(source: str) -> set[str]:
    """Top-level modules a Python text imports, relative imports left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


def undeclared(source: str, neighbours: set[str]) -> set[str]:
    """Modules a text imports that neither Python, nor this project, nor a declared dependency provides."""
    foreign = imported(source) - set(sys.stdlib_module_names) - OURS - neighbours
    # The last ones come with pytest, jupyter-book, nbval and ipywidgets.
    declared = {*requirements(), "packaging", "sphinx", "docutils", "nbclient", "setuptools", "ipython"}
    return {name for name in foreign if canonicalize_name(DISTRIBUTIONS.get(name, name)) not in declared}


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    pinned = pins()
    for name, requirement in requirements().items():
        assert name in pinned, f"{name} is missing from constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} excludes the pinned {pinned[name]}"


def test_constraints_cover_what_the_dependencies_need_in_turn() -> None:
    from importlib.metadata import PackageNotFoundError, requires

    pinned, waiting, seen = pins(), list(requirements()), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in pinned, f"{name} is needed but not pinned"
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # a GPU library of another platform
            continue
        for line in map(Requirement, lines):
            if line.marker is None or line.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(line.name))
    assert len(seen) > 50


def test_constraints_name_no_host_and_no_path() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text and " @ " not in text and "/" not in text


def test_environment_yml_equals_pyproject() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert conda["name"] == PROJECT["name"] and conda["channels"] == ["conda-forge"]
    plain = [line for line in conda["dependencies"] if isinstance(line, str) and line != "pip"]
    listed = {r.name: r.specifier for r in map(Requirement, plain)}
    assert len(listed) == len(plain), "a package is named twice"
    expected = {CONDA_NAMES.get(name, name): r.specifier for name, r in requirements().items()}
    expected["python"] = SpecifierSet(PROJECT["requires-python"])
    assert listed == expected
    assert conda["dependencies"][-1] == {"pip": ["-e ."]}


def test_jupyter_book_keeps_both_bounds() -> None:
    specifier = requirements()["jupyter-book"].specifier
    assert not specifier.contains("2.0.0") and not specifier.contains("0.6.5") and specifier.contains("1.0.4.post1")


@pytest.mark.parametrize("folder", ["rgflow", "tests", "scripts", "benchmarks", "book/_ext"])
def test_every_import_is_declared(folder: str) -> None:
    files = sorted((ROOT / folder).glob("*.py"))
    neighbours = {file.stem for where in (folder, "scripts", "book/_ext") for file in (ROOT / where).glob("*.py")}
    missing = {file.name: undeclared(file.read_text(), neighbours) for file in files}
    assert not {name: found for name, found in missing.items() if found}


def test_every_import_of_a_notebook_is_declared() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and not source.lstrip().startswith("%"):
                assert not undeclared(source, set()), path.name


def test_the_import_check_sees_an_undeclared_package() -> None:
    source = "import torch, os\nfrom PIL import Image\nfrom seaborn.utils import x\nfrom . import y\n"
    assert undeclared(source, set()) == {"seaborn"}


def test_ci_and_the_readme_name_commands_that_exist() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK) and "set -euo pipefail" in ci.read_text()
    assert ci.read_text().rstrip().endswith("make test"), "pytest's summary must be CI's last line"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "book/intro.md"):
        named = set(re.findall(r"(?<=[`\n])make ([a-z-]+)", (ROOT / document).read_text()))
        assert named <= targets, f"{document} names {named - targets}"


def test_files_import_only_from_files_above_them() -> None:
    """The table "Where things are" in CONTRIBUTING.md names every file, in an order that the imports keep."""
    table = re.findall(r"^\| (`.+?`) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    order = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    files = {path.stem for path in (ROOT / "rgflow").glob("*.py")} - {"__init__", "__main__"}
    assert sorted(order) == sorted(files)
    for name in files:
        tree = ast.parse((ROOT / "rgflow" / f"{name}.py").read_text())
        hints = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
        skipped = {id(n) for hint in hints for n in ast.walk(hint)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or id(node) in skipped or not (node.module or "")[:6] == "rgflow":
                continue
            used = [alias.name for alias in node.names] if node.module == "rgflow" else [node.module.split(".")[1]]
            for other in used:
                assert order.index(other) < order.index(name), f"{name} imports {other}, which stands below it"
