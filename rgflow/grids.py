"""Grids of images as PNG files."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rgflow.files import replacing
from rgflow.flow import Flow
from rgflow.pixels import from_logit


def grid(images: Tensor, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Lays images out row by row on a white ground.

    Shapes: images uint8 (N, C, H, W), C = 1 or 3; the grid uint8 (rows, columns, 3).

    Arguments:
        columns: images in a row; about the square root of N when None.
        gap: white pixels between two images.

    Raises:
        TypeError: images are not uint8.
        ValueError: no images, neither 1 nor 3 channels, or no columns.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 grey levels, not {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), not {tuple(images.shape)}")
    n, channels, height, width = images.shape
    if n < 1 or channels not in (1, 3):
        raise ValueError(f"a grid needs at least one image of 1 or 3 channels, not {tuple(images.shape)}")
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for k, image in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = k // columns * (height + gap), k % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def write_grid(images: Tensor, path: str | os.PathLike[str], columns: int | None = None, scale: int = 1) -> None:
    """Writes a grid of images as PNG, atomically.

    Arguments:
        images, columns: as in `grid`.
        scale: edge of a pixel of the image in pixels of the file.

    Raises:
        TypeError, ValueError: as `grid`, or a scale below 1.
        OSError: the file cannot be written.
    """
    if scale < 1:
        raise ValueError(f"scale must be at least 1, not {scale}")
    picture = Image.fromarray(grid(images, columns).repeat(scale, 0).repeat(scale, 1))
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


@torch.no_grad()
def sample_images(
    flow: Flow, n: int, temperature: float | list[float] = 1.0, seed: int = 0, batch_size: int = 64
) -> Tensor:
    """Draws n images, uint8 (n, C, H, W) on the CPU, in batches from one generator seeded with `seed`.

    Raises:
        ValueError: n below 1, or a temperature that does not fit the flow.
    """
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, not {n}")
    generator = torch.Generator(device=flow.device).manual_seed(seed)
    counts = [min(batch_size, n - first) for first in range(0, n, batch_size)]
    return torch.cat([from_logit(flow.sample(count, temperature, generator)).cpu() for count in counts])
