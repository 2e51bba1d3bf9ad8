"""Sets of images by name: generated, shipped with packages, well-known ones on disk, and the user's own.

Every set is a torch Dataset of `(image uint8 (C, H, W), label)` with an attribute `flip`, which asks the training
step to mirror images left to right. Sets held in memory, all but celeba32 and chair600, also have `images` (N, C, H,
W) and `labels`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from rgflow import caches, folders, synthetic, torchvision_sets
from rgflow.pictures import Pictures, edge_length, held_out, remaining, to_channels

MSDS_SIZES = {"train": 90_000, "test": 10_000}

PATCH_STEPS = {"train": 4, "test": 1}  # from one patch to the next that many make an edge
PHOTOGRAPHS = {  # per split: package, file
    "train": (
        ("skimage.data", "astronaut.png"),
        ("skimage.data", "coffee.png"),
        ("skimage.data", "motorcycle_left.png"),
        ("sklearn.datasets.images", "china.jpg"),
    ),
    "test": (
        ("skimage.data", "chelsea.png"),
        ("skimage.data", "rocket.jpg"),
        ("sklearn.datasets.images", "flower.jpg"),
    ),
}


def load(
    name: str,
    split: str = "train",
    path: str | os.PathLike[str] | None = None,
    size: int | tuple[int, int] | None = None,
    test_index: str | os.PathLike[str] | None = None,
    download: bool = False,
    seed: int = 0,
    channels: int | None = None,
) -> Dataset:
    """Give one split of a set of images.

    name: one of `NAMES`, see `describe`
    split: "train" or "test"
    path: where the sets that are not made or shipped lie (the folder above torchvision's own); for `images`, the
        folder or file itself
    size: edge of the images in pixels, or (H, W) with both equal; free for images, celeba32, chair600, fixed for the
        others
    test_index: file of integers that names the test set, only for `images`, see `folders.load`
    download: let torchvision fetch mnist32, cifar10 or celeba32 if missing; nothing is ever fetched otherwise
    seed: chooses the random test sets (digits8, chair600, images) and the draws of msds1 and msds2
    channels: 1 or 3 turns colour to grey or repeats grey; None keeps what the set has

    returns: a Dataset of `(image uint8 (C, H, W), label)`; the label is an integer, -1 where there is none, for msds1
        and msds2 the dict of that image's factors, see `synthetic.msds1`

    ValueError: unknown name or split, a size or option that the set does not have. FileNotFoundError: a set that is
    not there; says how to get it and where to put it. Errors of `images`: see `folders.load`.
    """
    entry = _entry(name)
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    if channels is not None and channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    if test_index is not None and name != "images":
        raise ValueError(f"a test index file goes with images only; {name} has its own test set")
    if download and name not in ("mnist32", "cifar10", "celeba32", "chair600"):
        raise ValueError(f"{name} is never downloaded; leave download out")
    edge = edge_length(size)
    if entry.size is not None and edge not in (None, entry.size):
        raise ValueError(f"{name} has images of {entry.size} x {entry.size}, size must be {entry.size}, got {edge}")
    return entry.load(Request(name, split, path, edge, test_index, download, seed, channels))


def describe(name: str) -> str:
    """One paragraph on a set: what it is, how it is made or where it must lie, its split. ValueError: unknown name."""
    return _entry(name).help


@dataclass(frozen=True)
class Request:
    """What `load` was asked for, checked."""

    name: str
    split: str
    path: str | os.PathLike[str] | None
    size: int | None
    test_index: str | os.PathLike[str] | None
    download: bool
    seed: int
    channels: int | None


@dataclass(frozen=True)
class _Entry:
    load: Callable[[Request], Dataset]
    size: int | None  # None: free
    help: str


def _entry(name: str) -> _Entry:
    if name not in _SETS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(NAMES)}")
    return _SETS[name]


def _msds(request: Request) -> Pictures:
    images, labels = caches.msds(request.name, request.split, MSDS_SIZES[request.split], request.seed)
    return Pictures(to_channels(images, request.channels), labels)


def _patches(edge: int, request: Request) -> Pictures:
    stride = edge // PATCH_STEPS[request.split]
    patches, labels = [], []
    for number, (package, file) in enumerate(PHOTOGRAPHS[request.split]):
        grid = _photograph(package, file).unfold(1, edge, stride).unfold(2, edge, stride)
        patches.append(grid.permute(1, 2, 0, 3, 4).reshape(-1, 3, edge, edge))  # grid: (3, rows, columns, edge, edge)
        labels.append(torch.full((len(patches[-1]),), number))
    return Pictures(to_channels(torch.cat(patches), request.channels), torch.cat(labels))


def _photograph(package: str, file: str) -> Tensor:
    """A photograph that lies inside an installed package, (3, H, W); its own loader could reach for the network."""
    place = files(package) / file
    if not place.is_file():
        raise FileNotFoundError(f"{file} is missing from {package}; install scikit-image 0.26 and scikit-learn 1.9")
    with place.open("rb") as stream, Image.open(stream) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def _digits8(request: Request) -> Pictures:
    from sklearn.datasets import load_digits  # here, for it is slow to import

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target).long()
    test = held_out(len(images), request.seed)
    chosen = test if request.split == "test" else remaining(len(images), test)
    return Pictures(to_channels(images[chosen], request.channels), labels[chosen])


def _mnist32(request: Request) -> Dataset:
    return torchvision_sets.mnist32(request.path, request.split, request.channels, request.download)


def _cifar10(request: Request) -> Dataset:
    return torchvision_sets.cifar10(request.path, request.split, request.channels, request.download)


def _celeba32(request: Request) -> Dataset:
    return torchvision_sets.celeba32(request.path, request.split, request.size, request.channels, request.download)


def _chair600(request: Request) -> Dataset:
    return torchvision_sets.chair600(
        request.path, request.split, request.size, request.seed, request.channels, request.download
    )


def _images(request: Request) -> Dataset:
    if request.path is None:
        raise FileNotFoundError("images needs --data-path: a folder of pictures, a .npy or an .npz file")
    return folders.load(request.path, request.split, request.size, request.test_index, request.seed, request.channels)


_MSDS_HELP = (
    "32 x 32 colour pictures on black, a 4 x 4 grid of ovals. Generated with the factors of every picture as its "
    f"label; made on first use ({MSDS_SIZES['train']:,} train, {MSDS_SIZES['test']:,} test, some seconds) and kept "
    "in the cache folder (RGFLOW_CACHE or the user's own)."
)

_SETS = {
    "msds1": _Entry(
        _msds,
        synthetic.SIZE,
        f"msds1: {_MSDS_HELP} The ovals of a picture share a colour; angles are free.",
    ),
    "msds2": _Entry(
        _msds,
        synthetic.SIZE,
        f"msds2: {_MSDS_HELP} The ovals of a picture share an angle; colours are free.",
    ),
    "patches32": _Entry(
        partial(_patches, 32),
        32,
        "patches32: 32 x 32 colour patches of photographs that come with scikit-image and scikit-learn; no "
        "download. Train: 16,206 patches, every 8 pixels, of astronaut, coffee, motorcycle (left) and china; "
        "test: 646 patches side by side, of chelsea, rocket and flower. The label numbers the photograph within "
        "its split.",
    ),
    "patches64": _Entry(
        partial(_patches, 64),
        64,
        "patches64: the photographs of patches32 in patches of 64 x 64; no download. Train: 3,644 patches, every 16 "
        "pixels; test: 148 side by side, whose quarters are among the test patches of patches32.",
    ),
    "digits8": _Entry(
        _digits8,
        8,
        "digits8: scikit-learn's 1,797 handwritten digits, 8 x 8 grey, 0..16 scaled to 0..255; no download. 1,618 "
        "train and 179 test, chosen by the seed. The label is the digit.",
    ),
    "mnist32": _Entry(
        _mnist32,
        32,
        "mnist32: handwritten digits, grey, padded from 28 to 32 pixels with black; 60,000 train, 10,000 test, in "
        "torchvision's layout DATA_PATH/MNIST/raw. The label is the digit.",
    ),
    "cifar10": _Entry(
        _cifar10,
        32,
        "cifar10: 32 x 32 colour pictures of ten classes; 50,000 train, 10,000 test, in torchvision's layout "
        "DATA_PATH/cifar-10-batches-py. The label is the class.",
    ),
    "celeba32": _Entry(
        _celeba32,
        None,
        "celeba32: aligned faces, middle square of 148, bicubic antialiased resize to 32 (or the size given), "
        "mirrored at random in training; the official 162,770 train and 19,962 test, in torchvision's layout "
        "DATA_PATH/celeba. The label is the identity. For non-commercial research only.",
    ),
    "chair600": _Entry(
        _chair600,
        None,
        "chair600: 3D Chairs, middle square of 300 of the 600 x 600 renderings, bicubic antialiased resize to 32 "
        "(or the size given), mirrored at random in training; 77,730 train, 8,636 test, chosen by the seed, from "
        "DATA_PATH/rendered_chairs/MODEL/renders/*.png. The label is the chair model.",
    ),
    "images": _Entry(
        _images,
        None,
        "images: your own. DATA_PATH is a folder of pictures (searched with its subfolders; unreadable files are "
        "skipped and named in the log), or a .npy or .npz of uint8 (N, H, W, C) or (N, H, W); an .npz holds them "
        "as `images` or as its only array. With a size, the largest middle square is resized, bicubic with "
        "antialiasing (folders: 32 by default). The test set is what --test-index FILE names, else `split` in the "
        ".npz (0 train, 1 test), else a tenth chosen by the seed. Labels: `labels` in the .npz, else -1.",
    ),
}

NAMES: tuple[str, ...] = tuple(_SETS)
