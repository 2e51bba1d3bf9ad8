"""The flags of the commands: fields of dataclasses, whose help is what the class says about them; and reading them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

SIMPLE = (int, float, str, bool)


@dataclass(frozen=True)
class DataFlags:
    """Which images.

    Arguments:
        data: name of the set: celeba32, mnist32, cifar10, chair600, msds1, msds2, patches32, digits8, or images for
            your own.
        data_path: where the set lies; for images, the folder, .npy or .npz file.
        size: edge of the images in pixels, or height,width for arrays (images) that have that shape; None: that of
            the set.
        channels: 1 or 3, colour is turned to grey or grey repeated; None: those of the set.
        download: fetch mnist32, cifar10 or celeba32 where missing.
        test_index: file that names the test images (images only); None: the set's own, or the last tenth by data_seed.
        data_seed: chooses the test set where the data come without one, and the pictures of msds1 and msds2.
    """

    data: str
    data_path: str | None = None
    size: int | tuple[int, int] | None = None
    channels: int | None = None
    download: bool = False
    test_index: str | None = None
    data_seed: int = 0


@dataclass(frozen=True)
class TrainFlags:
    """What to train.

    Arguments:
        model: rgflow, or realnvp for the baseline; --help shows the flags of the one that is chosen.
        preset: other defaults, which flags of their own override. paper: none; authors: those of their code
            (weight_decay 5e-2, order authors, stream full); small: the paper's model, narrow and shallow; fast: what
            learns fastest. Their numbers per level are cut to the levels of the images, or the last is repeated; for
            realnvp only the settings of training count.
        flip: yes: training mirrors images left to right at random; no: it does not; None: as the set asks for (celeba32
            and chair600 do).
    """

    model: Literal["rgflow", "realnvp"] = "rgflow"
    preset: Literal["paper", "authors", "small", "fast"] = "paper"
    flip: Literal["yes", "no"] | None = None


@dataclass(frozen=True)
class SampleFlags:
    """Draws images from a model and writes them as a PNG grid.

    Arguments:
        model: model file, or name of a shipped model.
        out: the PNG file.
        n: images.
        temperature: one number, or one per level, lowest first, such as 0.2,0.6,0.6,0.6 (appendix B of the paper).
        seed: of the samples.
        columns: images in a row of the grid; None: about the square root of n.
        scale: edge of an image pixel in pixels of the PNG.
        npy: also write the images, uint8 (n, H, W, C), beside the PNG with the ending .npy.
        accelerator: where to compute.
    """

    model: str
    out: str
    n: int = 64
    temperature: str = "1"
    seed: int = 0
    columns: int | None = None
    scale: int = 2
    npy: bool = False
    accelerator: Literal["cpu", "gpu"] = "cpu"


@dataclass(frozen=True)
class EvaluateFlags:
    """Prints the bits/dim of a model on a test set, with the standard error over images.

    Arguments:
        model: model file, or name of a shipped model.
        split: test or train.
        n: images, spread evenly over the set; 0: all.
        batch_size: images at a time.
        seed: of the dequantisation noise.
        accelerator: where to compute.
        data_seed: chooses the test set where the data come without one, and the pictures of msds1 and msds2; None:
            that of the model's card, else 0.
    """

    model: str
    split: Literal["test", "train"] = "test"
    n: int = 0
    batch_size: int = 64
    seed: int = 0
    accelerator: Literal["cpu", "gpu"] = "cpu"
    data_seed: int | None = None


@dataclass(frozen=True)
class PreviewFlags:
    """Writes images of a set as a PNG grid.

    Arguments:
        out: the PNG file.
        split: train or test.
        n: images, spread evenly over the set.
        scale: edge of an image pixel in pixels of the PNG.
    """

    out: str
    split: Literal["train", "test"] = "train"
    n: int = 64
    scale: int = 2


@dataclass(frozen=True)
class InfoFlags:
    """Prints what a model file says about itself.

    Arguments:
        file: model file, or name of a shipped model.
    """

    file: str


@dataclass(frozen=True)
class ConvertFlags:
    """Turns a `.state` file of the original program into a model file.

    Arguments:
        state: the `.state` file.
        config: JSON file of the settings it was trained with, by the original's names (nchannels, L, nlayers, ...).
        out: the model file.
    """

    state: str
    config: str
    out: str


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
