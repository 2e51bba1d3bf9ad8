"""Where benchmarks put holes: at places drawn by seed, in images that show something there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rgflow.batches import Indexed


@dataclass(frozen=True, kw_only=True)
class Places:
    """Square holes; those nearly of one colour, which anything can fill, are passed over."""

    data: str = "msds1"
    """A set that `rgflow.data.load` knows."""
    holes: int
    """Places of the hole."""
    images: int
    """Images at each place."""
    edge: int
    """Of a hole, pixels."""
    contrast: float = 16.0
    """Least standard deviation of the true grey levels of a channel in a hole."""
    seed: int = 0
    """Of images, holes, noise and draws."""


def pairs(images: Indexed, places: Places) -> Iterator[tuple[tuple[int, int, int, int], Tensor]]:
    """Boxes (top, left, height, width), and images (n, C, H, W), uint8, that have contrast there.

    ValueError: too few of the images have.
    """
    generator = np.random.default_rng(places.seed)
    order = iter(generator.permutation(len(images)))
    height, width = images[0][0].shape[1:]
    for _ in range(places.holes):
        top, left = (int(generator.integers(0, length - places.edge + 1)) for length in (height, width))
        chosen: list[Tensor] = []
        while len(chosen) < places.images:
            k = next(order, None)
            if k is None:
                raise ValueError(
                    f"{len(images)} images are too few for {places.holes} x {places.images} holes with contrast"
                )
            image = images[int(k)][0]
            part = image[:, top : top + places.edge, left : left + places.edge].double()
            if part.flatten(1).std(1).max() >= places.contrast:
                chosen.append(image)
        yield (top, left, places.edge, places.edge), torch.stack(chosen)
