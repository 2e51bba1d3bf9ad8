"""Gradients of invertible layers without their activations: the backward pass inverts the layers instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Theta = tuple[Tensor, ...]
Back = tuple[Tensor, Tensor, Theta]


class Layer(Protocol):
    """Two half-steps: network 0 reads a and changes b, then network 1 reads the new b and changes a.

    `couplings.Coupling` is one. Given the same theta the maps undo each other; they may have weights of their own.
    """

    def parameters(self) -> Any: ...

    def prepare(self) -> Any:
        """What both half-steps need and no input enters: tensors, nested in tuples, lists and dicts."""

    def theta(self, kept: Tensor, prepared: Any, side: int) -> Theta:
        """The network of half-step `side` on the half that stays, which is the same before and after it."""

    def forward_map(self, x: Tensor, *theta: Tensor) -> tuple[Tensor, Tensor]: ...

    def inverse_map(self, y: Tensor, *theta: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward_back(self, y: Tensor, grad_y: Tensor, grad_ladj: Tensor, *theta: Tensor) -> Back | None:
        """From y = forward_map(x, *theta) and the gradients of y and ladj: x and the gradients of x and theta; None if
        autograd is to find them."""

    def forward_halves(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def inverse_halves(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


def reversible(layers: Sequence[Layer], a: Tensor, b: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    r"""Applies the layers one after the other (or inverts them, last to first) and keeps the result only for backward.

    The backward pass goes through the half-steps :math:`y = f(x; \theta(k))`, k the half that stays, from the last to
    the first. Each network is evaluated once there, on a k that is at hand:

    .. math:: \theta = \theta(k), \qquad x = f^{-1}(y; \theta), \qquad
        \bar x = \bar y\,\partial_x f + \bar\ell\,\partial_x \ell, \qquad
        \bar\theta = \bar y\,\partial_\theta f + \bar\ell\,\partial_\theta \ell, \qquad
        \bar k \mathrel{+}= \bar\theta\,\partial_k \theta

    with :math:`\ell` the half-step's log-determinant and bars for gradients. So a step costs about 4 network
    evaluations where keeping all activations costs 3, and its memory does not grow with the number of layers.

    Shapes: a, b (N, d/2), the halves; ladj (N,), nats. The numbers are those of the layers themselves, bit by bit; the
    gradients differ by the rounding of the inverses.

    Raises:
        RuntimeError: in the backward pass, when the weights were changed in place since, or a second derivative is
            asked for.

    Source: Gomez et al. 2017 (reversible residual networks), sec. 3; Dinh et al. 2017 for the inverse.
    Departure: a tied layer prepares its weights once per layer, as the forward pass does.
    """
    if torch.is_grad_enabled() and len(layers):
        return _Reversible.apply(layers, inverse, a, b, *_weights(layers))
    return _apply(layers, a, b, inverse)


def _apply(layers: Sequence[Layer], a: Tensor, b: Tensor, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    total = a.new_zeros(len(a))
    for layer in reversed(layers) if inverse else layers:
        a, b, ladj = layer.inverse_halves(a, b) if inverse else layer.forward_halves(a, b)
        total = total + ladj
    return a, b, total


class _Reversible(torch.autograd.Function):
    """`reversible` where gradients are wanted. The weights are inputs, so that their gradients take the usual way (sums
    over several uses, hooks, DDP), and saved, so that a change in place is noticed."""

    @staticmethod
    def forward(ctx: Any, layers: Sequence[Layer], inverse: bool, a: Tensor, b: Tensor, *weights: Tensor) -> Theta:
        ctx.layers, ctx.inverse, ctx.weights, ctx.autocast = layers, inverse, weights, _autocast(a.device.type)
        with torch.autocast(**ctx.autocast):
            a, b, ladj = _apply(layers, a, b, inverse)
        ctx.save_for_backward(a, b, *weights)
        return a, b, ladj

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_a: Tensor, grad_b: Tensor, grad_ladj: Tensor) -> tuple[Tensor | None, ...]:
        halves, grads, totals = list(ctx.saved_tensors[:2]), [grad_a, grad_b], {}
        if list(map(id, _weights(ctx.layers))) != list(map(id, ctx.weights)):
            raise RuntimeError("reversible layers must have the weights of the forward pass in the backward pass")
        for layer in ctx.layers if ctx.inverse else reversed(ctx.layers):
            _back(ctx, layer, halves, grads, grad_ladj, totals)
        return None, None, *grads, *map(totals.get, ctx.weights)


def _back(ctx: Any, layer: Layer, halves: list[Tensor], grads: list[Tensor], grad_ladj: Tensor, totals: dict) -> None:
    """Takes the halves and their gradients from behind a layer to before it; adds the weights' gradients to totals."""
    maps = (layer.forward_map, layer.inverse_map)
    apply, undo = reversed(maps) if ctx.inverse else maps
    weights, cuts = _weights([layer]), {}
    with torch.enable_grad(), torch.autocast(**ctx.autocast):
        prepared = _cut(layer.prepare(), cuts)
    sources, leaves = [source for source, _ in cuts.values()], [leaf for _, leaf in cuts.values()]
    for side in (0, 1) if ctx.inverse else (1, 0):
        kept = halves[side].detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            theta = layer.theta(kept, prepared, side)
        y, grad_y, given = halves[1 - side], grads[1 - side], [t.detach().requires_grad_() for t in theta]
        found = None if ctx.inverse else layer.forward_back(y, grad_y, grad_ladj, *map(torch.detach, theta))
        if found is None:
            with torch.no_grad(), torch.autocast(**ctx.autocast):
                x = undo(y, *given)[0].requires_grad_()
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                outputs = apply(x, *given)
            grad_x, *grad_theta = _pull(outputs, (grad_y, grad_ladj), [x, *given, *weights])
            _add(totals, weights, grad_theta[len(given) :])
            found = x.detach(), grad_x, grad_theta[: len(given)]
        halves[1 - side], grads[1 - side], grad_theta = found
        grad_kept, *others = _pull(theta, grad_theta, [kept, *leaves, *weights])
        grads[side] = grads[side] if grad_kept is None else grads[side] + grad_kept
        _add(totals, [*leaves, *weights], others)
    _add(totals, weights, _pull(sources, [totals.pop(leaf, None) for leaf in leaves], weights))


def _pull(outputs: Sequence[Tensor], grads: Sequence[Tensor | None], inputs: list[Tensor]) -> Sequence[Tensor | None]:
    """The gradients of the inputs, given those of the outputs; None where nothing depends on one."""
    pairs = [(y, g.to(y.dtype)) for y, g in zip(outputs, grads, strict=True) if y.requires_grad and g is not None]
    if not pairs or not inputs:
        return [None] * len(inputs)
    return torch.autograd.grad([y for y, _ in pairs], inputs, [g for _, g in pairs], allow_unused=True)


def _add(totals: dict[Tensor, Tensor], tensors: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    for tensor, grad in zip(tensors, grads, strict=True):
        if grad is not None:
            totals[tensor] = totals[tensor] + grad if tensor in totals else grad


def _cut(value: Any, cuts: dict[int, tuple[Tensor, Tensor]]) -> Any:
    """The value with leaves for the tensors that have a history; `cuts` gets each such tensor and its leaf."""
    if isinstance(value, Tensor) and value.requires_grad:
        if id(value) not in cuts:
            cuts[id(value)] = value, value.detach().requires_grad_()
        return cuts[id(value)][1]
    if isinstance(value, dict):
        return {key: _cut(item, cuts) for key, item in value.items()}
    return type(value)(_cut(item, cuts) for item in value) if isinstance(value, (list, tuple)) else value


def _weights(layers: Sequence[Layer]) -> list[Tensor]:
    """The weights that are trained, each once."""
    return list(dict.fromkeys(w for layer in layers for w in layer.parameters() if w.requires_grad))


def _autocast(device: str) -> dict[str, Any]:
    """The state of autocast now, for `torch.autocast`. Without its cache, in which some versions of torch find casts
    again that were made without gradients."""
    if not torch.amp.is_autocast_available(device):
        return {"device_type": "cpu", "enabled": False}
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return {"device_type": device, "enabled": enabled, "dtype": dtype, "cache_enabled": False}
