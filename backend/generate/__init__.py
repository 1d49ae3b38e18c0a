"""Colour and mask to the final frames: one interface, several engines."""

from backend.generate.interface import Engine, EngineProgress, Watch, create_engine
from backend.generate.preview import PreviewEngine

__all__ = ["Engine", "EngineProgress", "PreviewEngine", "Watch", "create_engine"]
