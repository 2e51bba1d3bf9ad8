"""An invertible linear map on patches: a part fitted to data, which stays, and a part that is trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchLinear(nn.Module):
    r"""The linear map of a decimator: fitted to the patches (`whitening.whiten`), then trained with the flow.

    .. math:: z = L\,U\,W_0\,(x - c) + b, \qquad
        \log\left|\det\frac{\partial z}{\partial x}\right| = \log|\det W_0| + \sum_i \log U_{ii}

    :math:`W_0` and the centre c are constants, the identity and zero until `fit`. Trained are b (zero at first), the
    lower triangular L with diagonal 1 and the upper triangular U with diagonal :math:`e^u` (the identity at first).
    They act on whitened features, where all directions are of size 1 however small their variance in the data, so that
    one learning rate suits them all.

    Shapes: x, z (N, d); ladj (N,), nats, the same for every patch. Both directions cost one product with a d x d matrix
    that is formed once per call, whatever N. Under autocast all of it stays in the precision of the parameters: the
    rows of :math:`W_0` differ in size by factors of hundreds.

    Source: ours (DESIGN section 5). The triangular factors are those of the invertible 1 x 1 convolution (Kingma &
        Dhariwal 2018, Glow, sec. 3.2), which has a permutation in the place of :math:`W_0`; setting up a layer from the
        statistics of data is due to Salimans & Kingma 2016.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(features))
        self.register_buffer("centre", torch.zeros(features))
        # L below the diagonal, u on it, U above it
        self.factors = nn.Parameter(torch.zeros(features, features))
        self.bias = nn.Parameter(torch.zeros(features))

    @torch.no_grad()
    def fit(self, matrix: Tensor, centre: Tensor) -> None:
        """Sets W_0 (d, d), invertible, and c (d,); what was trained starts again from the identity.

        Raises:
            ValueError: a shape other than these, or numbers that are not finite.
        """
        for name, value, buffer in (("matrix", matrix, self.matrix), ("centre", centre, self.centre)):
            if value.shape != buffer.shape or not value.isfinite().all():
                raise ValueError(f"the {name} must be finite and {tuple(buffer.shape)}, not {tuple(value.shape)}")
            buffer.copy_(value)
        self.factors.zero_()
        self.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent: x -> z, log|det dz/dx|."""
        with torch.autocast(x.device.type, enabled=False):
            weight, ladj = self.prepare()
            z = F.linear(x.to(weight.dtype), weight, self.bias - weight @ self.centre)
        return z, ladj.expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data: z -> x, log|det dx/dz|."""
        with torch.autocast(z.device.type, enabled=False):
            back, ladj = self.prepare_inverse()
            x = F.linear(z.to(back.dtype), back, self.centre - back @ self.bias)
        return x, ladj.expand(len(z))

    def prepare_inverse(self) -> tuple[Tensor, Tensor]:
        """Gives W^-1, (d, d), and log|det W^-1|."""
        weight, ladj = self.prepare()
        return torch.linalg.inv_ex(weight).inverse, -ladj  # inv itself would wait for the device to report success

    def prepare(self) -> tuple[Tensor, Tensor]:
        """Gives W = L U W_0, (d, d), and log|det W|."""
        diagonal = self.factors.diagonal()
        lower = self.factors.tril(-1) + torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        upper = self.factors.triu(1) + diagonal.exp().diag_embed()
        # Of d x d matrices, not of patches: 0.1 ms, and right in whatever precision the matrix was cast to.
        return lower @ (upper @ self.matrix), torch.linalg.slogdet(self.matrix).logabsdet + diagonal.sum()
