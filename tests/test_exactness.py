"""The checks of exactness see what is wrong, and find nothing wrong with hierarchies of random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rgflow import build, exactness
from rgflow.configs import RGFlowConfig
from rgflow.flow import Flow
from rgflow.priors import Laplace


class Stretched(nn.Module):
    """z = a x with a mistake of the given kind; D log a is right."""

    def __init__(self, mistake: str = "") -> None:
        super().__init__()
        self.scale, self.mistake, self.shape = nn.Parameter(torch.tensor(2.0, dtype=torch.float64)), mistake, (1, 2, 2)
        self.levels = torch.zeros(2, 2, dtype=torch.int64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.scale, (3 if self.mistake == "forward" else 4) * self.scale.log().expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        sign = 1 if self.mistake == "backward" else -1
        return z / self.scale + (1e-6 if self.mistake == "trip" else 0), 4 * sign * self.scale.log().expand(len(z))


def stretched(mistake: str = "") -> Flow:
    return Flow(Stretched(mistake), Laplace())


def points(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_known_map() -> None:
    x = points(3, 1, 2, 2)
    all_of_it = exactness.compared(stretched(), x)
    log2 = 4 * torch.tensor(2.0, dtype=torch.float64).log()
    assert torch.allclose(all_of_it.found, torch.cat([log2.expand(3), -log2.expand(3)]), rtol=0, atol=1e-14)
    assert torch.equal(all_of_it.said, all_of_it.found.sign() * log2)
    assert torch.allclose(all_of_it.moved, x.abs().flatten(1).amax(1))
    assert exactness.round_trip(stretched(), x) == 0


@pytest.mark.parametrize("mistake", ["forward", "backward"])
def test_a_wrong_log_determinant_is_seen(mistake: str) -> None:
    said, found, _ = exactness.compared(stretched(mistake), points(2, 1, 2, 2))
    assert (said - found).abs().max() > 0.5


def test_a_wrong_inverse_is_seen() -> None:
    assert exactness.round_trip(stretched("trip"), points(2, 1, 2, 2)) == pytest.approx(1e-6)


def test_awake_leaves_no_weight_as_it_was() -> None:
    flow = build(RGFlowConfig(channels=1, size=8, nlayers=2, nres=1, nhidden=4), torch.Generator().manual_seed(0))
    before = [p.clone() for p in flow.parameters()]
    assert exactness.awake(flow, torch.Generator().manual_seed(3)) is flow and not flow.training
    assert all((a != b).all() for a, b in zip(before, flow.parameters(), strict=True))
    again = exactness.awake(build(flow.config), torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), flow.parameters(), strict=True))
    assert not any(p.requires_grad for p in flow.parameters())
    with pytest.raises(ValueError, match="std must be above 0, not 0"):
        exactness.awake(flow, std=0)


@pytest.mark.parametrize(
    "options",
    [dict(nres=1), dict(net="plain", tied=False, linear="whitened"), dict(net="plain", coupling="spline"),
     dict(coupling="autoregressive", nres=1)],
    ids=str,
)  # fmt: skip
def test_hierarchies_are_exact(options: dict) -> None:
    flow = build(RGFlowConfig(channels=1, size=8, nlayers=2, nhidden=16, **options)).double()
    flow, x = exactness.awake(flow, torch.Generator().manual_seed(0)), points(2, 1, 8, 8)
    said, found, moved = exactness.compared(flow, x)
    assert (said - found).abs().max() < 1e-10 and exactness.round_trip(flow, x) < 1e-10
    assert moved.min() > 0.1 and found.abs().min() > 1e-3
