"""See before you pay: how much of each frame the footage saw, along the timeline and in numbers."""
