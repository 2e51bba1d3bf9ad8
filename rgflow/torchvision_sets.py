"""Sets that torchvision knows, in the preprocessing of the paper and of its code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torchvision import datasets

from rgflow.pictures import LazyPictures, Pictures, Preparation, held_out, remaining, to_channels

Found = TypeVar("Found")

_CHAIRS = "rendered_chairs"
_OBTAIN = {
    "mnist32": "put the four *-ubyte files into {0}/MNIST/raw, or let --download fetch them",
    "cifar10": (
        "unpack cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html to {0}/cifar-10-batches-py, "
        "or let --download fetch it"
    ),
    "celeba32": (
        "get the aligned pictures and all list files from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put "
        "them into {0}/celeba as img_align_celeba/*.jpg, list_eval_partition.txt, identity_CelebA.txt, "
        "list_attr_celeba.txt, list_bbox_celeba.txt, list_landmarks_align_celeba.txt, or let --download try (it often "
        "fails)"
    ),
    "chair600": (
        "unpack rendered_chairs.tar of https://www.di.ens.fr/willow/research/seeing3Dchairs to {0}/rendered_chairs; "
        "--download cannot fetch it"
    ),
}


def mnist32(path: str | os.PathLike[str] | None, split: str, channels: int | None, download: bool) -> Pictures:
    """MNIST padded with two black pixels on each side to 32 x 32; labels are the digits. Errors as in `cifar10`."""
    root = _root("mnist32", path)
    found = _found("mnist32", root, lambda: datasets.MNIST(root, train=split == "train", download=download))
    images = nn.functional.pad(found.data, (2, 2, 2, 2))[:, None]
    return Pictures(to_channels(images, channels), found.targets.long())


def cifar10(path: str | os.PathLike[str] | None, split: str, channels: int | None, download: bool) -> Pictures:
    """CIFAR-10 as it is, 32 x 32; labels are the classes 0..9.

    FileNotFoundError: no path given, or the set is not there; says how to get it and where to put it.
    """
    root = _root("cifar10", path)
    found = _found("cifar10", root, lambda: datasets.CIFAR10(root, train=split == "train", download=download))
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return Pictures(to_channels(images, channels), torch.tensor(found.targets))


def celeba32(
    path: str | os.PathLike[str] | None, split: str, size: int | None, channels: int | None, download: bool
) -> LazyPictures:
    """CelebA's aligned faces, official split: centre crop of 148, bicubic antialiased resize to 32 or `size`.

    Labels are the identities. The train set asks for mirroring (`flip`). Errors as in `cifar10`.
    """
    root = _root("celeba32", path)

    def find() -> datasets.CelebA:
        return datasets.CelebA(root, split=split, target_type="identity", download=download)

    found = _found("celeba32", root, find)
    prepare = Preparation(size or 32, channels or 3, crop=148)
    return LazyPictures(found, torch.arange(len(found)), prepare, flip=split == "train")


def chair600(
    path: str | os.PathLike[str] | None, split: str, size: int | None, seed: int, channels: int | None, download: bool
) -> LazyPictures:
    """3D Chairs: centre crop of 300 of the 600 x 600 pictures, bicubic antialiased resize to 32 or `size`.

    A tenth chosen by `seed` is the test set (77,730 and 8,636 pictures). Labels are the chair models. The train set
    asks for mirroring (`flip`). Errors as in `cifar10`; ValueError: `download`, which is not possible.
    """
    if download:
        raise ValueError("chair600 cannot be downloaded: " + _OBTAIN["chair600"].format("--data-path"))
    root = _root("chair600", path)
    found = _found("chair600", root, lambda: datasets.ImageFolder(str(root / _CHAIRS)))
    test = held_out(len(found), seed)
    indices = test if split == "test" else remaining(len(found), test)
    return LazyPictures(found, indices, Preparation(size or 32, channels or 3, crop=300), flip=split == "train")


def _root(name: str, path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        raise FileNotFoundError(f"{name} needs --data-path DIR; {_OBTAIN[name].format('DIR')}")
    return Path(path)


def _found(name: str, root: Path, find: Callable[[], Found]) -> Found:
    """torchvision reports a missing set as a RuntimeError, a missing folder or connection as an OSError, and a package
    that it needs for a download (gdown, for CelebA) as an ImportError."""
    try:
        return find()
    except (RuntimeError, OSError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(f"{name} is not under {root} ({reason}); {_OBTAIN[name].format(root)}") from None
