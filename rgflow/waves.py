"""Whether fields look like waves of one direction at one place, and more so than their pixels would by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import FastICA
from torch import Tensor

from rgflow.gabor import Gabor
from rgflow.statistics import Interval, bootstrap_interval, proportion_interval

Control = Literal["signs", "places"]


@dataclass(frozen=True)
class Tally:
    """What a set of Gabor fits has in common; intervals 95 %, of the median a bootstrap, of shares Wilson's."""

    count: int
    r2: Interval
    """median share of a patch's energy that the fit holds"""
    good: Interval
    """share of the patches of which the fit holds `least` or more"""
    oriented: Interval
    """share with a good fit that is `Gabor.oriented`"""
    localised: Interval
    """share with a good fit that is `Gabor.localised`"""
    both: Interval
    """share with a good fit that is both, as the fields of sparse coding are"""


def tally(fits: Sequence[Gabor], least: float = 0.8, generator: torch.Generator | None = None) -> Tally:
    """Counts the fits that are good, and what these are.

    Raises:
        ValueError: fewer than two fits.
    """
    r2 = np.array([fit.r2 for fit in fits])
    middle = bootstrap_interval(r2, np.median, generator=generator)
    good = r2 >= least
    kinds = np.array([(fit.oriented, fit.localised) for fit in fits])
    sets = good, good & kinds[:, 0], good & kinds[:, 1], good & kinds.all(1)
    return Tally(len(fits), middle, *(proportion_interval(int(found.sum()), len(fits)) for found in sets))


def by_chance(patch: ArrayLike, control: Control, generator: torch.Generator | None = None) -> NDArray:
    """A patch with the magnitudes of another and nothing else of it: what a fit finds there, it finds by chance.

    Arguments:
        control: "signs" draws every sign anew, so that magnitudes stay where they are; "places" shuffles the pixels.

    Raises:
        ValueError: an unknown control.
    """
    p = np.asarray(patch, dtype=float)
    if control == "signs":
        return np.abs(p) * (2.0 * torch.randint(2, p.shape, generator=generator).numpy() - 1)
    if control == "places":
        return p.ravel()[torch.randperm(p.size, generator=generator).numpy()].reshape(p.shape)
    raise ValueError(f"control must be one of {', '.join(get_args(Control))}, not {control!r}")


def pixels_that_matter(patch: ArrayLike) -> float:
    r"""The participation ratio :math:`(\sum p^2)^2 / \sum p^4`: 1 for a single pixel, k for k equal ones.

    A Gabor function has eight parameters and fits any patch of two or three.

    Raises:
        ValueError: a patch that is zero everywhere.
    """
    squares = np.square(np.asarray(patch, dtype=float))
    if not squares.any():
        raise ValueError("the patch is zero everywhere: no pixel matters")
    return float(squares.sum() ** 2 / np.square(squares).sum())


def independent_components(
    grey: Tensor, edge: int = 16, count: int = 100, windows: int = 20_000, iterations: int = 200, seed: int = 0
) -> NDArray:
    r"""What sparse coding finds in pictures: the columns of A in :math:`x = A s` with sparse, independent s.

    The mean of each window is taken off, and all but its strongest principal components, that is the finest detail.
    Independent component analysis is the complete, noiseless case of sparse coding, and also a flow with a single
    linear layer and a sparse prior.

    Shapes: grey (N, H, W); (count, edge, edge).

    Arguments:
        edge: of the windows.
        count: of the components, below edge^2.
        windows: how many are cut, at random.
        iterations: at most, of FastICA (log cosh).

    Raises:
        ValueError: pictures of another shape or smaller than a window, or a count outside 1..edge^2 - 1.

    Source: Bell & Sejnowski 1997, Olshausen & Field 1996; scikit-learn's FastICA.
    """
    if grey.ndim != 3 or min(grey.shape[1:]) < edge:
        raise ValueError(f"pictures must be (N, H, W), edges at least {edge}, not {tuple(grey.shape)}")
    if not 1 <= count < edge**2:
        raise ValueError(f"count must be in 1..{edge**2 - 1}, not {count}: a window has no more directions")
    draw, (pictures, height, width) = np.random.default_rng(seed), grey.shape
    which, top, left = (draw.integers(n, size=windows) for n in (pictures, height - edge + 1, width - edge + 1))
    offsets = np.arange(edge)
    cut = grey.double().numpy()[
        which[:, None, None], (top[:, None] + offsets)[:, :, None], (left[:, None] + offsets)[:, None]
    ]
    flat = cut.reshape(windows, -1)
    flat = flat - flat.mean(1, keepdims=True)
    model = FastICA(count, whiten="unit-variance", max_iter=iterations, tol=1e-3, random_state=seed)
    return model.fit(flat).mixing_.T.reshape(-1, edge, edge)
