"""Shared settings: float64 on request, one seed, hypothesis without deadlines."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("rgflow", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("rgflow")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def double() -> None:
    """Makes float64 torch's default for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
