"""Which image of a set is most like another one: whether a sample is a copy of what the flow was trained on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Nearest(NamedTuple):
    """The most similar images of a set.

    distance: (N,), float64, root mean square difference of grey levels; index: (N,), int64, in the set.
    """

    distance: Tensor
    index: Tensor


def nearest(images: Tensor, among: Tensor, mirrored: bool = False, batch_size: int = 1000) -> Nearest:
    r"""The image of a set that differs least from each of some images, exactly, by search through all of them.

    .. math:: d_k = \min_m \sqrt{\frac{1}{CHW} \sum_{cij} (v_{kcij} - t_{mcij})^2}

    Shapes: images (N, C, H, W) and among (M, C, H, W), uint8.

    Arguments:
        mirrored: images of the set count as their own mirror images too, as where training mirrors them.
        batch_size: images of the set that are looked at together.

    Raises:
        ValueError: other shapes or dtypes, an empty set, or batch_size below 1.
    """
    if images.shape[1:] != among.shape[1:] or images.ndim != 4 or not {images.dtype, among.dtype} == {torch.uint8}:
        given = " and ".join(f"{each.dtype} {tuple(each.shape)}" for each in (images, among))
        raise ValueError(f"images must be uint8 (N, C, H, W) and (M, C, H, W), not {given}")
    if not len(among) or batch_size < 1:
        raise ValueError(f"there must be images to compare with, not {len(among)} in batches of {batch_size}")
    # Squares of differences of whole numbers: in float64 all sums are exact, in float32 they would not be.
    wanted = images.flatten(1).double()
    views = [wanted, images.flip(3).flatten(1).double()] if mirrored else [wanted]
    best = wanted.new_full((len(images),), torch.inf)
    index = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for first in range(0, len(among), batch_size):
        part = among[first : first + batch_size].flatten(1).double()
        own = part.square().sum(1)
        for view in views:  # mirroring the image or the other one makes no difference
            squares = view.square().sum(1)[:, None] + own - 2 * view @ part.T
            least, which = squares.min(1)
            closer = least < best
            best, index = torch.where(closer, least, best), torch.where(closer, first + which, index)
    return Nearest((best / wanted.shape[1]).sqrt(), index)
