"""Plain networks that give the log-scale s and the shift t of a coupling, with the verbs of those in `nets`; ours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainNet(nn.Module):
    r"""One network for s and t: n hidden layers, no weight normalisation. It learns faster per second.

    .. math:: h_1 = \text{silu}(W_1 x + b_1), \quad h_k = h_{k-1} + \text{silu}(W_k h_{k-1} + b_k), \quad
        (u, t) = W_{n+1} h_n + b_{n+1}, \quad s = \gamma \odot \tanh(u)

    with :math:`W_{n+1} = b_{n+1} = 0` and :math:`\gamma = 1` at the start. With places, :math:`b_1` is a sum: one part
    for all patches, and one for the place p of a patch, 0 at the start. With odd, u is (u(x) + u(-x)) / 2 and t is
    (t(x) - t(-x)) / 2, so that a coupling takes -x to -z.

    Shapes: input (N, half); s and t (N, half). With places, N is a multiple of their number, place by place.

    Arguments:
        half: d/2.
        nhidden: width of the hidden layers.
        generator: source of the initial weights.
        outputs: rows of W_{n+1} for each feature of the half that changes; 2, unless a subclass has a use for more.
        places: how many there are; 0: patches are treated alike wherever they lie.
        nmlp: n, at least 1.
        odd: whether s is even and t odd.

    Source: ours (DESIGN section 5); nothing of it is in the paper.
    """

    def __init__(
        self,
        half: int,
        nhidden: int,
        generator: torch.Generator | None = None,
        outputs: int = 2,
        places: int = 0,
        nmlp: int = 2,
        odd: bool = False,
    ) -> None:
        super().__init__()

        def uniform(outputs: int, inputs: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(outputs, inputs, generator=generator) - 1) / math.sqrt(inputs))

        self.nmlp, self.odd, rows = nmlp, odd, outputs * half
        for k in range(1, nmlp + 1):
            setattr(self, f"w{k}", uniform(nhidden, half if k == 1 else nhidden))
            setattr(self, f"b{k}", nn.Parameter(torch.zeros(nhidden)))
        setattr(self, f"w{nmlp + 1}", nn.Parameter(torch.zeros(rows, nhidden)))
        setattr(self, f"b{nmlp + 1}", nn.Parameter(torch.zeros(rows)))
        self.scale = nn.Parameter(torch.ones(half))
        self.places = nn.Parameter(torch.zeros(places, nhidden)) if places else None

    def prepare(self) -> None:
        """Nothing to prepare: the weights are used as they are."""

    @property
    def layers(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """(W_k, b_k) of all layers, first to last."""
        return [(getattr(self, f"w{k}"), getattr(self, f"b{k}")) for k in range(1, self.nmlp + 2)]

    def hidden(self, x: Tensor) -> Tensor:
        """h_n, (N, nhidden)."""
        first, *others, _ = self.layers
        h = F.linear(x, *first)
        if self.places is not None:
            h = (h.view(-1, *self.places.shape) + self.places).view(h.shape)
        h = F.silu(h)
        for w, b in others:
            h = h + F.silu(F.linear(h, w, b))
        return h

    def forward(self, x: Tensor, prepared: None = None, side: int = 0) -> tuple[Tensor, ...]:
        """Gives (s, t); `side` makes no difference."""
        rows = F.linear(self.hidden(torch.cat([x, -x]) if self.odd else x), *self.layers[-1])
        if self.odd:
            (u, t), (v, r) = (part.chunk(2, dim=-1) for part in rows.chunk(2))
            u, t = (u + v) / 2, (t - r) / 2
        else:
            u, t = rows.chunk(2, dim=-1)
        return self.scale * torch.tanh(u), t


class SplineNet(PlainNet):
    r"""A `PlainNet` whose last layer also gives the shape of a spline for each feature.

    Shapes: input (N, half); s and t (half, N), and the raw numbers of `splines.spline`, (3 pieces - 1, half, N):
    patches come last here, so that the elementwise work that follows runs over long rows. With odd the spline for -x is
    the one for x, turned around.

    Arguments:
        pieces: of each spline.

    Source: ours; nothing of it is in the paper.
    """

    def __init__(
        self,
        half: int,
        nhidden: int,
        pieces: int,
        generator: torch.Generator | None = None,
        places: int = 0,
        nmlp: int = 2,
        odd: bool = False,
    ) -> None:
        super().__init__(half, nhidden, generator, 3 * pieces + 1, places, nmlp, odd)
        self.pieces = pieces

    def forward(self, x: Tensor, prepared: None = None, side: int = 0) -> tuple[Tensor, ...]:
        """Gives (s, t, shape); `side` makes no difference."""
        w, b = self.layers[-1]
        hidden = self.hidden(torch.cat([x, -x]) if self.odd else x)
        rows = torch.addmm(b[:, None], w, hidden.T).to(self.scale.dtype)  # not knots in bf16
        rows = rows.unflatten(0, (-1, len(self.scale)))
        if self.odd:
            here, there = rows.chunk(2, dim=-1)
            parts = (1, 1, self.pieces, self.pieces, self.pieces - 1)  # s, t, widths, heights, slopes
            turned = [part.flip(0) for part in there.split(parts)]
            turned[1] = -turned[1]
            rows = (here + torch.cat(turned)) / 2
        return self.scale[:, None] * torch.tanh(rows[0]), rows[1], rows[2:]
