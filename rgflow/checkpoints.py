"""Model files: the weights of a flow as safetensors, its configuration and card as JSON in the header; no pickles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rgflow import flow as flows
from rgflow.files import replacing
from rgflow.flow import Flow, build

KEY = "rgflow"  # of our header among the metadata of the safetensors file
VERSION = 1  # of the header
WEIGHTS = Path(__file__).parent / "weights"  # the shipped models

Card = Mapping[str, str | int | float]


class CheckpointError(ValueError):
    """A model file that cannot be used; the message is one line."""


def check(flow: Flow, card: Card) -> None:
    """Raises what `save` would: TypeError for a card entry, ValueError for a flow without configuration."""
    if flow.config is None:
        raise ValueError("only a flow made by rgflow.build can be saved: this one has no configuration")
    for key, value in card.items():
        if not isinstance(key, str) or not isinstance(value, (str, int, float)):
            raise TypeError(f"a card holds text and numbers, not {key!r}: {type(value).__name__}")


def save(flow: Flow, path: str | os.PathLike[str], card: Card | None = None) -> None:
    """Writes the flow's weights, configuration and card to one safetensors file, atomically.

    Arguments:
        path: of the new file; an existing one is replaced.
        card: what a reader should know (data, steps, bits/dim, licence, ...): text and numbers.

    Raises:
        TypeError: a card entry is neither text nor a number.
        ValueError: the flow was put together by hand and has no configuration.
        OSError: the file cannot be written.
    """
    check(flow, card or {})
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in flow.state_dict().items()}
    header = {
        "format_version": VERSION,
        "config_class": type(flow.config).__name__,
        "config": dataclasses.asdict(flow.config),
        "card": dict(card or {}),
    }
    header["sha256"] = _digest(tensors, header)
    # One metadata entry: safetensors writes several in random order, and the same flow shall give the same bytes.
    data = safetensors.torch.save(tensors, {KEY: json.dumps(header, sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load(name_or_path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Flow:
    """Reads a flow from a model file, or a shipped model by its bare name, to the CPU.

    Arguments:
        dtype: of the parameters; that of the file when None.

    Raises:
        FileNotFoundError: neither such a file nor a shipped model of that name (the shipped ones are listed).
        CheckpointError: the file is truncated, corrupted, no model file, or its weights do not fit its configuration.
    """
    path = find(name_or_path)
    header = _header(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or corrupted: {_line(error)}") from error
    if header["sha256"] != _digest(tensors, header):
        raise CheckpointError(f"{path} is corrupted: the checksum in its header is not that of its contents")
    flow = build(_config(path, header), generator=torch.Generator().manual_seed(0))
    expected = flow.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{path} lacks {len(missing)} tensors its configuration needs, the first is {missing[0]}")
    if extra:
        raise CheckpointError(f"{path} holds {len(extra)} tensors its configuration has no place for: {extra[0]}, ...")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            given, allowed = tuple(tensor.shape), tuple(expected[name].shape)
            raise CheckpointError(f"{path}: {name} has shape {given}, its configuration needs {allowed}")
    flow = flow.to(dtype or next(t.dtype for t in tensors.values() if t.is_floating_point()))
    flow.load_state_dict(tensors)
    return flow


def read_card(name_or_path: str | os.PathLike[str]) -> dict[str, object]:
    """Reads what a model file says about itself, without its weights.

    Returns a dict of `model` (class of the configuration), `config`, `format_version`, `parameters` (numbers stored),
    `dtype` and `card`.

    Raises:
        FileNotFoundError, CheckpointError: as `load`.
    """
    path = find(name_or_path)
    header = _header(path)
    with safe_open(path, "pt") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (not a dict)
        floats = [s for s in slices if s.get_dtype().startswith(("F", "BF"))]
        count = sum(torch.Size(s.get_shape()).numel() for s in floats)
        dtype = floats[0].get_dtype() if floats else ""
    return {
        "model": header["config_class"],
        "config": header["config"],
        "format_version": header["format_version"],
        "parameters": count,
        "dtype": dtype,
        "card": header["card"],
    }


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The model file of this path or shipped name.

    Raises:
        FileNotFoundError: neither exists.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    inside = WEIGHTS / f"{name_or_path}.safetensors"
    if path.name == str(name_or_path) and inside.is_file():
        return inside
    names = ", ".join(shipped()) or "none"
    raise FileNotFoundError(f"no model file {str(name_or_path)!r} and no shipped model of that name (shipped: {names})")


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no model file of rgflow, or truncated or corrupted: {_line(error)}"
        ) from error
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file, but no model file of rgflow")
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is corrupted: its header is not JSON") from error
    kinds = {"format_version": int, "config_class": str, "config": dict, "card": dict, "sha256": str}
    for key, kind in kinds.items():
        if not isinstance(header, dict) or not isinstance(header.get(key), kind):
            raise CheckpointError(f"{path} is corrupted: its header lacks {key}")
        if key == "format_version" and header[key] != VERSION:
            raise CheckpointError(
                f"{path} has format version {header[key]}, this rgflow reads {VERSION}: update rgflow"
            )
    return header


def _config(path: Path, header: Mapping[str, Any]) -> object:
    name = header["config_class"]
    kind = getattr(flows, name, None)
    if not name.endswith("Config") or not dataclasses.is_dataclass(kind):
        raise CheckpointError(f"{path} holds a {name}, which this rgflow does not know")
    try:
        return kind(**{key: _tuples(value) for key, value in header["config"].items()})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a configuration this rgflow does not accept: {_line(error)}") from error


def _tuples(value: object) -> object:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
