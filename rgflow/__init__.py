"""RG-Flow: a hierarchical flow model based on the renormalization group and sparse priors (arXiv:2010.00029)."""

from __future__ import annotations

import importlib
from types import ModuleType

from rgflow.checkpoints import load, save
from rgflow.flow import Flow, RGFlowConfig, build
from rgflow.hierarchy import Geometry
from rgflow.ode import ODEFlowConfig
from rgflow.realnvp import RealNVPConfig

__all__ = ["Flow", "Geometry", "ODEFlowConfig", "RGFlowConfig", "RealNVPConfig", "build", "load", "save"]

# Reached as rgflow.NAME without an import of their own; loaded on first use, since some of them take seconds.
_LAZY = (
    "authors", "cones", "data", "energies", "inpaint", "ledger", "mixing", "pixels", "plot", "results", "statistics",
    "synthetic", "train", "widgets",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"rgflow.{name}")
    raise AttributeError(f"module 'rgflow' has no attribute {name!r}")
