"""GPU shaders for the faces of a scene: its stretched ones, as unseen areas or as ghosts, and those that were seen.

They tell stretched faces apart with the same test as the scene's material (see `material`).
"""

from __future__ import annotations

import math
from typing import Any

import gpu

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
# With `BackLimits` of a scene: whether the space here, on a stretched face, is behind the near side of a silhouette and
# no deeper than its object is taken to be. The face lies between the centres of two to four pixels.
_SOLID = """
bool is_solid()
{
  ivec2 size = textureSize(distances, 0);
  ivec2 first = ivec2(floor(vec2(texture_place.x, 1.0 - texture_place.y) * vec2(size) - 0.5 + 1e-3));
  float reach = length(position - eye);
  for (int corner = 0; corner < 4; corner++) {
    ivec2 place = clamp(first + ivec2(corner & 1, corner >> 1), ivec2(0), size - 1);
    float share = texelFetch(beyond, place, 0).r;
    float front = texelFetch(distances, place, 0).r;
    if (share > 0.0 && front <= reach * 1.00001 && reach <= front * (1.0 + share)) {
      return true;
    }
  }
  return false;
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

SEEN_AND_SOLID = (
    _SOLID
    + """
void main()
{
  bool unseen = is_stretched();
  if (unseen && !is_solid()) {
    discard;
  }
  fragment_color = unseen ? color : vec4(textureLod(footage, texture_place, 0.0).rgb, 1.0);
}
"""
)
UNSEEN = (
    _SOLID
    + """
void main()
{
  vec4 behind = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  if (!is_stretched()) {
    discard;
  }
  fragment_color = is_solid() ? color : mix(color, behind, behind.a);
}
"""
)

# The textures that each of them samples.
_SAMPLERS = {
    GHOST: ("seen",),
    SEEN: ("footage",),
    SEEN_AND_SOLID: ("footage", "distances", "beyond"),
    UNSEEN: ("seen", "distances", "beyond"),
}

# Compiled, by their fragment sources.
face_shaders: dict[str, gpu.types.GPUShader] = {}


def face_shader(fragment: str) -> Any:
    """The shader of a fragment source: `STRETCHED`, `GHOST`, `SEEN`, `SEEN_AND_SOLID` or `UNSEEN`."""
    if fragment not in face_shaders:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("MAT4", "object_to_screen")
        info.push_constant("VEC4", "viewer")
        info.push_constant("VEC3", "eye")
        # Not push constants, which are limited to 128 bytes.
        info.define("EDGE_ON", f"{math.sin(math.radians(STRETCHED_DEGREES)):.9f}")
        info.define("SAME_RAY", f"{-math.cos(math.radians(ALIGNED_DEGREES)):.9f}")
        info.define("DEPTH_OFFSET", f"{DEPTH_OFFSET:.9f}")
        if fragment != SEEN:
            info.push_constant("VEC4", "color")
        for slot, name in enumerate(_SAMPLERS.get(fragment, ())):
            info.sampler(slot, "FLOAT_2D", name)
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
