"""The demo: runs footage to movie strip with a real backend, a real Blender and a real socket."""

from ex4d.demo.chain import DemoError, run_demo

__all__ = ["DemoError", "run_demo"]
