"""The original code's `.state` files (github.com/hongyehu/RG-Flow) as our flows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rgflow.flow import Flow, RGFlowConfig, build
from rgflow.priors import PRIORS

_DTYPES = ("float32", "float64")  # a state file has that of its weights
_NET = re.compile(r"layers\.(\d+)\.([st])_layers\.(\d+)\.(.+)")
_LINEAR = re.compile(r"res_blocks\.(\d+)\.(\d+)\.(scale|weight_g|weight_v|bias)")


def config_from_args(args: dict) -> RGFlowConfig:
    """Translates the options of the original program to a config.

    Arguments:
        args: its options by name (`nchannels, L, prior, subnet, kernel_size, nlayers, nresblocks, nmlp, nhidden,
            dtype`); lists may be strings with commas. Other options concern training and are left out.

    Raises:
        ValueError: an option is missing or has an unknown value; `subnet` "ar", whose log-determinant was wrong, so
            that no file of it can be reproduced by a true bijection.
    """
    missing = [name for name in ("nchannels", "L", "nlayers", "nresblocks", "nmlp", "nhidden") if name not in args]
    if missing:
        raise ValueError(f"the authors' settings lack {', '.join(missing)}")
    if args.get("subnet", "rnvp") != "rnvp":
        raise ValueError(
            f"only subnet 'rnvp' can be read, not {args['subnet']!r}: the original 'ar' is not a bijection"
        )
    if args.get("dtype", "float32") not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, not {args['dtype']!r}")

    def numbers(name: str) -> int | tuple[int, ...]:
        try:
            values = tuple(int(v) for v in str(args[name]).strip("[]() ").split(","))
        except ValueError:
            raise ValueError(f"{name} must be integers with commas between them, not {args[name]!r}") from None
        return values[0] if len(values) == 1 else values

    return RGFlowConfig(
        channels=numbers("nchannels"),
        size=numbers("L"),
        block=int(args.get("kernel_size", 4)),
        nlayers=numbers("nlayers"),
        nres=numbers("nresblocks"),
        nmlp=numbers("nmlp"),
        nhidden=numbers("nhidden"),
        prior=args.get("prior", "laplace"),
        stream="full",
        order="authors",
    )


def load_state(path: str | Path, config: RGFlowConfig | dict | str | Path) -> Flow:
    """Reads a `.state` file of the original code; order, stream and sharing are set to the authors' here.

    Arguments:
        path: the file; a dict with "flow", or a bare state dict, with or without the multi-GPU prefix `module.net.`.
        config: an `RGFlowConfig`, or the authors' settings as a dict or as the path of a JSON file.

    Returns:
        the flow, in the dtype of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or its weights do not fit the config.
    """
    path = Path(path)
    if isinstance(config, (str, Path)):
        config = _settings(Path(config))
    if isinstance(config, dict):
        config = config_from_args(config)
    config = replace(
        config,
        coupling="affine",
        net="residual",
        order="authors",
        stream="full",
        tied=True,
        repeat=1,
        share_levels=False,
    )
    state = _read(path)
    flow = build(config, torch.Generator().manual_seed(0)).to(
        next(v.dtype for k, v in state.items() if k.endswith("weight_v"))
    )
    ours = {k: torch.full_like(v, torch.nan) for k, v in flow.state_dict().items()}
    orders = [half.order for level in range(flow.bijector.depth + 1) for half in flow.bijector.step(level).blocks]
    _check_constants(path, state, config)
    for key, value in state.items():
        if match := _NET.fullmatch(key):
            block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
            if rest in ("scale.saved_mean", "scale.saved_var"):
                continue  # debug statistics
            level, second = divmod(block, 2)
            kin = "decimators" if second else "disentanglers"
            name = f"bijector.steps.{level}.{kin}.0.bijector.layers.{layer}.nets.0."
            per_block = (config.per_level("nmlp")[level] + 1) if level <= flow.bijector.depth else 1
            target, value = _renamed(rest, value, per_block, orders[block] if block < len(orders) else None)
            if name + target not in ours or ours[name + target][0].shape != value.shape:
                raise ValueError(f"{path}: {key} {tuple(value.shape)} does not fit the given config")
            ours[name + target][0 if kind == "s" else 1] = value
    empty = [k for k, v in ours.items() if v.is_floating_point() and v.isnan().any()]
    if empty:
        raise ValueError(
            f"{path}: nothing in the file for {len(empty)} tensors of the given config, such as {empty[0]}"
        )
    flow.load_state_dict(ours)
    return flow


def _renamed(rest: str, value: Tensor, per_block: int, order: Tensor | None) -> tuple[str, Tensor]:
    """Our name and layout for one tensor of a network. Patch features are (c, row, column) there, checkerboard halves
    here."""
    if rest == "scale.scale":
        return "scale", value.reshape(1, -1)[:, order]
    match = _LINEAR.fullmatch(rest)
    if not match or order is None:
        raise ValueError(f"not a tensor of the original code: {rest}")
    # In a residual block the activation is at the even places and its linear layer behind it.
    place, (k, what) = int(match[1]), (int(match[2]) // 2, match[3])
    first, last = k == 0, k == per_block - 1
    name = f"blocks.{place}.linears.{k}."
    if what == "scale":
        value = value.reshape(1, -1)
        return name + "beta", value[:, order] if first else value
    if what == "weight_v":
        value = value[:, order] if first else value
        return name + "v", value[order] if last else value
    value = value.reshape(-1, 1) if what == "weight_g" else value.reshape(1, -1)
    if what == "weight_g":
        return name + "g", value[order] if last else value
    return name + "bias", value[:, order] if last else value


def _check_constants(path: Path, state: dict[str, Tensor], config: RGFlowConfig) -> None:
    """Refuses a file whose prior or masks are not those of the config, and one with tensors that we do not know."""
    expected = PRIORS[config.prior].scale
    rows, columns = torch.arange(config.block)[:, None], torch.arange(config.block)[None, :]
    left = ((rows + columns) % 2 == 0).expand(config.channels, config.block, config.block)
    for key, value in state.items():
        if key == "prior.scale":
            if not torch.allclose(value.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6):
                given = value.flatten()[0].item()
                raise ValueError(
                    f"{path}: a prior of scale {given:.4g} is not the config's {config.prior} of {expected:.4g}"
                )
        elif key.endswith(("mask_left", "mask_right")):
            if not torch.equal(value.bool(), left if key.endswith("left") else ~left):
                raise ValueError(f"{path}: {key} is not the checkerboard of the given config")
        elif not _NET.fullmatch(key):
            raise ValueError(f"{path}: {key} is no tensor of the original code")


def _settings(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold the settings by name, not a {type(settings).__name__}")
    return settings


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for broken files
        raise ValueError(f"{path} is not a readable .state file: {str(error).splitlines()[0]}") from None
    if isinstance(state, dict) and isinstance(state.get("flow"), dict):
        state = state["flow"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is not a .state file of the original code: no dict of tensors in it")
    state = {k.removeprefix("module.net."): v for k, v in state.items()}
    if not any(k.endswith("weight_v") for k in state):
        raise ValueError(f"{path} is not a .state file of the original code: no weight-normalised layers in it")
    return state
