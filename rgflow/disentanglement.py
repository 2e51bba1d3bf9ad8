"""How well single latents stand for single factors: the gap of mutual information, DCI, and what can be read linearly.

Latents are arrays (N, D) and factors (N, K), a row per image, from images whose factors are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LassoCV, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rgflow.information import BINS, cells, check_varies, checked, entropy, information, pair
from rgflow.statistics import Interval, bootstrap_interval, jackknife_intervals

EXPLAINED = 0.01  # held-out R^2 below which a factor counts as not explained at all; with n images held out, at least
CHANCE = 9.0  # this / n: a correlation of three standard errors
STRENGTHS = 10 ** np.linspace(0, -2.5, 16)  # of the lasso; 1 is enough for zeros, all columns being standardised
TREES, LEAF = 50, 5


@dataclass(frozen=True)
class Gap:
    """Mutual information gap: its mean over factors, each factor's own (K,), and the latent that knows most of each
    (K,)."""

    value: Interval
    gaps: NDArray
    latents: NDArray


def mig(latents: ArrayLike, factors: ArrayLike, bins: int = BINS, groups: int = 10, seed: int = 0) -> Gap:
    r"""Mutual information gap: 1 if for each factor one latent knows all of it and no other latent anything.

    .. math:: \text{MIG} = \frac1K \sum_k \frac{I(z_{j(k)}; v_k) - \max_{j \ne j(k)} I(z_j; v_k)}{H(v_k)}, \qquad
        j(k) = \arg\max_j I(z_j; v_k)

    with the estimates of `mutual_information`. The interval is a jackknife over `groups` groups of images.

    ValueError: as there; besides, fewer than two latents, or a factor that is constant.

    Source: Chen et al. 2018 (arXiv:1802.04942), section 4. Departures: cells of equal counts, and the correction.
    """
    z, v = checked(latents, factors)
    if z.shape[1] < 2:
        raise ValueError(f"a gap needs at least two latents, not {z.shape[1]}")
    check_varies(v)
    z, v = cells(z, bins), cells(v, bins)

    def gaps(rows: NDArray) -> tuple[NDArray, NDArray]:
        share = information(z[rows], v[rows]) / np.array([entropy(column) for column in v[rows].T])
        second, first = np.sort(share, 0)[-2:]
        return first - second, share.argmax(0)

    def mean_gap(rows: NDArray) -> list[float]:
        return [gaps(rows.astype(int))[0].mean()]

    everything = np.arange(len(z))
    generator = torch.Generator().manual_seed(seed)
    return Gap(jackknife_intervals(everything, mean_gap, groups=groups, generator=generator)[0], *gaps(everything))


@dataclass(frozen=True)
class Best:
    """The latents that know most of each factor (K,), chosen on one half of the images; and on the other half the share
    of the factor's entropy that they know, mean over factors."""

    share: Interval
    latents: NDArray


def best_latents(latents: ArrayLike, factors: ArrayLike, bins: int = BINS, groups: int = 10, seed: int = 0) -> Best:
    r"""How much of a factor the best single latent knows.

    .. math:: \frac1K \sum_k \frac{I(z_{j(k)}; v_k)}{H(v_k)}

    where j(k) is chosen on one random half of the images and the information measured on the other, so that the best of
    thousands of latents is not the luckiest. 1 if a latent determines the factor, about 0 if none knows anything. The
    interval is a jackknife over the second half.

    ValueError: as `mutual_information` for each half, or a factor that is constant. Source: ours.
    """
    z, v = checked(latents, factors)
    check_varies(v)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(z), generator=generator).numpy()
    first, second = order[: len(z) // 2], order[len(z) // 2 :]
    chosen = information(cells(z[first], bins), cells(v[first], bins)).argmax(0)
    z_cells, v_cells = cells(z[second][:, chosen], bins), cells(v[second], bins)

    def share(rows: NDArray) -> list[float]:
        rows = rows.astype(int)
        pairs = zip(z_cells[rows].T, v_cells[rows].T, strict=True)
        return [float(np.mean([pair(a, b) / entropy(b) for a, b in pairs]))]

    interval = jackknife_intervals(np.arange(len(second)), share, groups=groups, generator=generator)[0]
    return Best(interval, chosen)


def linear_r2(latents: ArrayLike, factors: ArrayLike, folds: int = 5, seed: int = 0) -> Interval:
    r"""Share of the factors' variance that a linear map of the latents explains on images it was not fitted to.

    .. math:: R^2 = 1 - \frac1K \sum_k \frac{\sum_i (v_{ik} - \hat v_{ik})^2}{\sum_i (v_{ik} - \bar v_k)^2}

    by ridge regression, each fold predicted from the others and the strength of the ridge chosen inside these. About 0,
    or a little below, if nothing can be read. The interval is a bootstrap over images, with the fits held fixed.

    ValueError: other shapes, different numbers of images, a value that is not finite, folds outside 2..N, or a factor
    that is constant.
    """
    z, v = checked(latents, factors)
    check_varies(v)
    if not 2 <= folds <= len(z):
        raise ValueError(f"folds must be in 2..{len(z)}, the number of images, not {folds}")
    v = StandardScaler().fit_transform(v)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 7)))
    predicted = cross_val_predict(model, z, v, cv=KFold(folds, shuffle=True, random_state=seed)).reshape(v.shape)

    def explained(rows: NDArray) -> float:  # (n, 2, K): squared residuals and squares, about the mean of all images
        residuals, squares = rows.mean(0)
        return float(1 - (residuals / squares).mean())

    parts = np.stack([(v - predicted) ** 2, v**2], 1)
    return bootstrap_interval(parts, explained, n=1000, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class DCI:
    """Disentanglement (a latent speaks of one factor), completeness (one latent speaks of a factor), both in 0..1, and
    informativeness (held-out R^2, mean over factors); and the importances (D, K) they come from."""

    disentanglement: Interval
    completeness: Interval
    informativeness: Interval
    importances: NDArray


def dci(
    latents: ArrayLike,
    factors: ArrayLike,
    model: Literal["lasso", "forest"] = "lasso",
    groups: int = 5,
    seed: int = 0,
) -> DCI:
    r"""Disentanglement, completeness and informativeness from importances R of latents for predicting factors.

    .. math::
        \mathcal D = \sum_d \rho_d\, \bigl(1 - H_K(P_{d\cdot})\bigr), \qquad
        \mathcal C = \frac1K \sum_k \bigl(1 - H_D(\tilde P_{\cdot k})\bigr), \qquad
        P_{dk} = \frac{R_{dk}}{\sum_k R_{dk}}, \quad \tilde P_{dk} = \frac{R_{dk}}{\sum_d R_{dk}}, \quad
        \rho_d = \frac{\sum_k R_{dk}}{\sum_{dk} R_{dk}}

    H_K is the entropy with logarithms to the base K. A regression per factor is fitted to three quarters of the images,
    latents and factors standardised: "lasso" (its strength by cross-validation; R the sizes of its coefficients) or
    "forest" (random forest; R the decrease in variance). Informativeness is the R^2 on the last quarter. A factor of
    which less than 1 % is explained there, or less than chance may explain (9 / n of n images), has no importances, and
    completeness 0: so noise scores 0. The intervals are jackknives over `groups` groups of images, with new fits.

    ValueError: other shapes, different numbers of images, a value that is not finite, a factor that is constant, fewer
    than two latents or factors, fewer than 40 images, or another model.

    Source: Eastwood & Williams 2018, "A framework for the quantitative evaluation of disentangled representations",
    section 2. Departures: R^2 in place of the prediction error, and the threshold.
    """
    z, v = checked(latents, factors)
    check_varies(v)
    if model not in ("lasso", "forest"):
        raise ValueError(f"model must be lasso or forest, not {model!r}")
    if min(z.shape[1], v.shape[1]) < 2:
        raise ValueError(f"DCI needs two latents and two factors at least, not {z.shape[1]} and {v.shape[1]}")
    if len(z) < 40:
        raise ValueError(f"DCI needs at least 40 images, not {len(z)}")

    def scores(rows: NDArray) -> list[float]:
        rows = rows.astype(int)
        importances, r2 = _importances(z[rows], v[rows], model, seed)
        return [*_disentanglement_and_completeness(importances), r2]

    everything = np.arange(len(z))
    generator = torch.Generator().manual_seed(seed)
    intervals = jackknife_intervals(everything, scores, groups=groups, generator=generator)
    return DCI(*intervals, _importances(z, v, model, seed)[0])


def _disentanglement_and_completeness(importances: NDArray) -> tuple[float, float]:
    """Of importances (D, K)."""
    total = importances.sum()
    if total <= 0:
        return 0.0, 0.0
    weights = importances.sum(1) / total
    return float(weights @ _purity(importances)), float(_purity(importances.T).mean())


def _purity(table: NDArray) -> NDArray:
    """1 less the entropy of each row (n, k), to the base k; 0 for a row of zeros."""
    total = table.sum(1, keepdims=True)
    share = np.divide(table, total, out=np.full_like(table, 1 / table.shape[1]), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return 1 + (share * logs).sum(1) / math.log(table.shape[1])


def _importances(z: NDArray, v: NDArray, model: str, seed: int) -> tuple[NDArray, float]:
    """Importances (D, K) and the mean held-out R^2."""
    held = np.arange(len(z)) % 4 == 3
    z, v = StandardScaler().fit(z[~held]).transform(z), StandardScaler().fit(v[~held]).transform(v)
    table, scores = np.zeros((z.shape[1], v.shape[1])), []
    for k, factor in enumerate(v.T):
        if model == "lasso":
            fitted = LassoCV(alphas=STRENGTHS, cv=5, tol=1e-3, max_iter=3000).fit(z[~held], factor[~held])
            sizes = np.abs(fitted.coef_)
        else:
            trees = RandomForestRegressor(TREES, min_samples_leaf=LEAF, random_state=seed)
            fitted = trees.fit(z[~held], factor[~held])
            sizes = fitted.feature_importances_
        scores.append(fitted.score(z[held], factor[held]))
        if scores[-1] >= max(EXPLAINED, CHANCE / held.sum()):
            table[:, k] = sizes
    return table, float(np.mean(scores))
