"""Monotone rational-quadratic splines: an elementwise bijection with an analytic inverse and linear tails."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SPAN = 3.0  # the spline bends on [-SPAN, SPAN], where the bulk of a prior of variance 1 lies
LEAST = 1e-3  # of a width or height, of 2 SPAN; and of a slope


class _Pieces(NamedTuple):
    """Left knots (x, y) of all pieces, their widths, heights, and slopes at both ends; each (K, ...)."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor


def spline(x: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    r"""Applies one spline with K pieces to each element of x.

    From the raw numbers v come positive ones, :math:`q = v + \sqrt{v^2 + 1}`: the K widths and the K heights are in
    proportion to them and fill [-SPAN, SPAN]; the slopes at the K - 1 inner knots are q, those at the ends 1 (no width,
    height or slope is below LEAST). In the piece from :math:`(x_k, y_k)`, of width w, height h, slopes
    :math:`d_0, d_1` and :math:`\sigma = h / w`, with :math:`\theta = (x - x_k) / w`,

    .. math:: y = y_k + \frac{h\,(\sigma \theta^2 + d_0\,\theta(1 - \theta))}
        {\sigma + (d_0 + d_1 - 2\sigma)\,\theta(1 - \theta)},

    and beyond the interval y = x. v = 0 is the identity.

    Shapes: x any; shape (3 K - 1, \*x.shape), K > 1: widths, heights, slopes. Returns y and log dy/dx, both like x.

    Source: Durkan et al. 2019 (neural spline flows), eq. 4-5, after Gregory & Delbourgo 1982.
    Departure: q is a square root in place of softmax and softplus, which take longer. No masks that pick elements:
        each x meets all K pieces, which is quicker while they are few. The backward pass is written out, in place of
        a hundred small steps of autograd.
    """
    return _Spline.apply(x, shape)


def inverse_spline(y: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """Solves `spline` for x; returns x and log dx/dy. In a piece x is the one root of a quadratic that lies there.

    Source: Durkan et al. 2019, eq. 6-8.
    """
    pieces, _, _ = _pieces(shape)
    piece = _pick(_onehot(_reached(y, pieces.y)), pieces)
    inside = y.clamp(-SPAN, SPAN)
    rise, sigma = inside - piece.y, piece.height / piece.width
    bend = piece.left + piece.right - 2 * sigma
    a = piece.height * (sigma - piece.left) + rise * bend
    b = piece.height * piece.left - rise * bend
    root = (b * b + 4 * a * sigma * rise).clamp_min(0).sqrt()
    theta = (2 * sigma * rise / (b + root)).clamp(0, 1)
    return piece.x + theta * piece.width + (y - inside), -_parts(theta, sigma, piece)[-1].log()


def spline_gradients(x: Tensor, shape: Tensor, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the raw numbers, given those of y and of log dy/dx; shapes as in `spline`."""
    return _gradients(_State(*_evaluate(x, shape)[2:]), grad_y, grad_log)


class _State(NamedTuple):
    """What the gradients need of the values: of each element, but for the first three (K, ... and K - 1, ...)."""

    q: Tensor
    shares: Tensor
    reached: Tensor
    inner: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor
    theta: Tensor
    sigma: Tensor
    over: Tensor
    under: Tensor
    top: Tensor
    slope: Tensor


def _evaluate(x: Tensor, shape: Tensor) -> tuple[Tensor, ...]:
    """y and log dy/dx, and a `_State`."""
    pieces, q, shares = _pieces(shape)
    reached = _reached(x, pieces.x)
    piece = _pick(_onehot(reached), pieces)
    inside = x.clamp(-SPAN, SPAN)
    theta, sigma = (inside - piece.x) / piece.width, piece.height / piece.width
    over, under, top, slope = _parts(theta, sigma, piece)
    y = piece.y + piece.height * over / under + (x - inside)
    state = _State(q, shares, reached, x == inside, *piece[2:], theta, sigma, over, under, top, slope)
    return y, slope.log(), *state


def _gradients(state: _State, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor]:
    q, shares, reached, inner, width, height, left, right, theta, sigma, over, under, top, slope = state
    onehot, count = _onehot(reached), len(reached) + 1
    # y = y_k + h over / under and log dy/dx = 2 log(sigma / under) + log top: by theta, sigma, the slopes, w and h
    rest, both, square, bend = 1 - theta, theta * (1 - theta), theta * theta, left + right - 2 * sigma
    even, odd = 1 - 2 * both, 1 - 2 * theta
    per_y, per_top, per_under = grad_y * height / (under * under), grad_log / top, 2 * grad_log / under
    curve = 2 * per_top * (right * theta + sigma * odd - left * rest) - per_under * bend * odd
    by_theta = grad_y * width * slope + curve * inner
    by_sigma = per_y * (square * under - over * even) + 2 * (grad_log / sigma + per_top * both) - per_under * even
    by_left = (per_y * (under - over) - per_under) * both + per_top * rest * rest
    by_right = per_top * square - (per_under + per_y * over) * both
    by_x = by_theta / width
    by_width = -(by_theta * theta + by_sigma * sigma) / width
    by_height = grad_y * over / under + by_sigma / width
    # a width moves all knots on its right, a height likewise; together they fill the interval, whatever they are
    moved = torch.cat([reached, torch.zeros_like(theta)[None]])
    by_shares = torch.stack([onehot * by_width - moved * by_x, onehot * by_height + moved * grad_y])
    mean = (by_shares * shares).sum(1, keepdim=True)
    total = q[: 2 * count].unflatten(0, (2, -1)).sum(1, keepdim=True)
    by_sizes = 2 * SPAN * (1 - LEAST * count) * (by_shares - mean) / total
    by_slopes = (1 - LEAST) * ((onehot * by_left)[1:] + (onehot * by_right)[:-1])
    by_q = torch.cat([*by_sizes, by_slopes])
    return by_x, 2 * by_q * q * q / (q * q + 1)


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        y, log_slope, *state = _evaluate(x, shape)
        ctx.save_for_backward(*state)
        return y, log_slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor]:
        return _gradients(_State(*ctx.saved_tensors), grad_y, grad_log)


def _pieces(shape: Tensor) -> tuple[_Pieces, Tensor, Tensor]:
    """The pieces; q; the shares (2, K, ...) that widths and heights have of the interval before LEAST is seen to."""
    count = (len(shape) + 1) // 3
    q = (shape * shape + 1).sqrt() + shape
    sizes = q[: 2 * count].unflatten(0, (2, -1))
    shares = sizes / sizes.sum(1, keepdim=True)
    width, height = 2 * SPAN * (LEAST + (1 - LEAST * count) * shares)
    slopes, one = LEAST + (1 - LEAST) * q[2 * count :], torch.ones_like(q[:1])
    ends = torch.cat([one, slopes]), torch.cat([slopes, one])
    return _Pieces(_lefts(width), _lefts(height), width, height, *ends), q, shares


def _lefts(sizes: Tensor) -> Tensor:
    """Where each piece begins, (K, ...): the running sums of the pieces before it, from -SPAN."""
    knots = [torch.full_like(sizes[0], -SPAN)]
    for size in sizes[:-1]:
        knots.append(knots[-1] + size)
    return torch.stack(knots)


def _reached(x: Tensor, lefts: Tensor) -> Tensor:
    """(K - 1, ...): 1 for each inner knot that x has reached, else 0."""
    return (x >= lefts[1:]).to(x.dtype)


def _onehot(reached: Tensor) -> Tensor:
    """(K, ...): 1 in the piece that x is in (the first or last if beyond), 0 in the others."""
    end = torch.zeros_like(reached[:1])
    return torch.cat([end + 1, reached]) - torch.cat([reached, end])


def _pick(onehot: Tensor, pieces: _Pieces) -> _Pieces:
    # sums of exact products with 0 and 1: quicker than torch.where or gather here
    return _Pieces(*((onehot * values).sum(0) for values in pieces))


def _parts(theta: Tensor, sigma: Tensor, piece: _Pieces) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numerator and denominator of (y - y_k) / h, the numerator of the slope without sigma^2, and the slope dy/dx."""
    both, rest = theta * (1 - theta), 1 - theta
    over = sigma * theta * theta + piece.left * both
    under = sigma + (piece.left + piece.right - 2 * sigma) * both
    top = piece.right * theta * theta + 2 * sigma * both + piece.left * rest * rest
    return over, under, top, (sigma / under) ** 2 * top
