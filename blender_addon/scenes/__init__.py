"""Scene packages in Blender: the animated DW-Mesh with its footage, its source camera and its placement."""
