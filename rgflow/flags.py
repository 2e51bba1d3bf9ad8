"""Flags from dataclasses, whose help is what the class says about its fields; and reading them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

SIMPLE = (int, float, str, bool)


def parse(
    prog: str,
    about: str,
    kinds: Sequence[type],
    args: Sequence[str],
    defaults: Mapping[str, object],
    aliases: Mapping[str, str],
    positional: Sequence[str] = (),
) -> dict[str, Any]:
    """Reads flags, one per field of the given dataclasses, of which the first that has a field of some name counts.

    Integers that may be one or several are given as 4 or 4,3,2,2, and `none` is None.

    Arguments:
        prog: the command, for its help.
        defaults: other defaults than those of the classes.
        aliases: short flags by field.
        positional: fields that are given without a flag.

    Returns the values by field. Exits with code 0 after --help.

    Raises:
        ValueError: a flag is unknown, missing, or has a value that cannot be read; the message is one line.
    """
    import tyro

    fields: dict[str, tuple[Any, dataclasses.Field[Any]]] = {}
    numbers_of: set[str] = set()
    for kind in kinds:
        helps, hints = field_helps(kind), typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in fields:
                continue
            annotation, metavar = _annotation(hints[field.name])
            if metavar:
                numbers_of.add(field.name)
            default = defaults.get(field.name, field.default)
            if metavar and default is not dataclasses.MISSING:
                default = ",".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
            alias = [aliases[field.name]] if field.name in aliases else None
            marker = tyro.conf.arg(help=helps.get(field.name), aliases=alias, metavar=metavar or _metavar(annotation))
            annotation = Annotated[annotation, marker]
            if field.name in positional:
                annotation = tyro.conf.Positional[annotation]
            fields[field.name] = (annotation, dataclasses.field(default=default))
    required_first = sorted(fields, key=lambda name: fields[name][1].default is not dataclasses.MISSING)
    flags = dataclasses.make_dataclass("Flags", [(name, *fields[name]) for name in required_first])
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            given = tyro.cli(flags, prog=prog, description=about, args=list(args))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(messages.getvalue(), prog)) from None
    values = dataclasses.asdict(given)
    for name in numbers_of:
        values[name] = _integers(name, values[name])
    return values


def make(kind: type, values: Mapping[str, object]) -> Any:
    """An object of a dataclass from the values of its fields among the flags."""
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


def peek(args: Sequence[str], name: str) -> str | None:
    """The value of a flag before the flags are read: it decides which others there are."""
    flag = f"--{name}"
    for k, text in enumerate(args):
        if text.startswith(f"{flag}="):
            return text[len(flag) + 1 :]
        if text == flag and k + 1 < len(args):
            return args[k + 1]
    return None


def numbers(name: str, text: str) -> list[float]:
    """Numbers with commas between them.

    Raises:
        ValueError: something else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} must be a number or numbers with commas between them, not {text!r}") from None


def field_helps(kind: type) -> dict[str, str]:
    """What the section "Arguments:" of a class says about each field."""
    helps: dict[str, str] = {}
    section = re.search(r"^Arguments:\n((?:[ ]+.*\n?|\n)*)", inspect.getdoc(kind) or "", re.MULTILINE)
    names: list[str] = []
    for line in section[1].splitlines() if section else []:
        if match := re.fullmatch(r" {4}(\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            helps |= dict.fromkeys(names, match[2].strip())
        else:
            helps |= {name: f"{helps[name]} {line.strip()}".strip() for name in names}
    return helps


def _annotation(hint: Any) -> tuple[Any, str | None]:
    """The type of a flag, and the metavar of integers that may be several (which are read as text)."""
    parts = (
        typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else ()
    )
    if hint in SIMPLE or typing.get_origin(hint) is Literal:
        return hint, None
    if len(parts) == 2 and parts[1] is type(None) and (parts[0] in SIMPLE or typing.get_origin(parts[0]) is Literal):
        return hint, None
    if set(parts) == {int, str}:
        return str, None
    return str, "INT[,INT...]"


def _metavar(annotation: Any) -> str | None:
    parts = [part for part in typing.get_args(annotation) if part in SIMPLE]
    return parts[0].__name__.upper() if parts else None


def without_folders(words: Sequence[str]) -> list[str]:
    """The words of a command with absolute paths cut to their last part: a card should not name its maker's folders."""
    parts = [word.rpartition("=") if word.startswith("-") else ("", "", word) for word in words]
    return [f"{flag}{mark}{Path(value).name if Path(value).is_absolute() else value}" for flag, mark, value in parts]


def _integers(name: str, text: str) -> int | tuple[int, ...] | None:
    if text.lower() == "none":
        return None
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be an integer or integers with commas between them, not {text!r}") from None
    return values[0] if len(values) == 1 else values


def _one_line(box: str, prog: str) -> str:
    """The message in the box that tyro draws, without the frame and the hints after the first rule.

    Its upper edge holds the title; where the output cannot show such an edge the title has a line of its own.
    """
    words: list[str] = []
    for line in re.split(r"(?m)^.*(?:──|---).*$", f"{box}\n---\n")[1].splitlines():
        text = line.strip(" │")
        if words and not text:
            break
        words += text.split()
    return f"{' '.join(words)} (see {prog} --help)"
