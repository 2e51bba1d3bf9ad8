"""Gabor functions fitted to small patches: is a receptive field oriented, localised and of one scale?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from skimage.feature import peak_local_max

LEAST = 4  # edge of a patch, sites
NARROWEST = 0.4  # envelope, sites: narrower ones are single sites


@dataclass(frozen=True)
class Gabor:
    r"""A plane wave under a Gaussian envelope, as `fit_gabor` found it.

    .. math::
        g(i, j) = A\, e^{-u^2 / 2 \sigma_u^2 - v^2 / 2 \sigma_v^2} \cos(2 \pi f u + \varphi), \qquad
        \begin{pmatrix} u \\ v \end{pmatrix} =
        \begin{pmatrix} \cos\theta & \sin\theta \\ -\sin\theta & \cos\theta \end{pmatrix}
        \begin{pmatrix} j - j_0 \\ i - i_0 \end{pmatrix}

    Source: Daugman 1985; the paper's own words are "similar to convolutional neural networks", and it cites Olshausen &
        Field 1996, whose fields are oriented, localised and bandpass.
    """

    row: float
    """centre i_0, sites"""
    column: float
    """centre j_0, sites"""
    orientation: float
    """theta, degrees in [0, 180): where the wave runs, from the direction of growing j towards that of growing i"""
    frequency: float
    """f, cycles per site"""
    phase: float
    """phi, radians in [-pi, pi]"""
    amplitude: float
    """A, not negative, in the unit of the patch"""
    along: float
    """sigma_u, sites: the envelope along the wave, across its stripes"""
    across: float
    """sigma_v, sites"""
    r2: float
    r"""share of the patch's energy that the fit holds, :math:`1 - \sum (p - g)^2 / \sum p^2`"""
    shape: tuple[int, int]
    """of the patch"""

    @property
    def aspect(self) -> float:
        """sigma_v / sigma_u: above 1 where the stripes are longer than the wave packet."""
        return self.across / self.along

    @property
    def turned_response(self) -> float:
        r"""Response to a grating of frequency f at right angles to the wave, relative to the one along it.

        .. math:: \frac{|\hat g(0, f)|}{|\hat g(f, 0)|} =
            \frac{2\, |\cos\varphi|\, e^{-2 \pi^2 f^2 (\sigma_u^2 + \sigma_v^2)}}
            {|1 + e^{-2 i \varphi}\, e^{-8 \pi^2 f^2 \sigma_u^2}|}

        0 for a long wave packet, 1 for a round blob, whatever its phase.
        """
        square = 2 * (math.pi * self.frequency) ** 2
        both = abs(1 + np.exp(-2j * self.phase - 4 * square * self.along**2))
        return float(2 * abs(math.cos(self.phase)) * math.exp(-square * (self.along**2 + self.across**2)) / both)

    @property
    def oriented(self) -> bool:
        """Answers to a grating less than half as well once that is turned by 90 degrees."""
        return self.turned_response < 0.5

    @property
    def localised(self) -> bool:
        """The centre lies in the patch and 95 % of the envelope, in each direction, in an interval as long as it."""
        rows, columns = self.shape
        inside = -0.5 <= self.row <= rows - 0.5 and -0.5 <= self.column <= columns - 0.5
        return inside and 4 * max(self.along, self.across) <= min(rows, columns)

    def __call__(self, rows: ArrayLike, columns: ArrayLike) -> NDArray:
        """Evaluates g at some sites; the arguments are broadcast."""
        turn = math.radians(self.orientation)
        cosine, sine = self.amplitude * math.cos(self.phase), -self.amplitude * math.sin(self.phase)
        parameters = (self.row, self.column, turn, self.frequency, self.along, self.across, cosine, sine)
        return _wave(np.array(parameters), np.asarray(rows, float), np.asarray(columns, float))


def fit_gabor(patch: ArrayLike, starts: int = 3) -> Gabor:
    r"""Fits a Gabor function to a patch by least squares, from several starts, and keeps the best.

    A start takes the wave from one of the highest peaks of the patch's spectrum, the centre and the envelope from the
    moments of its energy (and once from an envelope half as wide), and the amplitude and phase, which are linear, from
    least squares. The frequency stays between a quarter of a cycle per edge (below it, waves and slopes look alike)
    and 0.71, the widths between 0.4 sites and the longer edge, the centre within the patch.

    Shapes: patch (h, w), edges of at least 4. A fit has eight parameters: it also holds a part of the energy of noise,
    a fifth to two fifths of a patch of 8 x 8, and nearly all of a patch with two or three pixels that matter.

    Arguments:
        starts: peaks of the spectrum that are tried.

    Raises:
        ValueError: a patch of another shape, not finite or zero everywhere; starts below 1.

    Source: ours; the fit of Gabor functions to receptive fields is that of Jones & Palmer 1987.
    """
    p = np.asarray(patch, dtype=float)
    if p.ndim != 2 or min(p.shape) < LEAST:
        raise ValueError(f"a patch must be (h, w), both at least {LEAST}, not {p.shape}")
    size = np.abs(p).max()
    if not np.isfinite(size) or size == 0:
        raise ValueError(f"a patch must be finite and not zero everywhere; its largest magnitude is {size}")
    if starts < 1:
        raise ValueError(f"starts must be at least 1, not {starts}")
    p = p / size
    rows, columns = (axis.ravel().astype(float) for axis in np.indices(p.shape))
    longest = max(p.shape)
    low = [-0.5, -0.5, -np.inf, 0.25 / longest, NARROWEST, NARROWEST, -np.inf, -np.inf]
    high = [p.shape[0] - 0.5, p.shape[1] - 0.5, np.inf, math.sqrt(0.5), longest, longest, np.inf, np.inf]
    fits = []
    for start in _starts(p, rows, columns, starts):
        start[:6] = np.clip(start[:6], np.array(low[:6]) + 1e-6, np.array(high[:6]) - 1e-6)
        start[6:] = _linear_part(start, p, rows, columns)
        fits.append(
            least_squares(
                lambda x: _wave(x, rows, columns) - p.ravel(), start, bounds=(low, high), x_scale="jac", max_nfev=60
            )
        )
    best = min(fits, key=lambda fit: fit.cost)
    return _named(best.x, size, 1 - 2 * best.cost / (p * p).sum(), p.shape)


def _wave(x: NDArray, rows: NDArray, columns: NDArray) -> NDArray:
    """The Gabor function; x = (i_0, j_0, theta, f, sigma_u, sigma_v, A cos phi, -A sin phi)."""
    cosine, sine = _waves(x, rows, columns)
    return x[6] * cosine + x[7] * sine


def _waves(x: NDArray, rows: NDArray, columns: NDArray) -> tuple[NDArray, NDArray]:
    """The envelope times the cosine and the sine."""
    i, j, c, s = rows - x[0], columns - x[1], math.cos(x[2]), math.sin(x[2])
    u, v = j * c + i * s, i * c - j * s
    envelope = np.exp(-0.5 * ((u / x[4]) ** 2 + (v / x[5]) ** 2))
    angle = 2 * math.pi * x[3] * u
    return envelope * np.cos(angle), envelope * np.sin(angle)


def _starts(p: NDArray, rows: NDArray, columns: NDArray, count: int) -> list[NDArray]:
    energy = p.ravel() ** 2 / (p * p).sum()
    i, j = energy @ rows, energy @ columns
    padded = 4 * max(p.shape)
    spectrum = np.fft.fftshift(np.abs(np.fft.fft2(p, (padded, padded))))
    middle = padded // 2  # frequency 0; the spectrum is symmetric, so half of it will do
    peaks = peak_local_max(spectrum[:, middle:], exclude_border=False, num_peaks=count)
    found = []
    for row, column in peaks if len(peaks) else [(middle, 0)]:
        fi, fj = (row - middle) / padded, column / padded
        turn, frequency = math.atan2(fi, fj), math.hypot(fi, fj)
        u = (columns - j) * math.cos(turn) + (rows - i) * math.sin(turn)
        v = (rows - i) * math.cos(turn) - (columns - j) * math.sin(turn)
        # the squared envelope is narrower than the envelope by the root of two
        along, across = math.sqrt(2 * energy @ u**2), math.sqrt(2 * energy @ v**2)
        for scale in (1.0, 0.5):
            found.append(np.array([i, j, turn, frequency, scale * along, scale * across, 0.0, 0.0]))
    return found


def _linear_part(x: NDArray, p: NDArray, rows: NDArray, columns: NDArray) -> NDArray:
    return np.linalg.lstsq(np.stack(_waves(x, rows, columns), 1), p.ravel(), rcond=None)[0]


def _named(x: NDArray, size: float, r2: float, shape: tuple[int, int]) -> Gabor:
    turns = math.floor(x[2] / math.pi)
    phase = math.atan2(-x[7], x[6]) * (-1 if turns % 2 else 1)  # turned by 180 degrees the wave runs backwards
    orientation = math.degrees(x[2] - turns * math.pi) % 180
    row, column, _, frequency, along, across = map(float, x[:6])
    amplitude = float(size * math.hypot(x[6], x[7]))
    return Gabor(row, column, orientation, frequency, phase, amplitude, along, across, float(r2), shape)
