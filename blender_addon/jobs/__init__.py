"""Jobs of the backend in Blender: what a .blend keeps of them, and one tracker that takes and scenes share."""
