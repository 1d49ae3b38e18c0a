"""Coverage of the active shot: the visible fraction of each frame, along the timeline and in numbers."""
