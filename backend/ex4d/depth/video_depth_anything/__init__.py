"""Video Depth Anything (arXiv 2501.12375): Depth Anything V2 with a head that attends over time."""
