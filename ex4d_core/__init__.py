"""What the Blender add-on and the backend share: cameras, trajectories, scene files, messages, client.

Only numpy, msgpack and pyzmq are needed, so that this package runs unchanged inside Blender's own Python.
"""

__version__ = "0.1.0"
