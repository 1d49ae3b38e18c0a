"""Scene packages in Blender: the animated DW-Mesh with its footage, and the camera that filmed it."""
