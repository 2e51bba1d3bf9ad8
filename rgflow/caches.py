"""The folder where generated sets are kept between runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from rgflow import synthetic
from rgflow.files import replacing

_VERSION = 1  # part of the file names: raise it when the drawing of MSDS1 or MSDS2 changes
_DRAW: dict[str, Callable[..., tuple[Tensor, dict[str, Tensor]]]] = {"msds1": synthetic.msds1, "msds2": synthetic.msds2}

logger = logging.getLogger(__name__)


def folder() -> Path:
    """The cache folder: the environment variable RGFLOW_CACHE, else the system's place for a user's caches."""
    chosen = os.environ.get("RGFLOW_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("rgflow"))


def msds(name: str, split: str, n: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The n images of one split of `msds1` or `msds2`, drawn when first asked for and read from the cache folder later.

    Train and test come from different random streams of the same seed. A file that is truncated, damaged or of other
    content is made again. The file appears at once under its final name, so processes that make it at the same time
    do no harm. Where nothing can be written the images are drawn each time, with a warning in the log.

    returns: images uint8 (n, 3, 32, 32) and the labels of `synthetic.msds1`

    ValueError: an unknown name or split, or n below 1.
    """
    if name not in _DRAW or split not in ("train", "test") or n < 1:
        raise ValueError(
            f"name must be one of {', '.join(_DRAW)}, split train or test, n at least 1; got {name!r}, {split!r}, {n}"
        )
    path = folder() / f"{name}-v{_VERSION}-seed{seed}-{split}-{n}.npz"
    if path.is_file():
        try:
            return _read(path, n)
        except Exception as error:  # one flipped bit is enough for nearly any of them
            logger.warning("%s is damaged (%s) and is made again", path, error)
    logger.info("making the %s set of %s: %d images", split, name, n)
    generator = torch.Generator().manual_seed(2 * seed + (split == "test"))
    images, labels = _DRAW[name](n, generator)
    try:
        _write(path, images, labels)
    except OSError as error:
        logger.warning("%s could not be written (%s); the images will be drawn again next time", path, error)
    return images, labels


def _read(path: Path, n: int) -> tuple[Tensor, dict[str, Tensor]]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # checks each array's CRC
        arrays = {key: torch.from_numpy(file[key]) for key in ("images", "global", "position", "angle", "colour")}
    images = arrays.pop("images")
    if images.shape != (n, 3, synthetic.SIZE, synthetic.SIZE) or images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}")
    if any(len(label) != n for label in arrays.values()):
        raise ValueError("labels and images differ in number")
    return images, arrays


def _write(path: Path, images: Tensor, labels: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images.numpy(), **{key: label.numpy() for key, label in labels.items()})
