"""Our results beside the original EX-4D's, for any case laid out like the golden data: behind `ex4d parity`."""

from backend.parity.comparison import Comparison, ParityCaseError
from backend.parity.depth import compare_depth
from backend.parity.generation import compare_generation
from backend.parity.geometry import compare_geometry

__all__ = ["Comparison", "ParityCaseError", "compare_depth", "compare_generation", "compare_geometry"]
