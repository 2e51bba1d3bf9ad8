"""What every bijector must pass: invertible on real inputs, both log-determinants equal to those of autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.testing import assert_close


def wake_up(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Random weights everywhere: a zero-initialised flow is the identity and passes any test."""
    torch.manual_seed(0)
    for p in module.parameters():
        nn.init.normal_(p, std=std)
    return module.eval()


def assert_bijector(f: nn.Module, x: Tensor, atol: float = 1e-10) -> None:
    """f is invertible on x (float64) to atol; both log-dets agree with autograd to ten times it, sample by sample."""
    before = x.clone()
    z, ladj = f(x)
    back, ladj_back = f.inverse(z)
    assert torch.equal(x, before), "the bijector wrote into its input"
    assert z.shape == x.shape and ladj.shape == ladj_back.shape == x.shape[:1]
    assert (z - x).abs().max() > 1e-2, "identity map: this test would prove nothing"
    assert_close(back, x, rtol=0, atol=atol)
    for g, inputs, ladjs in [(f, x, ladj), (f.inverse, z, ladj_back)]:
        for v, expected in zip(inputs, ladjs, strict=True):
            J = jacobian(lambda u, g=g: g(u[None])[0].flatten(), v.detach(), vectorize=True).flatten(1)
            assert_close(torch.linalg.slogdet(J).logabsdet, expected, rtol=0, atol=10 * atol)
