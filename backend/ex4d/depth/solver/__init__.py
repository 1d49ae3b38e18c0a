"""Solves for the moving camera that filmed a static scene, with COLMAP's Python package: poses, lens and sparse points.

It needs no weights. The flow: features of every frame (`features`), matches between frames (`matching`), whether they
have parallax at all (`parallax`), poses and points of key frames (`mapping`), and of the frames between
(`registration`); `solve_camera` is all of it.
"""

from ex4d.depth.solver.package import SolverUnavailableError, why_no_solver
from ex4d.depth.solver.solve import SolvedCamera, solve_camera

__all__ = ["SolvedCamera", "SolverUnavailableError", "solve_camera", "why_no_solver"]
