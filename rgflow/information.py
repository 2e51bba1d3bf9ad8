"""Mutual information of single latents with single factors, estimated by histograms.

Latents are arrays (N, D) and factors (N, K), a row per image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

BINS = 20
PER_CELL = 5  # images per cell of a joint histogram, on average: with fewer the correction of the bias is too small


def mutual_information(latents: ArrayLike, factors: ArrayLike, bins: int = BINS) -> NDArray:
    r"""Mutual information of every latent with every factor, (D, K), nats: a histogram estimate.

    .. math:: I(z; v) = H(z) + H(v) - H(z, v), \qquad H = -\sum_{\text{cells}} p \log p + \frac{m - 1}{2N}

    in cells of equal counts, `bins` for each column (a column of no more distinct values than that: a cell for each
    value); m counts the cells that are not empty, which is the correction of Miller and Madow for the bias of finite N.
    For independent columns it is 0 on average, and may be a little below.

    ValueError: other shapes, different numbers of images, fewer than 5 bins^2 of them, or a value that is not finite.

    Source: Miller 1955 for the correction; estimating by histograms as in Chen et al. 2018 and its successors.
    """
    z, v = checked(latents, factors)
    return information(cells(z, bins), cells(v, bins))


def cells(values: NDArray, bins: int) -> NDArray:
    """The cell of every number (N, k) in its column, int64: equal counts, or one per distinct value if these are few.

    ValueError: fewer than two bins, or fewer than 5 bins^2 images.
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, not {bins}")
    if len(values) < PER_CELL * bins**2:
        raise ValueError(f"{bins} bins need at least {PER_CELL * bins**2} images, not {len(values)}")
    found = np.empty(values.shape, np.int64)
    for k, column in enumerate(values.T):
        distinct, which = np.unique(column, return_inverse=True)
        if len(distinct) > bins:  # equal numbers share a rank, hence a cell
            which = ((rankdata(column) - 0.5) * bins / len(column)).astype(np.int64)
        found[:, k] = which
    return found


def entropy(cells: NDArray) -> float:
    """Of one column of cells, nats, with Miller's and Madow's correction."""
    counts = np.bincount(cells)
    counts = counts[counts > 0]
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum() + (len(counts) - 1) / (2 * counts.sum()))


def pair(a: NDArray, b: NDArray) -> float:
    """Mutual information of two columns of cells, nats."""
    return entropy(a) + entropy(b) - entropy(a * (b.max() + 1) + b)


def information(z: NDArray, v: NDArray) -> NDArray:
    """Mutual information of all pairs of columns of cells, (N, D) and (N, K) -> (D, K), nats."""
    of_z, of_v = ([entropy(column) for column in table.T] for table in (z, v))
    columns, widths = np.ascontiguousarray(v.T), v.max(0) + 1
    table = np.empty((z.shape[1], v.shape[1]))
    for d, column in enumerate(z.T):
        for k, other in enumerate(columns):
            table[d, k] = of_z[d] + of_v[k] - entropy(column * widths[k] + other)
    return table


def checked(latents: ArrayLike, factors: ArrayLike) -> tuple[NDArray, NDArray]:
    """Both as arrays; ValueError for other shapes, different numbers of images, or a value that is not finite."""
    z, v = (np.asarray(values, dtype=float) for values in (latents, factors))
    for name, values in (("latents", z), ("factors", v)):
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"{name} must have the shape (images, columns), none of them 0, not {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite")
    if len(z) != len(v):
        raise ValueError(f"latents and factors must be of the same images, not of {len(z)} and {len(v)}")
    return z, v


def check_varies(factors: NDArray) -> None:
    """ValueError for a factor that is constant."""
    constant = np.flatnonzero(np.ptp(factors, 0) == 0)
    if len(constant):
        raise ValueError(f"every factor must vary; constant are columns {constant.tolist()}")
