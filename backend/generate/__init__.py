"""Colour and mask to the final frames: one interface, several engines."""

from backend.generate.interface import Engine, create_engine
from backend.generate.preview import PreviewEngine

__all__ = ["Engine", "PreviewEngine", "create_engine"]
