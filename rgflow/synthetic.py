"""Generated images with known factors at two scales: MSDS1 and MSDS2, and the two-dimensional pinwheel.

A picture of either set is 32 x 32 RGB on black, a 4 x 4 grid of 8 x 8 cells with one oval in each. MSDS1 has a global
colour that all ovals share up to a small own part, and free angles; MSDS2 has a global angle shared in the same way,
and free colours. So one factor belongs to the coarse scale and the rest to the fine one. The idea of both
sets is the published paper's; geometry, ranges and order of drawing are this project's.

Every oval is the hard ellipse with bounding box (1, 3, 7, 5) in its cell, alpha 1 or 0, rotated counter-clockwise
about (4, 4) with cubic resampling of the alpha (a = -1 in Keys 1981; Pillow's choice), the cell then moved by -1,
0 or 1 pixel per axis and painted over what is there, column by column and downwards in each column.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID, CELL = 4, 8
SIZE = GRID * CELL
_CHUNK = 512  # images drawn at once: the working set stays in the processor's cache


def render(positions: Tensor, angles: Tensor, colours: Tensor) -> Tensor:
    """Draw one picture per set of factors, as Pillow would draw it (within 2 grey levels, in practice equal).

    positions: integers (N, 4, 4, 2), the shift (down, right) in {-1, 0, 1} pixels of the cell at grid row and column
    angles: float (N, 4, 4), degrees counter-clockwise, any finite value
    colours: uint8 (N, 4, 4, 3)
    returns: uint8 (N, 3, 32, 32)

    ValueError: a shape, dtype or value other than these.
    """
    n = len(positions)
    for name, given, shape in (
        ("positions", positions, (n, GRID, GRID, 2)),
        ("angles", angles, (n, GRID, GRID)),
        ("colours", colours, (n, GRID, GRID, 3)),
    ):
        if tuple(given.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(given.shape)}")
    if positions.is_floating_point() or ((positions < -1) | (positions > 1)).any():
        raise ValueError("positions must be integers in {-1, 0, 1}")
    if not angles.is_floating_point() or not angles.isfinite().all():
        raise ValueError("angles must be finite floating-point degrees")
    if colours.dtype != torch.uint8:
        raise ValueError(f"colours must be uint8, got {colours.dtype}")
    shifts, degrees, inks = (t.detach().cpu().numpy() for t in (positions, angles, colours))
    images = np.empty((n, 3, SIZE, SIZE), np.uint8)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part] = _paint(shifts[part], degrees[part].astype(np.float64), inks[part])
    return torch.from_numpy(images)


def stamp(positions: Tensor, angles: Tensor) -> Tensor:
    """Alpha of single ovals, each in its cell with one pixel around it, as `render` paints it.

    positions: integers (N, 2), the shift (down, right) in {-1, 0, 1} pixels
    angles: float (N,), degrees counter-clockwise
    returns: float64 (N, 10, 10) in 0..1; the cell is [1:9, 1:9]

    ValueError: shapes that do not fit, or a shift outside.
    """
    if tuple(positions.shape) != (len(angles), 2) or angles.ndim != 1:
        raise ValueError(
            f"positions must be (N, 2) and angles (N,), got {tuple(positions.shape)} and {tuple(angles.shape)}"
        )
    if positions.is_floating_point() or ((positions < -1) | (positions > 1)).any():
        raise ValueError("positions must be integers in {-1, 0, 1}")
    alpha = _moved(_alpha(angles.double().numpy()), positions.numpy())
    return torch.from_numpy(alpha.transpose(2, 0, 1) / 255)


def msds1(n: int, generator: torch.Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw n pictures whose ovals share a colour: the global factor is a colour, the angles are free.

    Drawn in this order: global colour uniform in 32..223 per channel, each oval's difference to it uniform in -32..32
    per channel, each angle uniform in [0, 180) degrees, each shift uniform in {-1, 0, 1} per axis.

    returns: images uint8 (n, 3, 32, 32) and labels `global` uint8 (n, 3), `position` int8 (n, 4, 4, 2), `angle` float32
    (n, 4, 4) in degrees, `colour` uint8 (n, 4, 4, 3); `render(position, angle, colour)` gives the images again, bit
    by bit.

    ValueError: n below 0.
    """
    _check_count(n)
    shared = _integers(32, 223, (n, 3), generator)
    colours = shared[:, None, None] + _integers(-32, 32, (n, GRID, GRID, 3), generator)
    angles = 180 * _uniform((n, GRID, GRID), generator)
    positions = _integers(-1, 1, (n, GRID, GRID, 2), generator)
    return _labelled(shared.to(torch.uint8), positions, angles, colours)


def msds2(n: int, generator: torch.Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw n pictures whose ovals share an angle: the global factor is an angle, the colours are free.

    Drawn in this order: global angle uniform in [0, 180) degrees, each oval's difference to it uniform in [0, 45),
    each colour uniform in 0..255 per channel, each shift uniform in {-1, 0, 1} per axis.

    returns: images uint8 (n, 3, 32, 32) and labels as in `msds1`, with `global` float32 (n,) in degrees.

    ValueError: n below 0.
    """
    _check_count(n)
    shared = 180 * _uniform((n,), generator)
    angles = shared[:, None, None] + 45 * _uniform((n, GRID, GRID), generator)
    colours = _integers(0, 255, (n, GRID, GRID, 3), generator)
    positions = _integers(-1, 1, (n, GRID, GRID, 2), generator)
    return _labelled(shared, positions, angles, colours)


def pinwheel(
    n: int,
    generator: torch.Generator | None = None,
    legs: int = 4,
    radial_std: float = 0.3,
    tangential_std: float = 0.1,
    rate: float = 0.25,
) -> tuple[Tensor, Tensor]:
    r"""Draw n points of a pinwheel, the target of the paper's appendix C (figure 9; four legs there).

    A Gaussian blob at radius 1, long along the radius, is turned into leg k by an angle that grows with the radius:
    r = 1 + radial_std a,  t = tangential_std b,  a, b ~ N(0, 1),  k uniform in 0..legs-1,
    phi = 2 pi k / legs + rate exp(r),
    x = c (r cos phi - t sin phi,  r sin phi + t cos phi),  c = sqrt(2 / (1 + radial_std^2 + tangential_std^2)),
    so that the mean of |x|^2 is 2: mean 0 and variance 1 per coordinate for three legs and more. The pinwheel is that
    of Johnson et al. (2016); tangential_std 0.1 as is common in flow toys (theirs is 0.05), four legs as in the paper,
    which gives no other shape number.

    returns: points (n, 2) in the default dtype, leg (n,) int64

    ValueError: n below 0, legs below 1, or a negative standard deviation.
    """
    _check_count(n)
    if legs < 1:
        raise ValueError(f"legs must be at least 1, got {legs}")
    if radial_std < 0 or tangential_std < 0:
        raise ValueError(f"standard deviations must not be negative, got {radial_std} and {tangential_std}")
    leg = _integers(0, legs - 1, (n,), generator)
    a, b = torch.randn(2, n, generator=generator, device=_device(generator)).cpu()
    r, t = 1 + radial_std * a, tangential_std * b
    phi = 2 * torch.pi * leg / legs + rate * r.exp()
    scale = (2 / (1 + radial_std**2 + tangential_std**2)) ** 0.5
    points = torch.stack([r * phi.cos() - t * phi.sin(), r * phi.sin() + t * phi.cos()], dim=1)
    return scale * points, leg


def _labelled(shared: Tensor, positions: Tensor, angles: Tensor, colours: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    positions, colours = positions.to(torch.int8), colours.to(torch.uint8)
    labels = {"global": shared, "position": positions, "angle": angles, "colour": colours}
    return render(positions, angles, colours), labels


def _paint(shifts: NDArray[np.int8], degrees: NDArray[np.float64], inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One chunk of `render`, the image index last everywhere: every inner loop runs over contiguous memory."""
    n = len(degrees)
    inks = np.ascontiguousarray(inks.transpose(1, 2, 3, 0)).astype(np.uint16)  # (4, 4, 3, n)
    canvas = np.zeros((SIZE + 2, SIZE + 2, 3, n), np.uint16)  # one pixel of margin catches what is clipped
    for column in range(GRID):
        for row in range(GRID):
            alpha = _moved(_alpha(degrees[:, row, column]), shifts[:, row, column])[:, :, None]
            there = canvas[row * CELL : (row + 1) * CELL + 2, column * CELL : (column + 1) * CELL + 2]
            # round((there (255 - alpha) + ink alpha) / 255) in 16-bit integers: for t < 2^16, t / 255 rounded
            # is (t' + t' / 256) / 256 with t' = t + 128, as Pillow does it
            there *= 255 - alpha
            there += inks[row, column] * alpha
            there += 128
            there += there >> 8
            there >>= 8
    return canvas[1:-1, 1:-1].astype(np.uint8).transpose(3, 2, 0, 1)


def _alpha(degrees: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Alpha of the turned oval in its 8 x 8 cell: (n,) degrees -> (8, 8, n), 0..255.

    The oval's rows 3, 4, 5 are ones on columns 2..6, 1..7, 2..6, and cubic resampling is separable. So at source
    column u and row v the value is  short(u) (k(v - 3) + k(v - 5)) + long(u) k(v - 4)  with the cubic kernel k and
    its sums over a row. Beyond the right edge the last column counts again (Pillow), which makes row 4 a step, never
    ending.
    """
    turn = np.deg2rad(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    centre = np.arange(CELL) + 0.5 - CELL / 2
    x, y = centre[None, :, None], centre[:, None, None]
    u = cos * x - sin * y + (CELL - 1) / 2  # source column, 0 at the middle of the first pixel
    q = np.abs(sin * x + cos * y - 0.5)  # distance to row 4
    short, long = _step(2 - np.abs(u - 4)), _step(u - 1)
    # k(q) and k(q - 1) + k(q + 1), cubic on [0, 1], [1, 2], [2, 3]; each piece as the change on its interval
    first, second, third = (np.clip(q - i, 0, 1) for i in range(3))
    tail = second * (1 - second) ** 2
    middle = 1 - first * first * (2 - first) - tail
    sides = first * first * (3 - 2 * first) - second * second * (2 - second) - third * (1 - third) ** 2
    value = short * sides + long * middle
    value *= (u >= -0.5) & (u < CELL - 0.5)  # Pillow leaves pixels empty whose source lies outside
    # the small number keeps exact integers (right angles) from being cut to the one below
    return np.clip(255 * value + 1e-9, 0, 255).astype(np.uint16)


def _step(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resampled unit step, sum over i >= 0 of k(t - i): 0 below -2, 1 above 1, with over- and undershoot between."""
    before, between, after = np.clip(t + 2, 0, 1), np.clip(t + 1, 0, 1), np.clip(t, 0, 1)
    return between - before * before * (1 - before) + after * (1 - after) ** 2


def _moved(alpha: NDArray[np.uint16], shifts: NDArray[np.int8]) -> NDArray[np.uint16]:
    """Alpha (8, 8, n) in a frame of one pixel, moved by each image's shift (n, 2): (10, 10, n)."""
    down, right = np.ascontiguousarray(shifts.T)
    tall = np.zeros((CELL + 2, CELL, alpha.shape[2]), alpha.dtype)
    for i in range(3):
        tall[i : i + CELL] += alpha * (down == i - 1)
    frame = np.zeros((CELL + 2, CELL + 2, alpha.shape[2]), alpha.dtype)
    for i in range(3):
        frame[:, i : i + CELL] += tall * (right == i - 1)
    return frame


def _check_count(n: int) -> None:
    if n < 0:
        raise ValueError(f"the number of draws must not be negative, got {n}")


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _integers(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=generator, device=_device(generator)).cpu()


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator, device=_device(generator), dtype=torch.float32).cpu()
