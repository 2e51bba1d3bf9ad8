"""What a run is: the record that must be the same when it goes on, and the card of its model."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import torch

from rgflow.flow import Config, Flow
from rgflow.recipes import FIXED, TrainConfig


def run_card(recipe: TrainConfig, data: dict[str, object]) -> dict[str, str | int | float]:
    """What the card of the run's model says of what it learnt from, and of the recipe."""
    named = {key: value if isinstance(value, (int, float)) else str(value) for key, value in data.items()}
    return {**named, **{key: getattr(recipe, key) for key in FIXED}, "torch": torch.__version__}


def run_record(flow: Flow, recipe: TrainConfig, data: dict[str, object]) -> dict[str, dict[str, object]]:
    """What must be the same when a run goes on: model, data (images or an energy) and recipe, as JSON has it."""
    config = dataclasses.asdict(flow.config) if flow.config is not None else {}
    record = {
        "model": {"class": type(flow.config).__name__, **config},
        "data": data,
        "training": {key: getattr(recipe, key) for key in FIXED},
    }
    return json.loads(json.dumps(record, default=str))  # tuples become lists, as in the file


def check_same_run(path: Path, record: dict[str, dict[str, object]]) -> tuple[int, float]:
    """Steps and seconds done in a checkpoint of this very run; a ValueError where it is another one."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        done = checkpoint["global_step"], checkpoint["rgflow"]["seconds"]
        saved = json.loads(checkpoint["rgflow"]["record"])
    except Exception as error:  # torch.load raises many kinds, all of which mean the same here
        line = " ".join(str(error).split())[:120]
        raise ValueError(f"the checkpoint {path} cannot be read ({line}); delete it to start the run again") from error
    kinds = {kind.__name__: kind for kind in typing.get_args(Config)}
    for part, kind in (("model", kinds.get(saved["model"]["class"])), ("training", TrainConfig)):
        # Settings that are younger than the checkpoint had the values that are now their defaults.
        fields = dataclasses.fields(kind) if kind else ()
        saved[part] = {field.name: field.default for field in fields if field.name in record[part]} | saved[part]
    differences = [
        f"{part} {key} is {saved[part].get(key)!r} there and {new.get(key)!r} here"
        for part, new in record.items()
        for key in sorted(saved[part].keys() | new.keys())
        if saved[part].get(key) != new.get(key)
        and (part, key) != ("model", "memory")  # changes nothing in the mathematics
        and not (key == "test_digest" and None in (saved[part].get(key), new.get(key)))  # a test set may come or go
    ]
    if differences:
        folder = path.parent.parent
        raise ValueError(f"{folder} holds another run: {'; '.join(differences)}. Use another --out-dir or --name")
    return done
