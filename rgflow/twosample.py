"""How well two sets of images can be told apart: a classifier, the Fréchet distance, precision and recall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC
from torch import Tensor

from rgflow.statistics import Interval, proportion_interval

COMPONENTS = 64


def principal_components(real: Tensor, count: int = COMPONENTS) -> PCA:
    """The principal components of real images, uint8 (N, C, H, W), grey levels from 0 to 1; not rescaled, so that each
    counts as much as it varies. The images must be others than those compared: along its own components a finite set
    varies more than any other does.

    ValueError: no more images than components, or no such number of components.
    """
    if not 0 < count < min(len(real), real[0].numel() + 1):
        raise ValueError(f"{count} components need more images and as many pixels, not {tuple(real.shape)}")
    return PCA(count, svd_solver="full").fit(_flat(real))


def accuracy(real: Tensor, drawn: Tensor, components: PCA, folds: int = 5, seed: int = 0) -> Interval:
    r"""Share of images of which a classifier says rightly whether they are real, on images it was not trained on.

    A support vector machine with a Gaussian kernel of the usual width, :math:`\gamma^{-1} = D\, \text{Var}`, on the
    principal components, each fold of the images judged by the machine trained on the others. 1/2 if nothing tells the
    sets apart, 1 if everything does. The interval is Wilson's, with the machines held fixed.

    Shapes: uint8 (N, C, H, W), both of the same N.

    ValueError: sets of different sizes or shapes, or fewer images than folds.

    Source: the classifier two-sample test of Lopez-Paz & Oquab 2017 (arXiv:1610.06545).
    """
    if real.shape != drawn.shape or len(real) < folds:
        raise ValueError(f"both sets must have one shape and {folds} images or more: {real.shape} and {drawn.shape}")
    x = np.concatenate([components.transform(_flat(images)) for images in (real, drawn)])
    y = np.repeat([1, 0], len(real))
    judges = StratifiedKFold(folds, shuffle=True, random_state=seed)
    said = cross_val_predict(SVC(), x, y, cv=judges)
    return proportion_interval(int((said == y).sum()), len(y))


def frechet_distance(real: Tensor, drawn: Tensor, components: PCA) -> float:
    r"""Distance of the Gaussians that have the means and covariances of both sets, in units of the grey levels' square.

    .. math:: d^2 = |\mu_1 - \mu_2|^2 + \operatorname{tr}\bigl(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\bigr)

    on the principal components; returns :math:`d^2`. It sees means and covariances only, and is above 0 for two finite
    sets of the same source.

    Source: Dowson & Landau 1982; as a score of samples, in other features, Heusel et al. 2017.
    """
    a, b = (components.transform(_flat(images)) for images in (real, drawn))
    first, second = (np.cov(x, rowvar=False) for x in (a, b))
    root = sqrtm(first @ second)
    apart = a.mean(0) - b.mean(0)
    return float(apart @ apart + np.trace(first + second - 2 * np.real(root)))


def precision_recall(real: Tensor, drawn: Tensor, components: PCA, neighbours: int = 3) -> tuple[Interval, Interval]:
    r"""Precision: share of drawn images among real ones; recall: share of real images among drawn ones.

    An image is among a set if it is nearer to one of its images, on the principal components, than that is to its
    k-th neighbour in the set. Precision is high where samples look real, however alike they are, recall where they
    have the variety of the real ones. For two sets of one source both are well below 1. Intervals are Wilson's.

    Shapes: uint8 (N, C, H, W); both sets of more images than `neighbours`.

    ValueError: fewer images.

    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991), in other features.
    """
    if min(len(real), len(drawn)) <= neighbours:
        raise ValueError(f"both sets need more than {neighbours} images, not {len(real)} and {len(drawn)}")
    a, b = (components.transform(_flat(images)) for images in (real, drawn))
    return _among(b, a, neighbours), _among(a, b, neighbours)


def _among(points: NDArray, others: NDArray, neighbours: int) -> Interval:
    """Share of the points that lie in the ball of one of the others, out to its k-th neighbour among them."""
    nearest = NearestNeighbors(n_neighbors=neighbours + 1).fit(others)
    reach = nearest.kneighbors(others)[0][:, -1]  # the first is the point itself
    inside = (cdist(points, others) <= reach).any(1)
    return proportion_interval(int(inside.sum()), len(points))


def _flat(images: Tensor) -> NDArray:
    return images.flatten(1).double().cpu().numpy() / 255
