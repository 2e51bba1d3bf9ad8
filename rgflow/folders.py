"""The user's own pictures: a folder of picture files, or one .npy or .npz file."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rgflow.pictures import Pictures, Preparation, held_out, remaining, square, to_channels

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

logger = logging.getLogger(__name__)


def load(
    path: str | os.PathLike[str],
    split: str,
    size: int | None = None,
    test_index: str | os.PathLike[str] | None = None,
    seed: int = 0,
    channels: int | None = None,
) -> Pictures:
    """Read one split of the pictures in a folder or in a .npy or .npz file.

    A folder is searched with its subfolders for files ending in .png, .jpg and the like, in the order of their names;
    size 32 and 3 channels unless said otherwise; files that cannot be decoded are skipped, counted and named in the
    log. Transparent pixels are laid on white. Labels are -1.

    A .npy holds uint8 (N, H, W, C) or (N, H, W); an .npz holds such an array as `images` or as its only array, and
    perhaps `split` (N,) of 0 train and 1 test, and `labels` (N,) of integers (else -1). Without `size` the images
    stay as they are.

    The test set is what `test_index` names (a .npy or text file of integers, counted from 0 over the array or over
    the sorted files, unreadable ones included), else what `split` says, else a tenth chosen by `seed`.

    Where a size is given, the largest middle square is cut out and resized, bicubic with antialiasing.

    FileNotFoundError: no such path. TypeError: another dtype than uint8. ValueError: a wrong shape, a broken file, an
    empty folder or split, bad indices, a number of channels that cannot be made.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, split, size or 32, test_index, seed, channels or 3)
    if not path.is_file():
        raise FileNotFoundError(f"images: {path} is neither a folder of pictures nor a .npy or .npz file")
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"images: {path} must be a folder, a .npy or an .npz file")
    arrays = _arrays(path)
    images = arrays["images"]
    _check_images(images, path)
    parts = _parts(len(images), arrays.get("split"), test_index, seed, path)
    chosen = parts[split]
    _check_filled(chosen, split, path)
    picked = torch.from_numpy(np.ascontiguousarray(_resized(images[chosen.numpy()], size).transpose(0, 3, 1, 2)))
    labels = arrays.get("labels")
    if labels is not None:
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: `labels` must be integers of shape ({len(images)},), got {labels.dtype} {labels.shape}"
            )
        labels = torch.from_numpy(labels[chosen.numpy()].astype(np.int64))
    return Pictures(to_channels(picked, channels), labels)


def read_index(path: str | os.PathLike[str], n: int) -> Tensor:
    """Read the test set's indices from a .npy or text file (integers between white space): sorted int64, each once.

    FileNotFoundError: no such file. ValueError: not integers, none at all, or outside 0..n-1.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"test index file {path} does not exist")
    try:
        if path.suffix == ".npy":
            given = np.load(path, allow_pickle=False)
        else:
            given = np.array([int(word) for word in path.read_text(encoding="utf-8").split()], dtype=np.int64)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"test index file {path} must hold integers, as .npy or as text: {error}") from None
    if given.ndim != 1 or given.dtype.kind not in "iu" or given.size == 0:
        raise ValueError(f"test index file {path} must hold a list of integers, got {given.dtype} {given.shape}")
    if given.min() < 0 or given.max() >= n:
        raise ValueError(f"test index file {path} must stay within 0..{n - 1}, got {given.min()}..{given.max()}")
    return torch.from_numpy(np.unique(given).astype(np.int64))


def _from_folder(
    path: Path, split: str, size: int, test_index: str | os.PathLike[str] | None, seed: int, channels: int
) -> Pictures:
    files = [file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file()]
    files.sort(key=lambda file: file.relative_to(path).as_posix())  # the same order on every system
    if not files:
        raise ValueError(f"images: no pictures under {path}; looked for {' '.join(EXTENSIONS)}")
    prepare = Preparation(size, channels)

    def read(file: Path) -> Tensor | str:
        try:
            with Image.open(file) as picture:
                return prepare(picture)
        except _UNREADABLE as error:
            return f"{file.relative_to(path)} ({type(error).__name__})"

    chosen = _parts(len(files), None, test_index, seed, path)[split]
    _check_filled(chosen, split, path)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, (files[int(i)] for i in chosen)))
    bad = [reason for reason in found if isinstance(reason, str)]
    if bad:
        logger.warning("skipped %d unreadable of %d pictures under %s:", len(bad), len(found), path)
    for reason in bad:
        logger.warning("  %s", reason)
    good = [image for image in found if isinstance(image, Tensor)]
    if not good:
        raise ValueError(f"images: none of the {len(found)} pictures of the {split} set under {path} can be read")
    return Pictures(torch.stack(good))


def _arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of a file that matter here, under the names images, split and labels."""
    names: list[str] = []
    try:
        if path.suffix == ".npy":
            return {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = file.files
            if "images" in names:
                return {name: file[name] for name in ("images", "split", "labels") if name in names}
            if len(names) == 1:
                return {"images": file[names[0]]}
    except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as {path.suffix}: {reason}") from None
    raise ValueError(f"{path} must hold `images` or one array only, it holds: {', '.join(names) or 'nothing'}")


def _check_images(images: NDArray, path: Path) -> None:
    if images.dtype != np.uint8:
        raise TypeError(f"{path}: images must be uint8 (0..255), got {images.dtype}")
    if images.ndim not in (3, 4) or images.size == 0:
        raise ValueError(
            f"{path}: images must have shape (N, H, W, C) or (N, H, W), none of them 0, got {images.shape}"
        )
    if images.ndim == 4 and images.shape[3] > min(images.shape[1:3]):
        raise ValueError(f"{path}: images must have shape (N, H, W, C), channels last, got {images.shape}")


def _parts(
    n: int, split: NDArray | None, test_index: str | os.PathLike[str] | None, seed: int, path: Path
) -> dict[str, Tensor]:
    if test_index is not None:
        test = read_index(test_index, n)
    elif split is not None:
        if split.shape != (n,) or split.dtype.kind not in "iub" or not np.isin(split, (0, 1)).all():
            raise ValueError(f"{path}: `split` must be {n} numbers, 0 for train and 1 for test")
        test = torch.from_numpy(np.flatnonzero(split))
    else:
        test = held_out(n, seed)
    return {"train": remaining(n, test), "test": test}


def _check_filled(chosen: Tensor, split: str, path: Path) -> None:
    if len(chosen) == 0:
        raise ValueError(f"{path}: the {split} set is empty")


def _resized(images: NDArray, size: int | None) -> NDArray:
    """(N, H, W) or (N, H, W, C) -> (N, H', W', C); each channel alone, so that any number of them will do."""
    images = images if images.ndim == 4 else images[..., None]
    if size is None or images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, to in zip(images, resized, strict=True):
        for c in range(image.shape[2]):
            to[..., c] = np.asarray(square(Image.fromarray(np.ascontiguousarray(image[..., c])), size))
    return resized
