"""What the commands of `rgflow` do."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from rgflow import checkpoints, files, flags
from rgflow.console import is_first_process, log_to_stderr, say
from rgflow.energy_runs import MODELS, provenance, train_on_energy
from rgflow.files import check_folder
from rgflow.flow import Flow, RGFlowConfig, build
from rgflow.hierarchy import Geometry
from rgflow.options import (
    ConvertFlags,
    DataFlags,
    EvaluateFlags,
    InfoFlags,
    InpaintFlags,
    PreviewFlags,
    SampleFlags,
    TrainFlags,
)
from rgflow.recipes import PRESETS, TrainConfig, divided, levels_of

logger = logging.getLogger(__name__)


def train(args: Sequence[str]) -> None:
    """Trains a flow on images (--data) or an energy (--energy), or goes on with a run: the same command again."""
    if flags.peek(args, "energy") is not None:
        return train_on_energy(args)
    kind = MODELS.get(flags.peek(args, "model"), RGFlowConfig)
    preset = PRESETS.get(flags.peek(args, "preset"), {})
    if kind is not RGFlowConfig:  # what a preset says of the model is meant for an RG-Flow
        preset = divided(preset)[1]
    defaults = {**preset, "out_dir": f"runs/{flags.peek(args, 'data') or 'DATA'}"}
    parts = [DataFlags, TrainFlags, kind, TrainConfig]
    given = flags.parse("rgflow train", inspect.getdoc(train), parts, args, defaults, {"out_dir": "-o"})
    recipe = flags.make(TrainConfig, given)
    log_to_stderr(recipe.quiet)
    check_folder(recipe.folder)  # before the data are read, which may take minutes
    train_set, test_set = _sets(given)
    if given["flip"] is not None:
        train_set.flip = given["flip"] == "yes"
    channels, *size = train_set[0][0].shape
    given |= _per_level(preset, args, given, size)
    config = flags.make(kind, {**given, "channels": channels, "size": tuple(size)})
    flow = build(config, torch.Generator().manual_seed(recipe.seed))
    data = {key: given[key] for key in ("data", "data_seed")}
    if given["flip"] is not None:
        data["flip"] = given["flip"]
    if given["test_index"] is not None:
        data["test_index"] = Path(given["test_index"]).name
    from rgflow.train import fit  # here, for Lightning takes seconds to import

    card = {"preset": given["preset"], **provenance(args)}
    run = fit(flow, train_set, test_set, recipe, data, card)
    if not recipe.quiet and is_first_process():
        score = f", {_score(run.score, 'test')}" if run.score else ""
        say(f"{run.steps} steps, {run.epochs} epochs, {run.seconds:.0f} s{score}")
        if run.folder is not None:
            say(f"model: {run.folder / 'model.safetensors'}")


def sample(args: Sequence[str]) -> None:
    """Draws images from a model and writes them as a PNG grid."""
    given = flags.parse("rgflow sample", inspect.getdoc(sample), [SampleFlags], args, {}, {"n": "-n"})
    from rgflow.grids import sample_images, write_grid

    for name in ("scale", "n") if given["columns"] is None else ("scale", "n", "columns"):
        if given[name] < 1:
            raise ValueError(f"{name} must be at least 1, not {given[name]}")
    values = flags.numbers("temperature", given["temperature"])
    flow = _flow(given)
    out = Path(given["out"])
    if given["npy"] and out.suffix == ".npy":
        raise ValueError(f"{out} would hold both the picture and the array: --out needs another ending than .npy")
    images = sample_images(flow, given["n"], values[0] if len(values) == 1 else values, given["seed"])
    out = _file(given["out"])
    if given["npy"]:
        with files.replacing(out.with_suffix(".npy")) as temporary, open(temporary, "wb") as file:
            np.save(file, images.permute(0, 2, 3, 1).numpy())
    write_grid(images, out, given["columns"], given["scale"])
    say(f"{len(images)} images: {out}")


def evaluate(args: Sequence[str]) -> None:
    """Prints the bits/dim of a model on a test set, with the standard error over images."""
    parts = [EvaluateFlags, DataFlags]
    given = flags.parse("rgflow evaluate", inspect.getdoc(evaluate), parts, args, {}, {"n": "-n"})
    from rgflow import batches

    log_to_stderr(False)
    flow, card = _flow(given), checkpoints.read_card(given["model"])["card"]
    channels, *size = flow.shape
    given |= {key: own for key, own in (("channels", channels), ("size", tuple(size))) if given[key] is None}
    if given["data_seed"] is None:
        given["data_seed"] = int(card.get("data_seed", 0))
    images = _set(given, given["split"])
    if tuple(images[0][0].shape) != tuple(flow.shape):
        raise ValueError(f"the images are {tuple(images[0][0].shape)}, the model takes {tuple(flow.shape)}")
    if given["n"] < 0:
        raise ValueError(f"n must be at least 0, not {given['n']}")
    if given["split"] == "test" and "test_digest" in card and card["test_digest"] != batches.digest(images):
        names = ("data", "data_seed", "test_index")
        known = ", ".join(f"{name} {card[name]}" for name in names if name in card)
        logger.warning("these are not the test images of the model's card (%s): it may have learnt some of them", known)
    chosen = batches.spread(len(images), given["n"])
    score = batches.evaluate(flow, images, given["batch_size"], given["seed"], chosen)
    say(_score(score, given["split"]))


def data(args: Sequence[str]) -> None:
    """Makes, checks or previews a set of images: rgflow data make|check|preview --data NAME."""
    actions = {"make": [DataFlags], "check": [DataFlags], "preview": [PreviewFlags, DataFlags]}
    if not args or args[0] not in actions:
        if args and args[0] in ("-h", "--help"):
            say(f"usage: rgflow data {{make,check,preview}} [flags]\n\n{inspect.getdoc(data)}")
            return
        raise ValueError(f"data needs one of {', '.join(actions)}" + (f", not {args[0]!r}" if args else ""))
    action, about = args[0], {
        "make": "Makes or reads both parts of a set, so that it lies in the cache folder.",
        "check": "Reads every image of a set and prints what it holds.",
        "preview": "Writes images of a set as a PNG grid.",
    }  # fmt: skip
    given = flags.parse(f"rgflow data {action}", about[action], actions[action], args[1:], {}, {"n": "-n"})
    log_to_stderr(False)
    from rgflow.batches import Indexed, spread
    from rgflow.grids import write_grid

    if action == "preview":
        images = Indexed(_set(given, given["split"]))
        if given["n"] < 1 or given["scale"] < 1:
            raise ValueError("n and scale must be at least 1")
        write_grid(images.__getitems__(spread(len(images), given["n"]))[0], _file(given["out"]), scale=given["scale"])
        say(f"{given['split']}: {given['out']}")
        return
    for split, images in zip(("train", "test"), map(Indexed, _sets(given)), strict=True):
        shape = " x ".join(map(str, images[0][0].shape))
        line = f"{given['data']} {split}: {len(images)} images of {shape} (channels x height x width)"
        if action == "check":
            line += f", {'mirrored in training' if images.flip else 'never mirrored'}, {_levels(images)}"
        say(line)


def info(args: Sequence[str]) -> None:
    """Prints what a model file says about itself."""
    given = flags.parse("rgflow info", inspect.getdoc(info), [InfoFlags], args, {}, {}, positional=("file",))
    card = checkpoints.read_card(given["file"])
    lines = [(k, v) for k, v in card.items() if not isinstance(v, dict)]
    for part in ("config", "card"):
        lines += [(f"{part}.{key}", value) for key, value in card[part].items()]
    width = max(len(key) for key, _ in lines)
    say("\n".join(f"{key:{width}}  {value}" for key, value in lines))


def convert(args: Sequence[str]) -> None:
    """Turns a `.state` file of the original program into a model file."""
    given = flags.parse("rgflow convert", inspect.getdoc(convert), [ConvertFlags], args, {}, {}, positional=("state",))
    from rgflow import authors

    flow = authors.load_state(given["state"], given["config"])
    out = _file(given["out"])
    checkpoints.save(flow, out, {"source": f"{Path(given['state']).name}, a file of the original program"})
    say(f"{sum(p.numel() for p in flow.parameters())} parameters: {out}")


def inpaint(args: Sequence[str]) -> None:
    """Fills a hole in a picture; all other pixels stay as they are."""
    given = flags.parse("rgflow inpaint", inspect.getdoc(inpaint), [InpaintFlags], args, {}, {"n": "-n"})
    from rgflow.grids import write_grid
    from rgflow.inpaint import fill
    from rgflow.pictures import read_mask, read_picture

    if given["n"] < 1 or given["scale"] < 1:
        raise ValueError("n and scale must be at least 1")
    if (given["box"] is None) == (given["mask"] is None):
        raise ValueError("the hole is either a --box or a --mask, one of them")
    flow = _flow(given)
    channels, *size = flow.shape
    picture = read_picture(given["image"], tuple(size), channels)
    if given["mask"] is None:
        numbers = flags.numbers("box", given["box"])
        if len(numbers) != 4 or any(number != number // 1 for number in numbers):
            raise ValueError(f"box must be four integers, top,left,height,width, not {given['box']!r}")
        hole = tuple(map(int, numbers))
    else:
        hole = read_mask(given["mask"], given["image"], tuple(size))
    log_to_stderr(False)
    generator = torch.Generator(flow.device).manual_seed(given["seed"])
    out = _file(given["out"])
    write_grid(fill(flow, picture, hole, given["method"], given["n"], generator), out, scale=given["scale"])
    say(f"{given['n']} {'fill' if given['n'] == 1 else 'fills'}: {out}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    command.__name__: command for command in (train, sample, evaluate, inpaint, data, info, convert)
}


def _flow(given: dict) -> Flow:
    if given["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator gpu: no GPU is available here; use --accelerator cpu")
    return checkpoints.load(given["model"]).to("cuda" if given["accelerator"] == "gpu" else "cpu")


def _per_level(preset: dict, args: Sequence[str], given: dict, size: Sequence[int]) -> dict[str, int | tuple[int, ...]]:
    """The preset's lists of one number per level for images of this size, where no flag says otherwise."""
    lists = {key: v for key, v in preset.items() if isinstance(v, tuple) and flags.peek(args, key) is None}
    if not lists:
        return {}
    if given["share_levels"]:  # one set of weights, that of the lowest level
        return {key: numbers[0] for key, numbers in lists.items()}
    depth = Geometry(*size, given["block"], deepest=given["depth"]).depth
    return {key: levels_of(numbers, depth + 1) for key, numbers in lists.items()}


def _set(given: dict, split: str) -> torch.utils.data.Dataset:
    from rgflow import data as sets

    size = given["size"]
    oblong = isinstance(size, tuple) and len(size) == 2 and size[0] != size[1]
    if oblong and given["data"] != "images":
        raise ValueError(f"{given['data']} has square images only, not {size[0]} x {size[1]} pixels")
    options = {key: given[key] for key in ("test_index", "download", "channels")} | {"size": None if oblong else size}
    try:
        images = sets.load(given["data"], split, given["data_path"], seed=given["data_seed"], **options)
    except TypeError as error:  # another dtype than uint8: bad input, not a bug
        raise ValueError(str(error)) from error
    shape = tuple(images[0][0].shape[1:])
    if oblong and shape != size:  # arrays keep their shape; pictures are only ever made square
        raise ValueError(f"the images are {shape[0]} x {shape[1]}, only a square size can be made of them, not "
                         f"{size[0]} x {size[1]}")  # fmt: skip
    return images


def _sets(given: dict) -> tuple[torch.utils.data.Dataset, torch.utils.data.Dataset]:
    return _set(given, "train"), _set(given, "test")


def _levels(images: torch.utils.data.Dataset) -> str:
    total, squares, count, low, high = 0.0, 0.0, 0, 255, 0
    for first in range(0, len(images), 1024):
        batch = images.__getitems__(range(first, min(first + 1024, len(images))))[0]
        total, squares = total + float(batch.double().sum()), squares + float(batch.double().square().sum())
        count, low, high = count + batch.numel(), min(low, int(batch.min())), max(high, int(batch.max()))
    mean = total / count
    return f"grey levels {low}..{high}, mean {mean:.2f}, standard deviation {(squares / count - mean**2) ** 0.5:.2f}"


def _score(score: tuple[float, float, int], split: str) -> str:
    return f"{split} {score[0]:.4f} bits/dim, standard error {score[1]:.4f}, {score[2]} images"


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder, the output must be a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
