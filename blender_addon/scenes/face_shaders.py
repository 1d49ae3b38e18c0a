"""GPU shaders for the faces of a scene: its stretched ones, as unseen areas or as ghosts, and those that were seen.

Of unseen areas, those that other frames saw have a colour of their own (see `remembered_areas`).

They tell stretched faces apart with the same test as the scene's material (see `material`). Where they have a scene's
`BackLimits`, faces that continue a plane do not count as stretched, as in renders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gpu
import mathutils

from ex4d_core.thickness_rule import HIDING

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
# With `BackLimits` of a scene: whether the face here has no step along its horizontal and its vertical edge. There are
# two between four pixels, one at the upper left and one at the lower right.
_PLANES = """
bool continues_plane()
{
  ivec2 size = textureSize(beyond, 0);
  vec2 place = vec2(texture_place.x, 1.0 - texture_place.y) * vec2(size) - 0.5;
  ivec2 first = ivec2(floor(place + 1e-3));
  if (any(lessThan(first, ivec2(0))) || any(greaterThanEqual(first + 1, size))) {
    return false;
  }
  vec2 within = place - vec2(first);
  int lower = within.x + within.y > 1.0 ? 1 : 0;
  bool flat_across = texelFetch(beyond, first + ivec2(0, lower), 0).g > 0.5;
  return flat_across && texelFetch(beyond, first + ivec2(lower, 0), 0).b > 0.5;
}
"""
_NO_PLANES = """
bool continues_plane()
{
  return false;
}
"""
_TEST = """
bool is_edge_on()
{
  vec3 normal = normalize(cross(dFdx(position), dFdy(position)));
  vec3 ray = normalize(position - eye);
  vec3 to_viewer = normalize(viewer.xyz - position * viewer.w);
  return abs(dot(normal, ray)) < EDGE_ON && dot(ray, to_viewer) >= SAME_RAY;
}

bool is_stretched()
{
  return is_edge_on() && !continues_plane();
}
"""
# With `BackLimits` of a scene: whether the space here, on a stretched face, is behind the near side of a silhouette and
# no deeper than its object is taken to be, of which the angle between the viewer's ray and the source camera's says how
# much hides (`ex4d.raster.warp.rims`). The face lies between the centres of two to four pixels.
_SOLID = """
float hiding_part(vec3 point)
{
  vec3 ray = normalize(point * viewer.w - viewer.xyz);
  float cosine = clamp(dot(ray, normalize(point - eye)), 0.0, 1.0);
  return min(HIDING * sqrt((1.0 - cosine) / (1.0 + cosine)), 1.0);
}

bool is_solid()
{
  ivec2 size = textureSize(distances, 0);
  ivec2 first = ivec2(floor(vec2(texture_place.x, 1.0 - texture_place.y) * vec2(size) - 0.5 + 1e-3));
  float reach = length(position - eye);
  for (int corner = 0; corner < 4; corner++) {
    ivec2 place = clamp(first + ivec2(corner & 1, corner >> 1), ivec2(0), size - 1);
    float share = texelFetch(beyond, place, 0).r;
    float front = texelFetch(distances, place, 0).r;
    if (share > 0.0 && front <= reach * 1.00001) {
      vec3 near = eye + (position - eye) * (front / reach);
      if (reach <= front * (1.0 + share * hiding_part(near))) {
        return true;
      }
    }
  }
  return false;
}
"""
# The picture `seen` tells in its alpha what it shows: 1 + depth of footage, the negative of that of unseen but solid
# space, 0 where nothing is drawn. By this depth it hides what is behind it, since the viewport's may be off: EEVEE
# leaves the depth of any of the places within a pixel that it has sampled.
_HIDDEN = """
bool is_hidden(vec4 behind)
{
  return behind.a != 0.0 && gl_FragCoord.z > abs(behind.a) - 1.0 + 1e-6;
}
"""
# Whether two key frames see something here; each has a channel of the picture (see `remembered_areas`).
_REMEMBERED = """
bool is_remembered()
{
  return dot(texelFetch(known, ivec2(gl_FragCoord.xy), 0), vec4(1.0)) > 1.5;
}
"""
# What the scene's material shows as stretched although it continues a plane.
PLANE = """
void main()
{
  if (!is_edge_on() || !continues_plane()) {
    discard;
  }
  fragment_color = vec4(textureLod(footage, texture_place, 0.0).rgb, 1.0);
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
GHOST = (
    _HIDDEN
    + """
void main()
{
  vec4 behind = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  if (!is_stretched() || is_hidden(behind)) {
    discard;
  }
  fragment_color = behind.a == 0.0 ? color : vec4(behind.rgb, 1.0);
}
"""
)
SEEN = """
void main()
{
  if (is_stretched()) {
    discard;
  }
  fragment_color = vec4(textureLod(footage, texture_place, 0.0).rgb, 1.0 + gl_FragCoord.z);
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
REMEMBERED = (
    _REMEMBERED
    + """
void main()
{
  bool remembered = is_remembered();
  if (!is_stretched()) {
    discard;
  }
  fragment_color = remembered ? REMEMBERED_COLOR : color;
}
"""
)
_OUTSIDE_VERTEX = """
void main()
{
  gl_Position = vec4(pos, 1.0);
}
"""
OUTSIDE = (
    _REMEMBERED
    + """
void main()
{
  fragment_color = is_remembered() ? REMEMBERED_COLOR : color;
}
"""
)
SEEN_AND_SOLID = (
    _SOLID
    + """
void main()
{
  bool unseen = is_stretched();
  if (unseen && !is_solid()) {
    discard;
  }
  float depth = 1.0 + gl_FragCoord.z;
  fragment_color = unseen ? vec4(color.rgb, -depth) : vec4(textureLod(footage, texture_place, 0.0).rgb, depth);
}
"""
)
UNSEEN = (
    _SOLID
    + _HIDDEN
    + """
void main()
{
  vec4 behind = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  if (!is_stretched() || is_hidden(behind)) {
    discard;
  }
  fragment_color = is_solid() || behind.a == 0.0 ? color : vec4(behind.rgb, 1.0);
}
"""
)
UNSEEN_OR_REMEMBERED = (
    _SOLID
    + _HIDDEN
    + _REMEMBERED
    + """
void main()
{
  vec4 behind = texelFetch(seen, ivec2(gl_FragCoord.xy), 0);
  bool remembered = is_remembered();
  if (!is_stretched() || is_hidden(behind)) {
    discard;
  }
  bool solid = is_solid();
  vec4 unseen = solid || behind.a == 0.0 ? color : vec4(behind.rgb, 1.0);
  fragment_color = remembered && (solid || behind.a <= 0.0) ? REMEMBERED_COLOR : unseen;
}
"""
)

# The textures that each of them samples, those of `BackLimits` left out.
_SAMPLERS = {
    GHOST: ("seen",),
    PLANE: ("footage",),
    SEEN: ("footage",),
    REMEMBERED: ("known",),
    SEEN_AND_SOLID: ("footage",),
    UNSEEN: ("seen",),
    UNSEEN_OR_REMEMBERED: ("seen", "known"),
}
_COLORLESS = (PLANE, SEEN, KNOWN)

# Linear; the blue that the backend tints remembered areas with where holes are marked.
_REMEMBERED_COLOR = "vec4(0.0, 0.35, 1.0, 1.0)"

# Compiled, by their fragment sources and whether they have `BackLimits`.
face_shaders: dict[tuple[str, bool], gpu.types.GPUShader] = {}


def face_shader(fragment: str, has_limits: bool) -> Any:
    """The shader of a fragment source, such as `STRETCHED`, `GHOST` or `UNSEEN`.

    Args:
        fragment: the source.
        has_limits: whether the scene's `BackLimits` are among its textures; those that ask for solid space need them.
    """
    key = fragment, has_limits
    if key not in face_shaders:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("MAT4", "object_to_screen")
        info.push_constant("VEC4", "viewer")
        info.push_constant("VEC3", "eye")
        # Not push constants, which are limited to 128 bytes.
        info.define("EDGE_ON", f"{math.sin(math.radians(STRETCHED_DEGREES)):.9f}")
        info.define("SAME_RAY", f"{-math.cos(math.radians(ALIGNED_DEGREES)):.9f}")
        info.define("HIDING", f"{HIDING:.9f}")
        info.define("DEPTH_OFFSET", f"{DEPTH_OFFSET:.9f}")
        info.define("REMEMBERED_COLOR", _REMEMBERED_COLOR)
        if fragment not in _COLORLESS:
            info.push_constant("VEC4", "color")
        limits = ("distances",) * (_SOLID in fragment) + ("beyond",) * has_limits
        for slot, name in enumerate((*_SAMPLERS.get(fragment, ()), *limits)):
            info.sampler(slot, "FLOAT_2D", name)
        varyings = gpu.types.GPUStageInterfaceInfo("ex4d_face")
        varyings.smooth("VEC3", "position")
        varyings.smooth("VEC2", "texture_place")
        info.vertex_in(0, "VEC3", "pos")
        info.vertex_in(1, "VEC2", "uv")
        info.vertex_out(varyings)
        info.fragment_out(0, "VEC4", "fragment_color")
        info.vertex_source(_VERTEX)
        info.fragment_source((_PLANES if has_limits else _NO_PLANES) + _TEST + fragment)
        face_shaders[key] = gpu.shader.create_from_info(info)
    return face_shaders[key]


def draw_batch(
    shader: Any,
    batch: gpu.types.GPUBatch,
    to_screen: mathutils.Matrix,
    eye: Sequence[float],
    viewer: Sequence[float],
    **values: Any,
) -> None:
    """Draw faces with a shader of `face_shader`, and its color and textures.

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
    """The shader of what is outside of the footage's frame, in its color, or remembered where known says so."""
    key = OUTSIDE, False
    if key not in face_shaders:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("VEC4", "color")
        info.define("REMEMBERED_COLOR", _REMEMBERED_COLOR)
        info.sampler(0, "FLOAT_2D", "known")
        info.vertex_in(0, "VEC3", "pos")
        info.fragment_out(0, "VEC4", "fragment_color")
        info.vertex_source(_OUTSIDE_VERTEX)
        info.fragment_source(OUTSIDE)
        face_shaders[key] = gpu.shader.create_from_info(info)
    return face_shaders[key]
