"""Comparisons of `ex4d parity` with the original EX-4D, for any case laid out like the golden data."""

from parity.comparison import Comparison, ParityCaseError
from parity.depth import compare_depth
from parity.generation import compare_generation
from parity.geometry import compare_geometry

__all__ = ["Comparison", "ParityCaseError", "compare_depth", "compare_generation", "compare_geometry"]
