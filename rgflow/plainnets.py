"""Plain networks that give the log-scale s and the shift t of a coupling, with the verbs of those in `nets`; ours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainNet(nn.Module):
    r"""One network for s and t: two hidden layers, no weight normalisation. It learns faster per second.

    .. math:: h_1 = \text{silu}(W_1 x + b_1), \quad h_2 = h_1 + \text{silu}(W_2 h_1 + b_2), \quad
        (u, t) = W_3 h_2 + b_3, \quad s = \gamma \odot \tanh(u)

    with :math:`W_3 = b_3 = 0` and :math:`\gamma = 1` at the start. With places, :math:`b_1` is a sum: one part for all
    patches, and one for the place p of a patch, 0 at the start.

    Shapes: input (N, half); s and t (N, half). With places, N is a multiple of their number, place by place.

    Arguments:
        half: d/2.
        nhidden: width of the hidden layers.
        generator: source of the initial weights.
        outputs: rows of W_3 for each feature of the half that changes; 2, unless a subclass has a use for more.
        places: how many there are; 0: patches are treated alike wherever they lie.

    Source: ours (DESIGN section 5); nothing of it is in the paper.
    """

    def __init__(
        self, half: int, nhidden: int, generator: torch.Generator | None = None, outputs: int = 2, places: int = 0
    ) -> None:
        super().__init__()

        def uniform(outputs: int, inputs: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(outputs, inputs, generator=generator) - 1) / math.sqrt(inputs))

        rows = outputs * half
        self.w1, self.b1 = uniform(nhidden, half), nn.Parameter(torch.zeros(nhidden))
        self.w2, self.b2 = uniform(nhidden, nhidden), nn.Parameter(torch.zeros(nhidden))
        self.w3, self.b3 = nn.Parameter(torch.zeros(rows, nhidden)), nn.Parameter(torch.zeros(rows))
        self.scale = nn.Parameter(torch.ones(half))
        self.places = nn.Parameter(torch.zeros(places, nhidden)) if places else None

    def prepare(self) -> None:
        """Nothing to prepare: the weights are used as they are."""

    def hidden(self, x: Tensor) -> Tensor:
        """h_2, (N, nhidden)."""
        h = F.linear(x, self.w1, self.b1)
        if self.places is not None:
            h = (h.view(-1, *self.places.shape) + self.places).view(h.shape)
        h = F.silu(h)
        return h + F.silu(F.linear(h, self.w2, self.b2))

    def forward(self, x: Tensor, prepared: None = None, side: int = 0) -> tuple[Tensor, ...]:
        """Gives (s, t); `side` makes no difference."""
        u, t = F.linear(self.hidden(x), self.w3, self.b3).chunk(2, dim=-1)
        return self.scale * torch.tanh(u), t


class SplineNet(PlainNet):
    r"""A `PlainNet` whose last layer also gives the shape of a spline for each feature.

    Shapes: input (N, half); s and t (half, N), and the raw numbers of `splines.spline`, (3 pieces - 1, half, N):
    patches come last here, so that the elementwise work that follows runs over long rows.

    Arguments:
        pieces: of each spline.

    Source: ours; nothing of it is in the paper.
    """

    def __init__(
        self, half: int, nhidden: int, pieces: int, generator: torch.Generator | None = None, places: int = 0
    ) -> None:
        super().__init__(half, nhidden, generator, 3 * pieces + 1, places)

    def forward(self, x: Tensor, prepared: None = None, side: int = 0) -> tuple[Tensor, ...]:
        """Gives (s, t, shape); `side` makes no difference."""
        rows = torch.addmm(self.b3[:, None], self.w3, self.hidden(x).T).to(self.scale.dtype)  # not knots in bf16
        rows = rows.unflatten(0, (-1, len(self.scale)))
        return self.scale[:, None] * torch.tanh(rows[0]), rows[1], rows[2:]
