"""Numbers of the occlusion model "thickness" and of the rule for planes, which renders and Blender's viewports share.

`ex4d.mesh.thickness` explains the measurement, `ex4d.mesh.plane_kernel` the rule; `blender_addon.scenes.back_limits`
applies both on the GPU.
"""

from __future__ import annotations

import math

# A round body is as deep behind its silhouette as its radius, half its width. A camera that turns by an angle a around
# it sees tan(a / 2) of that depth, all of it at 90 degrees only.
THICKNESS_RATIO = 0.5
# That part of it, times this, hides what is behind it: other bodies are deeper than round. 1 and 1.5 gave masks a
# little closer to the truth on most scenes, but called more seen that was not (docs/measured/rendering.md).
HIDING = 2.0
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

# A step that continues a plane ends no surface, however steep, since disparity is linear along the image of a plane. It
# must stay so for this many pixels towards the camera: an edge that a depth model smears over fewer is no plane ...
PLANE_PIXELS = 8
# ... to within this share of the line's rise: smeared edges that are wider curve more.
PLANE_TOLERANCE = 0.15
