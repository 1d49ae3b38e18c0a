"""Colour and mask to the final frames: one interface, several engines."""

from ex4d.generate.engine import Engine, EngineProgress, Watch, create_engine
from ex4d.generate.preview import PreviewEngine

__all__ = ["Engine", "EngineProgress", "PreviewEngine", "Watch", "create_engine"]
