"""Where the unseen space behind silhouettes ends, and which steps continue a plane, measured on the GPU for viewports.

The rules are those of renders, `ex4d.mesh.thickness` and `ex4d.mesh.plane_kernel`, with distances from the source
camera in place of depth along its axis. Along the image of a plane the inverse of a distance is not quite linear: over
the pixels that the rule asks for, at a step that it is asked about, it leaves the line by some 2 % of its rise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import bpy
import gpu
import mathutils
import numpy as np
from gpu_extras.batch import batch_for_shader

from ex4d_core import thickness_rule

from .link import link_of

_VERTEX = """
void main()
{
  gl_Position = vec4(pos, 0.0, 1.0);
}
"""
_FRAGMENT = """
bool is_inside(ivec2 place)
{
  return all(greaterThanEqual(place, ivec2(0))) && all(lessThan(place, textureSize(distances, 0)));
}

float at(ivec2 place)
{
  return texelFetch(distances, place, 0).r;
}

/* Whether the step to a neighbour continues a plane: the inverse is linear from there on towards the camera. */
bool continues_plane(ivec2 place, ivec2 direction)
{
  ivec2 here = place;
  ivec2 back = -direction;
  if (at(place + direction) < at(place)) {
    here = place + direction;
    back = direction;
  }
  float nearest = 1.0 / at(here);
  float rise = nearest - 1.0 / at(here - back);
  if (rise <= 0.0 || !is_inside(here + PLANE_PIXELS * back)) {
    return false;
  }
  for (int count = 1; count <= PLANE_PIXELS; count++) {
    float expected = float(count) * rise;
    if (abs(1.0 / at(here + count * back) - nearest - expected) > PLANE_TOLERANCE * expected) {
      return false;
    }
  }
  return true;
}

/* Whether a pixel and its neighbour are on one surface: hardly any step between them, or one that continues a plane. */
bool is_flat(ivec2 place, ivec2 direction)
{
  if (!is_inside(place + direction)) {
    return false;
  }
  float nearer = min(at(place), at(place + direction));
  float gap = abs(at(place + direction) - at(place));
  return gap <= STEP_WIDTHS * pixel * nearer || continues_plane(place, direction);
}

/* Pixels that the object is wide behind the silhouette in a direction; 0 if it does not end there. */
float width_of(ivec2 place, ivec2 direction)
{
  float front = at(place);
  ivec2 next = place + direction;
  if (is_inside(next)) {
    float gap = at(next) - front;
    float slant = is_inside(place - direction) ? max(front - at(place - direction), 0.0) : 0.0;
    if (is_inside(next + direction)) {
      slant = max(slant, at(next + direction) - at(next));
    }
    if (gap <= front * max(STEP_WIDTHS * pixel, STEP_SHARE)) {
      return 0.0;
    }
    if (gap <= STEP_PROMINENCE * slant) {
      if (gap <= front * pixel * STEEP_WIDTHS || continues_plane(place, direction)) {
        return 0.0;
      }
    }
  }
  float farthest = front;
  int count = 1;
  for (; count < widest; count++) {
    place -= direction;
    farthest += STEP_WIDTHS * front * pixel;
    if (!is_inside(place) || at(place) > farthest) {
      break;
    }
  }
  return float(count);
}

void main()
{
  ivec2 place = ivec2(gl_FragCoord.xy);
  float thinnest = 0.0;
  for (int side = 0; side < 4; side++) {
    ivec2 direction = side < 2 ? ivec2(1 - 2 * side, 0) : ivec2(0, 2 * side - 5);
    float width = width_of(place, direction);
    if (width > 0.0 && (thinnest == 0.0 || width < thinnest)) {
      thinnest = width;
    }
  }
  float flat_right = is_flat(place, ivec2(1, 0)) ? 1.0 : 0.0;
  float flat_below = is_flat(place, ivec2(0, 1)) ? 1.0 : 0.0;
  beyond = vec4(ratio * thinnest * pixel, flat_right, flat_below, 0.0);
}
"""

_shaders: list[Any] = []


@dataclass(frozen=True)
class BackLimits:
    """What the shaders of `face_shaders` read, both of the footage's size.

    Attributes:
        distances: of its pixels from the source camera, in the scene's units.
        beyond: how far the space behind a silhouette's near side is solid, as a share of that distance; 0 elsewhere.
            Its green and blue are 1 where no step, or one that continues a plane, leads to the pixel on the right and
            to the one below.
    """

    distances: gpu.types.GPUTexture
    beyond: gpu.types.GPUOffScreen


def measure(
    scene_object: bpy.types.Object, positions: np.ndarray, eye: mathutils.Vector, occlusion: str
) -> BackLimits | None:
    """The limits of the shown frame; None for a mesh that is no grid of the footage's pixels.

    Args:
        scene_object: the imported scene.
        positions: (3 V,) of its vertices in the scene's world.
        eye: of the source camera, there.
        occlusion: "thickness"; others have no depth here.
    """
    width, height = link_of(scene_object).size
    vertices = len(positions) // 3
    ring = next((one for one in (0, 1) if (width + 2 * one) * (height + 2 * one) == vertices), None)
    if ring is None or min(width, height) < 8:
        return None
    grid = positions.reshape(height + 2 * ring, width + 2 * ring, 3)[ring : ring + height, ring : ring + width]
    data = gpu.types.Buffer("FLOAT", width * height, _distances(grid, eye).ravel())
    texture = gpu.types.GPUTexture((width, height), format="R32F", data=data)
    beyond = gpu.types.GPUOffScreen(width, height, format="RGBA16F")
    depth_test, blend = gpu.state.depth_test_get(), gpu.state.blend_get()
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("NONE")
    shader = _shader()
    with beyond.bind():
        shader.bind()
        shader.uniform_sampler("distances", texture)
        shader.uniform_float("pixel", _pixel_angle(grid, eye))
        shader.uniform_float("ratio", thickness_rule.THICKNESS_RATIO if occlusion == "thickness" else 0.0)
        shader.uniform_int("widest", max(1, round(thickness_rule.WIDEST_SHARE * max(width, height))))
        corners = [(-1.0, -1.0), (3.0, -1.0), (-1.0, 3.0)]
        batch_for_shader(shader, "TRIS", {"pos": corners}).draw(shader)
    gpu.state.depth_test_set(depth_test)
    gpu.state.blend_set(blend)
    return BackLimits(texture, beyond)


def plane_textures(limits: BackLimits | None) -> dict[str, gpu.types.GPUTexture]:
    """What shaders sample to know the faces that continue a plane; nothing without limits (see `face_shader`)."""
    return {} if limits is None else {"beyond": limits.beyond.texture_color}


def solid_textures(limits: BackLimits) -> dict[str, gpu.types.GPUTexture]:
    """What shaders sample to know the solid space, too."""
    return {"distances": limits.distances, **plane_textures(limits)}


def _distances(grid: np.ndarray, eye: mathutils.Vector) -> np.ndarray:
    """(H, W) float32 distances of pixels (H, W, 3); one axis after the other, which takes half the time."""
    found = np.square(grid[..., 0] - np.float32(eye.x))
    found += np.square(grid[..., 1] - np.float32(eye.y))
    found += np.square(grid[..., 2] - np.float32(eye.z))
    return np.sqrt(found, out=found)


def _pixel_angle(grid: np.ndarray, eye: mathutils.Vector) -> float:
    """The width of a pixel at distance 1, from pixels (H, W, 3) at both sides of the picture's middle."""
    height, width, _ = grid.shape
    reach = width // 8
    left, right = (grid[height // 2, width // 2 + side * reach] - np.array(eye) for side in (-1, 1))
    cosine = left @ right / (np.linalg.norm(left) * np.linalg.norm(right))
    return math.tan(math.acos(min(1.0, float(cosine))) / 2) / reach


def _shader() -> Any:
    if not _shaders:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("FLOAT", "pixel")
        info.push_constant("FLOAT", "ratio")
        info.push_constant("INT", "widest")
        for name in ("STEP_WIDTHS", "STEP_SHARE", "STEP_PROMINENCE", "STEEP_WIDTHS", "PLANE_TOLERANCE"):
            info.define(name, f"{getattr(thickness_rule, name):.9f}")
        info.define("PLANE_PIXELS", str(thickness_rule.PLANE_PIXELS))
        info.sampler(0, "FLOAT_2D", "distances")
        info.vertex_in(0, "VEC2", "pos")
        info.fragment_out(0, "VEC4", "beyond")
        info.vertex_source(_VERTEX)
        info.fragment_source(_FRAGMENT)
        _shaders.append(gpu.shader.create_from_info(info))
    return _shaders[0]


def forget_shader() -> None:
    """Drop the compiled shader, when the add-on is disabled."""
    _shaders.clear()
