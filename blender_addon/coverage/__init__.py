"""How much of each frame of the shot is visible in the footage, along the timeline and in numbers."""
