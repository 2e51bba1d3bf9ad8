"""Shared settings: float64 on request, one seed, hypothesis without deadlines."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("rgflow", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("rgflow")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _elsewhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a test leaves in the folder where it runs would be taken up by the next; so that folder is its own."""
    if hasattr(request.node, "obj"):  # the cells of a notebook run where the notebook is
        monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    """A command that a test runs says how much is logged; the next test hears what is logged by default."""
    logger = logging.getLogger("rgflow")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture
def double() -> None:
    """Makes float64 torch's default for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
