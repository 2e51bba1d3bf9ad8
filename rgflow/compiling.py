"""A flow's couplings through torch.compile: fewer passes over memory, for some minutes of compilation at the start."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from types import MethodType

import torch
from torch import Tensor

from rgflow.couplings import Coupling
from rgflow.flow import Flow

METHODS = ("forward_halves", "inverse_halves", "theta")  # theta: what memory="reversible" calls in its backward pass
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def no_kept_kernels() -> Iterator[None]:
    """Compiles what is compiled inside without kernels that were kept from earlier, and keeps none: for timing."""
    name, kept = "TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if kept is not None:
                os.environ[name] = kept


def compile_flow(flow: Flow, batch: int = 2) -> float | None:
    """Compiles the couplings of a flow, in place, and gives the seconds it took; None where nothing can be compiled.

    One coupling layer is compiled, not the flow: all layers of a level run the same kernels, and levels share them as
    long as their networks have the same sizes; the number of patches is a variable, so that other batches need no
    second compilation. Names and values of weights stay as they are: checkpoints of compiled and plain flows are the
    same, and a copy (`copy.deepcopy`) of a compiled flow is compiled. Numbers agree with those of the plain flow to
    rounding. Works with each kind of `memory`: with "reversible" the networks are compiled, in the backward pass too.

    The kernels are made here, for training, encoding and decoding at the flow's device and dtype, and under the
    autocast in force (call it inside `torch.autocast` to train there); for `batch` images, the number that will be
    used, since a much larger one may be compiled again when it comes. torch keeps them on disk (in the folder that the
    environment variable TORCHINDUCTOR_CACHE_DIR names, else in the folder for temporary files), so that the next
    process spends less.

    No compiler, a platform that torch.compile does not know, a compilation that fails: one warning, and the flow is
    left as it was. A flow without couplings of halves (autoregressive, Real NVP) is not changed either.
    """
    layers = [module for module in flow.modules() if isinstance(module, Coupling)]
    if not layers:
        logger.warning("nothing to compile: the flow has no couplings that work on halves")
        return None
    start = time.perf_counter()
    try:
        for kind in {type(layer) for layer in layers}:
            methods = {name: _compiled(getattr(kind, name)) for name in METHODS}
            for layer in layers:
                if type(layer) is kind:
                    for name, method in methods.items():
                        setattr(layer, name, MethodType(method, layer))
        _use(flow, batch)
    except Exception as error:  # torch.compile raises errors of many kinds
        for layer in layers:
            for name in METHODS:
                vars(layer).pop(name, None)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning("compilation failed, the flow runs as it is: %s", lines[0])
        return None
    seconds = time.perf_counter() - start
    logger.info("compiled the couplings in %.1f s", seconds)
    return seconds


def _compiled(method: Callable) -> Callable:
    fast = torch.compile(method, fullgraph=True, recompile_limit=64)

    def call(layer: Coupling, *arguments: object) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():  # a part of what is being compiled
            return method(layer, *arguments)
        ready = []
        for value in arguments:
            if isinstance(value, Tensor):  # one stride, one need of gradients, any number of patches: one compilation
                value = value.contiguous()
                if torch.is_grad_enabled() and not value.requires_grad:
                    value = value.detach().requires_grad_()
                torch._dynamo.maybe_mark_dynamic(value, 0)
            ready.append(value)
        return fast(layer, *ready)

    return call


def _use(flow: Flow, batch: int) -> None:
    """Trains a step without its result, encodes and decodes: what is to be compiled is compiled."""
    images = torch.zeros(batch, *flow.shape, dtype=torch.uint8, device=flow.device)
    noise = torch.full(images.shape, 0.5, dtype=flow.dtype, device=flow.device)
    weights = [weight for weight in flow.parameters() if weight.requires_grad]
    if weights:
        torch.autograd.grad(flow.bits_per_dim(images, noise).mean(), weights, allow_unused=True)
    with torch.no_grad():
        flow.decode(flow.encode(noise)[0])
