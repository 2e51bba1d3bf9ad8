"""How wide a Real NVP must be to have a given number of parameters."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import product

from rgflow.hierarchy import whole
from rgflow.realnvp import RealNVPConfig, couplings_per_scale, net_shape

TOLERANCE = 0.02  # largest relative error of the parameter count


def parameter_count(config: RealNVPConfig) -> int:
    """Number of trainable numbers of `RealNVP(config)`, without building it."""

    def net(n_in: int, n_out: int, nhidden: int) -> int:
        convs = [(n_in, nhidden)] + [(nhidden, nhidden)] * (2 * config.nres) + [(nhidden, 2 * n_out)]
        return n_out + sum((9 * a + 2) * b for a, b in convs)

    total = 0
    for scale, (checker, channel) in enumerate(couplings_per_scale(config)):
        total += checker * net(*net_shape(config, scale, False))
        total += channel * net(*net_shape(config, scale, True)) if channel else 0
    return total


def matched_width(parameters: int, config: RealNVPConfig) -> RealNVPConfig:
    """The same config with an nhidden that gives `parameters` trainable numbers, at most 2 % off.

    The width of the coarsest lattice is searched in steps of 1 and the finer ones are its halves, rounded; if the
    nearest such network is more than 2 % off (small networks), each of its widths may move by 1 as well.
    nhidden is one integer where the doubling is exact, else one per scale; the old nhidden is not looked at.

    Raises ValueError, naming the nearest counts, if no width comes within 2 %.
    """
    parameters = whole("parameters", parameters)

    def halved(top: int) -> tuple[int, ...]:
        return tuple(max(1, ((2 * top >> (config.scales - 1 - r)) + 1) // 2) for r in range(config.scales))

    def count(widths: tuple[int, ...]) -> int:
        return parameter_count(replace(config, nhidden=widths))

    def miss(widths: tuple[int, ...]) -> int:
        return abs(count(widths) - parameters)

    tops = range(1, parameters + 2)  # a width of w has more than w parameters: the last one is too wide
    high = tops[bisect_left(tops, parameters, key=lambda top: count(halved(top)))]
    best = min(halved(max(1, high - 1)), halved(high), key=miss)
    if miss(best) > TOLERANCE * parameters:
        near = sorted(product(*((w, w + 1, max(1, w - 1)) for w in best)), key=miss)
        best = near[0]
        if miss(best) > TOLERANCE * parameters:
            below = next((w for w in near if count(w) < parameters), None)
            above = next((w for w in near if count(w) > parameters), None)
            names = " and ".join(f"{count(w)} (nhidden={w})" for w in (below, above) if w)
            raise ValueError(f"no nhidden gives {parameters} parameters within 2 %: the nearest found are {names}")
    return replace(config, nhidden=best[0] if best == tuple(best[0] << r for r in range(config.scales)) else best)
