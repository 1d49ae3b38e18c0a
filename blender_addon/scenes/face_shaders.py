"""GPU shaders for the faces of a scene: its stretched ones, as unseen areas or as ghosts, and those that were seen.

Of unseen areas, those that other frames saw have a colour of their own (see `remembered_areas`).

They tell stretched faces apart with the same test as the scene's material (see `material`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gpu
import mathutils

from .material import ALIGNED_DEGREES, STRETCHED_DEGREES

# Offset towards the viewer, as a share of the depth range, so that it is drawn over the face that it coincides with.
DEPTH_OFFSET = 4e-5

_VERTEX = """
void main()
{
  position = pos;
  texture_place = uv;
  gl_Position = object_to_screen * vec4(pos, 1.0);
  gl_Position.z -= DEPTH_OFFSET * gl_Position.w;
}
"""
_TEST = """
bool is_stretched()
{
  vec3 normal = normalize(cross(dFdx(position), dFdy(position)));
  vec3 ray = normalize(position - eye);
  vec3 to_viewer = normalize(viewer.xyz - position * viewer.w);
  return abs(dot(normal, ray)) < EDGE_ON && dot(ray, to_viewer) >= SAME_RAY;
}
"""
STRETCHED = """
void main()
{
  if (!is_stretched()) {
    discard;
  }
  fragment_color = color;
}
"""
GHOST = """
void main()
{
  vec4 behind = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  if (!is_stretched()) {
    discard;
  }
  fragment_color = mix(color, behind, behind.a);
}
"""
SEEN = """
void main()
{
  if (is_stretched()) {
    discard;
  }
  fragment_color = vec4(textureLod(footage, texture_place, 0.0).rgb, 1.0);
}
"""

KNOWN = """
void main()
{
  if (is_stretched()) {
    discard;
  }
  fragment_color = vec4(1.0);
}
"""
REMEMBERED = """
void main()
{
  vec4 known = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  if (!is_stretched()) {
    discard;
  }
  fragment_color = dot(known, vec4(1.0)) > 1.5 ? REMEMBERED_COLOR : color;
}
"""
_OUTSIDE_VERTEX = """
void main()
{
  gl_Position = vec4(pos, 1.0);
}
"""
OUTSIDE = """
void main()
{
  vec4 known = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  fragment_color = dot(known, vec4(1.0)) > 1.5 ? REMEMBERED_COLOR : color;
}
"""

# Where two key frames see something; each has a channel of the picture (see `remembered_areas`). Linear; the blue that
# the backend tints remembered areas with where holes are marked.
_REMEMBERED_COLOR = "vec4(0.0, 0.35, 1.0, 1.0)"

# Compiled, by their fragment sources.
face_shaders: dict[str, gpu.types.GPUShader] = {}


def face_shader(fragment: str) -> Any:
    """The shader of a fragment source: `STRETCHED`, `GHOST`, `SEEN`, `KNOWN` or `REMEMBERED`."""
    if fragment not in face_shaders:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("MAT4", "object_to_screen")
        info.push_constant("VEC4", "viewer")
        info.push_constant("VEC3", "eye")
        # Not push constants, which are limited to 128 bytes.
        info.define("EDGE_ON", f"{math.sin(math.radians(STRETCHED_DEGREES)):.9f}")
        info.define("SAME_RAY", f"{-math.cos(math.radians(ALIGNED_DEGREES)):.9f}")
        info.define("DEPTH_OFFSET", f"{DEPTH_OFFSET:.9f}")
        info.define("REMEMBERED_COLOR", _REMEMBERED_COLOR)
        if fragment == SEEN:
            info.sampler(0, "FLOAT_2D", "footage")
        elif fragment != KNOWN:
            info.push_constant("VEC4", "color")
        if fragment in (GHOST, REMEMBERED):
            info.sampler(0, "FLOAT_2D", "seen")
        varyings = gpu.types.GPUStageInterfaceInfo("ex4d_face")
        varyings.smooth("VEC3", "position")
        varyings.smooth("VEC2", "texture_place")
        info.vertex_in(0, "VEC3", "pos")
        info.vertex_in(1, "VEC2", "uv")
        info.vertex_out(varyings)
        info.fragment_out(0, "VEC4", "fragment_color")
        info.vertex_source(_VERTEX)
        info.fragment_source(_TEST + fragment)
        face_shaders[fragment] = gpu.shader.create_from_info(info)
    return face_shaders[fragment]


def draw_batch(
    shader: Any,
    batch: gpu.types.GPUBatch,
    to_screen: mathutils.Matrix,
    eye: Sequence[float],
    viewer: Sequence[float],
    **values: Any,
) -> None:
    """Draw faces with a shader of `face_shader`, and its color, footage or picture.

    Args:
        to_screen: from the object's space, like the next two.
        eye: the source camera's position.
        viewer: the viewer's position and 1; in an orthographic viewport the direction to the viewer and 0.
    """
    shader.bind()
    shader.uniform_float("object_to_screen", to_screen)
    shader.uniform_float("eye", tuple(eye))
    shader.uniform_float("viewer", viewer)
    set_values(shader, values)
    batch.draw(shader)


def set_values(shader: Any, values: Mapping[str, Any]) -> None:
    """Set colours and textures of a shader that is bound."""
    for name, value in values.items():
        set_value = shader.uniform_sampler if isinstance(value, gpu.types.GPUTexture) else shader.uniform_float
        set_value(name, value)


def outside_shader() -> Any:
    """The shader of what is outside of the footage's frame, in its color, or remembered where the picture seen says."""
    if OUTSIDE not in face_shaders:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("VEC4", "color")
        info.define("REMEMBERED_COLOR", _REMEMBERED_COLOR)
        info.sampler(0, "FLOAT_2D", "seen")
        info.vertex_in(0, "VEC3", "pos")
        info.fragment_out(0, "VEC4", "fragment_color")
        info.vertex_source(_OUTSIDE_VERTEX)
        info.fragment_source(OUTSIDE)
        face_shaders[OUTSIDE] = gpu.shader.create_from_info(info)
    return face_shaders[OUTSIDE]
