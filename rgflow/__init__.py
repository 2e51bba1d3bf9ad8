"""RG-Flow: a hierarchical flow model based on the renormalization group and sparse priors (arXiv:2010.00029)."""

from rgflow.flow import Flow, RGFlowConfig, build
from rgflow.hierarchy import Geometry
from rgflow.realnvp import RealNVPConfig

__all__ = ["Flow", "Geometry", "RGFlowConfig", "RealNVPConfig", "build"]
