"""The positions that Blender's mesh is animated with: those of the DW-Mesh, computed from depth without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth import DepthFiles, read_source_camera
from ex4d.media import probe
from ex4d.mesh import build_dw_mesh
from ex4d.pipeline.scene_building import build_scene
from ex4d_core.cameras import CameraPath
from ex4d_core.mesh_cache import PC2_HEADER, frame_positions, positions_file
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError

CLIP = Path(__file__).resolve().parents[1] / "data" / "moving_camera"


def reconstructed(folder: Path, frames: int = 12, **options) -> Scene:
    footage = probe(CLIP / "footage.mp4", frames)
    camera = read_source_camera(CLIP / "camera.npz", probe(CLIP / "footage.mp4")).path.frames(0, frames)
    depth = DepthFiles(CLIP / "depth.npz").estimate(probe(CLIP / "footage.mp4")).first(frames)
    return build_scene(footage, depth, camera.intrinsics, folder, name="moving", source_camera=camera, **options)


@pytest.mark.parametrize("convention", ["centered", "reference"])
@pytest.mark.parametrize("moving", [True, False])
def test_positions_are_those_of_the_mesh(convention, moving):
    depth = np.load(CLIP / "depth.npz")["depth"][:2].astype(np.float32)
    camera = CameraPath.load(CLIP / "camera.npz").frames(0, 2)
    if not moving:
        camera = CameraPath(np.repeat(np.eye(4)[None], 2, axis=0), camera.intrinsics, camera.width, camera.height)
    mesh = build_dw_mesh(
        torch.from_numpy(depth),
        torch.zeros(*depth.shape, 3, dtype=torch.uint8),
        torch.from_numpy(camera.intrinsics.copy()),
        convention=convention,
        camera_to_world=torch.from_numpy(camera.camera_to_world.copy()),
    )
    for frame in range(2):
        positions = frame_positions(depth[frame], camera, frame, convention)
        np.testing.assert_allclose(positions, mesh.vertices[frame].numpy(), rtol=1e-5, atol=1e-5)


def test_a_package_is_less_than_half_as_large_without_its_positions(tmp_path):
    """The same file is then written beside the package, once, when it is needed."""
    small, large = reconstructed(tmp_path / "small"), reconstructed(tmp_path / "large", mesh=True)
    sizes = [sum(entry.size for entry in scene.manifest.files.values()) for scene in (small, large)]
    assert sizes[0] < sizes[1] / 2
    seen = []
    written = positions_file(small, lambda done, total: seen.append((done, total)))
    assert written.read_bytes() == positions_file(large).read_bytes() == large.path("positions").read_bytes()
    assert seen == [(frame, 12) for frame in range(1, 13)]
    assert positions_file(small, lambda done, total: pytest.fail("it is there already")) == written
    assert Scene.open(tmp_path / "small").digest == small.digest


def test_a_cut_off_file_is_written_again(tmp_path):
    scene = reconstructed(tmp_path / "scene")
    whole = positions_file(scene).read_bytes()
    positions_file(scene).write_bytes(whole[: PC2_HEADER.size + 100])
    assert positions_file(scene).read_bytes() == whole


def test_a_scene_with_written_positions_is_still_replaced_by_a_new_one(tmp_path):
    positions_file(reconstructed(tmp_path / "scene"))
    (tmp_path / "scene" / "mesh.pc2.0123abcd.partial").write_bytes(b"of a Blender that was ended")
    scene = reconstructed(tmp_path / "scene", frames=2)
    assert not (tmp_path / "scene" / "mesh.pc2").exists()
    assert positions_file(scene).stat().st_size == PC2_HEADER.size + 2 * 12 * 258 * 258


def test_where_nothing_can_be_written_the_message_says_what_to_do(tmp_path):
    scene = reconstructed(tmp_path / "scene")
    (tmp_path / "scene" / "mesh.pc2").mkdir()  # not even root can write there
    with pytest.raises(SceneError, match=r"mesh\.pc2 \(10 MB\) .* ex4d reconstruct --mesh"):
        positions_file(scene)
    assert not list((tmp_path / "scene").glob("*.partial"))
