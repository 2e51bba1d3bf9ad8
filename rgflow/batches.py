"""Batches of images: their order, noise and flips, all keyed by (seed, epoch, image index); and the score of a set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from rgflow.flow import Flow
from rgflow.pixels import keyed_noise

NOISE, FLIP = 0, 1  # streams of `keyed_noise`
KEPT = 2**31  # bytes of decoded pictures


class Score(NamedTuple):
    """Mean bits/dim of a set, its standard error over images, and their number."""

    mean: float
    standard_error: float
    n: int


class Indexed(Dataset[tuple[Tensor, Tensor]]):
    """A set of images that says which images it gives: a list of indices -> (uint8 (B, C, H, W), int64 (B,)).

    Arguments:
        images: set of (uint8 (C, H, W), label); `.images` (N, C, H, W) is used where there is one, `.flip` tells
            whether training may mirror the images. Pictures that are decoded when asked for are decoded once and kept,
            up to 2 GiB of them, unless a worker process reads them.
    """

    def __init__(self, images: Dataset) -> None:
        self.source = images
        self.memory: Tensor | None = getattr(images, "images", None)
        self.flip = bool(getattr(images, "flip", False))
        self.kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, indices = self.__getitems__([index])
        return images[0], indices[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.as_tensor(indices, dtype=torch.int64)
        if self.memory is not None:
            return self.memory[index], index
        return torch.stack([self._picture(i) for i in index.tolist()]), index

    def _picture(self, index: int) -> Tensor:
        if index in self.kept:
            return self.kept[index]
        picture = self.source[index][0]
        if get_worker_info() is None and (len(self.kept) + 1) * picture.numel() <= KEPT:
            self.kept[index] = picture
        return picture


def shuffled(n: int, seed: int, epoch: int) -> list[int]:
    """The order of n images in an epoch: a permutation that depends on (n, seed, epoch) alone."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(n).tolist()


class BatchStream(Sampler[list[int]]):
    """The batches of a run from a given step on, without end: step k is batch k mod s of epoch k div s.

    Here s = n div batch_size; what is left over at the end of an epoch is dropped. A rank gets its own part of every
    global batch, so the global batches are the same for any number of ranks.

    Arguments:
        n: images in the set.
        start: first step.
        rank, ranks: which part of how many.

    Raises:
        ValueError: fewer images than the batch, or a batch that the ranks cannot share equally.
    """

    def __init__(self, n: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, ranks: int = 1) -> None:
        if n < batch_size:
            raise ValueError(f"the training set has {n} images, fewer than one batch of {batch_size}")
        if batch_size % ranks:
            raise ValueError(f"a batch of {batch_size} is not a multiple of the {ranks} processes that share it")
        self.n, self.batch_size, self.seed, self.start = n, batch_size, seed, start
        self.share = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
        self.steps_per_epoch = n // batch_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, batch = divmod(self.start, self.steps_per_epoch)
        while True:
            order = shuffled(self.n, self.seed, epoch)
            for first in range(batch * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size):
                yield order[first : first + self.batch_size][self.share]
            epoch, batch = epoch + 1, 0


def loader(images: Indexed, batches: Sampler[list[int]], workers: int = 0, pin: bool = False) -> DataLoader:
    """Reads batches of (images, indices) as the sampler names them."""
    return DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
    )


def _as_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def flipped(images: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
    """Mirrors each image left to right with probability 1/2, keyed by (seed, epoch, index)."""
    coin = keyed_noise((1, 1, 1), seed, epoch, index, stream=FLIP) < 0.5
    return torch.where(coin, images.flip(-1), images)


def noise(images: Tensor, seed: int, epoch: int, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Dequantisation noise of these images in [0, 1), keyed by (seed, epoch, index)."""
    return keyed_noise(tuple(images.shape[1:]), seed, epoch, index, dtype, NOISE)


def drawn(
    images: Indexed, batch: Tensor, index: Tensor, seed: int, epoch: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What a step makes of a batch of uint8 images, on their device: mirrored where the set allows it, and noise."""
    if images.flip:
        batch = flipped(batch, seed, epoch, index)
    return batch, noise(batch, seed, epoch, index, dtype)


@torch.no_grad()
def code_lengths(
    flow: Flow, images: Dataset, batch_size: int = 64, seed: int = 0, indices: Sequence[int] | None = None
) -> Tensor:
    """Bits/dim of single images, (n,), float64 on the CPU, with noise keyed by (seed, epoch 0, index).

    Arguments:
        indices: of the images; all when None.

    Raises:
        ValueError: no images, or a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    source = images if isinstance(images, Indexed) else Indexed(images)
    chosen = list(range(len(source))) if indices is None else list(indices)
    lengths = [torch.empty(0, dtype=torch.float64)]
    for first in range(0, len(chosen), batch_size):
        batch, index = source.__getitems__(chosen[first : first + batch_size])
        batch, index = batch.to(flow.device), index.to(flow.device)
        bits = flow.bits_per_dim(batch, noise(batch, seed, 0, index, flow.dtype))
        lengths.append(bits.double().cpu())
    return torch.cat(lengths)


def evaluate(
    flow: Flow, images: Dataset, batch_size: int = 64, seed: int = 0, indices: Sequence[int] | None = None
) -> Score:
    """Mean bits/dim of a set with its standard error: (mean, standard error over images, n).

    The noise is one draw per image, keyed by (seed, index): the same call gives the same number, for any batch size up
    to rounding. The standard error is that of the mean over images, s / sqrt(n) with s the sample standard deviation
    (0 for one image).

    Raises:
        ValueError: no images.
    """
    lengths = code_lengths(flow, images, batch_size, seed, indices)
    return score(lengths.sum(), lengths.square().sum(), len(lengths))


def score(total: Tensor, squares: Tensor, n: int) -> Score:
    """The score from the sums of code lengths and of their squares (which ranks can add up).

    Raises:
        ValueError: n is 0.
    """
    if n < 1:
        raise ValueError("there are no images to evaluate")
    mean = float(total) / n
    variance = max(float(squares) / n - mean**2, 0.0) * n / (n - 1) if n > 1 else 0.0
    return Score(mean, (variance / n) ** 0.5, n)


def digest(images: Dataset, most: int = 0) -> str:
    """Sixteen hexadecimal digits that tell one set of images from another.

    Arguments:
        most: images that count, evenly spread; 0: all, or for a set that names its part of a larger one (`indices`,
            whose pictures lie on the disk) these indices and 64 images.
    """
    value, source = hashlib.sha256(), Indexed(images)
    indices = getattr(images, "indices", None)
    if not most and indices is not None:
        value.update(torch.as_tensor(indices, dtype=torch.int64).numpy())
        most = 64
    for index in spread(len(source), most):
        value.update(source[index][0].contiguous().numpy())
    return value.hexdigest()[:16]


def spread(n: int, most: int) -> list[int]:
    """At most `most` of n indices, evenly spread (0: all)."""
    count = min(n, most) if most else n
    return [i * n // count for i in range(count)]
