"""How deep the unseen space behind silhouettes is solid, measured on the GPU for viewports: "thickness", as in renders.

The rule is that of `ex4d.mesh.thickness`, with distances from the source camera in place of depth along its axis.
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

/* Pixels that the object is wide behind the silhouette in a direction; 0 where there is none. */
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
    if (gap <= STEP_PROMINENCE * slant && gap <= front * pixel * STEEP_WIDTHS) {
      return 0.0;
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
  beyond = vec4(ratio * thinnest * pixel, 0.0, 0.0, 0.0);
}
"""

_shaders: list[Any] = []


@dataclass(frozen=True)
class BackLimits:
    """What `is_solid` of `face_shaders` reads, both of the footage's size.

    Attributes:
        distances: of its pixels from the source camera, in the scene's units.
        beyond: how far the space behind a silhouette's near side is solid, as a share of that distance; 0 elsewhere.
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
        occlusion: "thickness", or "open" for no depth at all.
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
        for name in ("STEP_WIDTHS", "STEP_SHARE", "STEP_PROMINENCE", "STEEP_WIDTHS"):
            info.define(name, f"{getattr(thickness_rule, name):.9f}")
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
