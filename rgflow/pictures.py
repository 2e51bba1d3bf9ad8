"""Sets of uint8 pictures, and how a picture becomes a square tensor of a given size and number of channels."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

Label = int | dict[str, Tensor]


class Pictures(Dataset[tuple[Tensor, Label]]):
    """A set held in memory, with items `(image uint8 (C, H, W), label)`.

    images: uint8 (N, C, H, W)
    labels: int64 (N,), or a dict of tensors (N, ...) of which an item has its own row; None stands for -1, unlabelled
    flip: whether training may mirror the images left to right; the set itself never does

    TypeError: images that are not uint8. ValueError: another number of axes, no images, or labels of another length.
    """

    def __init__(self, images: Tensor, labels: Tensor | dict[str, Tensor] | None = None, flip: bool = False) -> None:
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        if images.ndim != 4 or images.numel() == 0:
            raise ValueError(f"images must have shape (N, C, H, W) with none of them 0, got {tuple(images.shape)}")
        self.images = images
        self.labels = torch.full((len(images),), -1) if labels is None else labels
        self.flip = flip
        for label in self.labels.values() if isinstance(self.labels, dict) else (self.labels,):
            if len(label) != len(images):
                raise ValueError(f"{len(images)} images need as many labels, got {len(label)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        if isinstance(self.labels, dict):
            return self.images[index], {key: label[index] for key, label in self.labels.items()}
        return self.images[index], int(self.labels[index])


class LazyPictures(Dataset[tuple[Tensor, int]]):
    """A set whose pictures are decoded when asked for, with items `(image uint8 (C, H, W), label)`.

    source: a sequence of `(picture, label)`
    indices: int64 (N,), the part of it to use
    prepare: picture -> uint8 (C, H, W)
    flip: as in `Pictures`

    ValueError: no indices.
    """

    def __init__(
        self, source: Any, indices: Tensor, prepare: Callable[[Image.Image], Tensor], flip: bool = False
    ) -> None:
        if len(indices) == 0:
            raise ValueError("the set has no pictures")
        self.source, self.indices, self.prepare, self.flip = source, indices, prepare, flip

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = self.source[int(self.indices[index])]
        return self.prepare(picture), int(label)


def plain(picture: Image.Image, channels: int) -> Image.Image:
    """A picture upright, opaque (on white) and of 8 bits, in colour (3 channels) or grey (1).

    ValueError: another number of channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if picture.mode.startswith("I;16"):  # Pillow would clip the upper byte instead of keeping it
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:  # without a ground their hidden colours would show
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB" if channels == 3 else "L")


class Preparation:
    """Picture -> uint8 (channels, size, size): centre crop to a square, then bicubic antialiased resizing.

    crop: edge of the square; None takes the largest that fits. A picture smaller than `crop` raises ValueError.
    """

    def __init__(self, size: int, channels: int = 3, crop: int | None = None) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        self.size, self.channels, self.crop = size, channels, crop

    def __call__(self, picture: Image.Image) -> Tensor:
        array = np.asarray(square(plain(picture, self.channels), self.size, self.crop))
        return torch.from_numpy(array.reshape(self.size, self.size, self.channels).transpose(2, 0, 1).copy())


def read_picture(path: str | os.PathLike[str], size: tuple[int, int], channels: int = 3) -> Tensor:
    """A picture file as uint8 (channels, H, W): as it is where it has that size, else cut and resized to the square.

    FileNotFoundError, OSError: it is not there, or no picture. ValueError: (H, W) is no square, and not its size.
    """
    with Image.open(path) as picture:
        width, height = ImageOps.exif_transpose(picture).size
        if size[0] != size[1] and (height, width) != size:
            raise ValueError(f"{path} is {height} x {width} pixels, the model takes {size[0]} x {size[1]}")
        if (height, width) != size:
            return Preparation(size[0], channels)(picture)
        array = np.asarray(plain(picture, channels))
    return torch.from_numpy(array.reshape(*size, channels).transpose(2, 0, 1).copy())


def read_mask(path: str | os.PathLike[str], image: str | os.PathLike[str], size: tuple[int, int]) -> Tensor:
    """The bright half of a picture's grey levels as bool (H, W), cut and resized as `read_picture` does with `image`.

    ValueError: it has another size than that picture.
    """
    with Image.open(path) as mask, Image.open(image) as picture:
        sizes = [ImageOps.exif_transpose(p).size for p in (mask, picture)]
    if sizes[0] != sizes[1]:
        (width, height), (w, h) = sizes
        raise ValueError(f"the mask {path} is {height} x {width} pixels, the picture {image} {h} x {w}")
    return read_picture(path, size, 1)[0] > 127


def square(picture: Image.Image, size: int, crop: int | None = None) -> Image.Image:
    """Cut the middle square of edge `crop` (None: the shorter side) and resize it to `size`, bicubic with antialiasing.

    The corner is rounded as in torchvision's CenterCrop. ValueError: a picture smaller than `crop`.
    """
    width, height = picture.size
    edge = min(width, height) if crop is None else crop
    if edge > min(width, height):
        raise ValueError(f"a picture of {width} x {height} is too small for a centre crop of {edge}")
    left, top = round((width - edge) / 2), round((height - edge) / 2)
    picture = picture.crop((left, top, left + edge, top + edge))
    return picture if edge == size else picture.resize((size, size), Image.Resampling.BICUBIC)


def to_channels(images: Tensor, channels: int | None) -> Tensor:
    """Turn grey images into colour or colour into grey: uint8 (N, C, H, W) -> (N, channels, H, W).

    Grey is repeated; colour becomes L = (19595 R + 38470 G + 7471 B + 32768) / 65536 (ITU-R 601, integers as in
    Pillow). None keeps what is there.

    ValueError: any other pair of channel numbers.
    """
    have = images.shape[1]
    if channels is None or channels == have:
        return images
    if (have, channels) == (1, 3):
        return images.repeat(1, 3, 1, 1)
    if (have, channels) == (3, 1):
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
        parts = [((part.int() * weights).sum(1, keepdim=True) + 32768) >> 16 for part in images.split(4096)]
        return torch.cat([part.to(torch.uint8) for part in parts])
    raise ValueError(f"images with {have} channels cannot be turned into {channels}; only 1 to 3 and 3 to 1 can")


def held_out(n: int, seed: int) -> Tensor:
    """Choose a test set: the last tenth (rounded down, at least 1) of a permutation of 0..n-1 by `seed`, sorted."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[n - max(1, n // 10) :].sort().values


def remaining(n: int, test: Tensor) -> Tensor:
    """Everything in 0..n-1 that is not in `test`, in order."""
    keep = torch.ones(n, dtype=torch.bool)
    keep[test] = False
    return keep.nonzero()[:, 0]


def edge_length(size: int | tuple[int, int] | None) -> int | None:
    """Read a size given as one integer or as two equal ones (H, W); None stays None. ValueError: anything else."""
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or sides[0] != sides[1] or isinstance(sides[0], bool) or not isinstance(sides[0], int):
        raise ValueError(f"size must be one integer or two equal ones, got {size}")
    if sides[0] < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return sides[0]
