"""Numbers of the occlusion model "thickness", which renders and Blender's viewports share.

`ex4d.mesh.thickness` explains the measurement; `blender_addon.scenes.back_limits` makes the same one on the GPU.
"""

from __future__ import annotations

import math

# A round body is as deep behind its silhouette as its radius, half its width. A camera that turns by an angle a around
# it sees tan(a / 2) of that depth, all of it at 90 degrees only: below that this errs towards solid.
THICKNESS_RATIO = 0.5
# Nothing wider than this share of the image's longer side is measured: a wall or the ground has no thickness to find.
WIDEST_SHARE = 0.25

# A surface ends where depth steps back by more than this many pixel widths (a slope of 72 degrees) ...
STEP_WIDTHS = 3.0
# ... by more than this share of the depth: smaller steps are within what depth estimates and 8-bit disparity err by ...
STEP_SHARE = 0.01
# ... and by more than this many times the steps before and after it, which continue where a surface is merely slanted.
STEP_PROMINENCE = 3.0
# A face whose smallest angle is less than this is stretched: EX-4D's rule.
STRETCHED_DEGREES = 2.5
# A step this steep ends a surface in any case, by that rule: edges smeared over a few pixels are silhouettes too.
STEEP_WIDTHS = 1.0 / math.tan(math.radians(STRETCHED_DEGREES))
