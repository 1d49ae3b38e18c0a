"""The demo: footage to movie strip, with a real backend process, a real Blender process and a real socket."""

from ex4d.demo.chain import DemoError, run_demo

__all__ = ["DemoError", "run_demo"]
