"""The words that name estimators of depth.

Here, and not in `ex4d.depth`, so that the command line knows them without waiting for torch.
"""

from __future__ import annotations

DEPTHCRAFTER = "depthcrafter"
VIDEO_DEPTH_ANYTHING = "video-depth-anything"
DEPTH_PRO = "depth-pro"
DEPTH_ANYTHING = "depth-anything-v2"

# In the order in which `auto` prefers them.
ESTIMATORS = (DEPTHCRAFTER, VIDEO_DEPTH_ANYTHING, DEPTH_PRO, DEPTH_ANYTHING)
