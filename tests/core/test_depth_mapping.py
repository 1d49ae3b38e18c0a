"""Offset and far limit of relative depth: how disparity becomes depth, and a scene that is made again from another."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from ex4d_core.angle_offset import OffsetError, offset_of_corner, offset_of_vertical
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import FILE_NAMES, MANIFEST, SceneManifest
from ex4d_core.scene_remap import remap_scene

WIDTH, HEIGHT, FRAMES = 12, 8, 3
MAPPING = DepthMapping(2.0, 0.1, 50.0)


@pytest.fixture
def scene(tmp_path) -> Scene:
    """A slope, as an estimator of relative depth makes it."""
    disparity = np.linspace(1, 0.05, FRAMES * HEIGHT * WIDTH).reshape(FRAMES, HEIGHT, WIDTH)
    depth = MAPPING.depth(disparity)
    still = np.repeat(np.eye(4)[None], FRAMES, axis=0)
    with SceneWriter(tmp_path / "scene") as writer:
        writer.array("color", (*depth.shape, 3), np.uint8).write(np.zeros((*depth.shape, 3), np.uint8))
        writer.array("depth", depth.shape, np.float32).write(depth)
        CameraPath(still, intrinsics_matrix(10, 10, 6, 4), WIDTH, HEIGHT).save(writer.path("source_camera"))
        writer.path("footage").write_bytes(b"a movie")
        extent = float(depth.min()), float(depth.max())
        manifest = SceneManifest("slope", FRAMES, WIDTH, HEIGHT, Fraction(24), "centered", extent, 2.2)
        return writer.finish(replace(manifest, depth_mapping=MAPPING))


def test_the_nearest_point_keeps_its_depth_and_the_rest_moves():
    disparity = np.array([1.0, 0.5, 0.01])
    plain = DepthMapping(3.0)
    assert plain.depth(disparity) == pytest.approx([3, 6, 300])
    assert plain.changed(0.25).depth(disparity) == pytest.approx([3, 5, 3 * 1.25 / 0.26]), "the background comes nearer"
    assert plain.changed(-0.2).depth(disparity) == pytest.approx([3, 3 * 0.8 / 0.3, 300]), "or ends at the far limit"
    assert plain.changed(far_limit=10).depth(disparity) == pytest.approx([3, 6, 30])


def test_depth_leads_back_to_the_disparity_it_was_made_from():
    disparity = np.linspace(0.2, 1, 50)
    for offset in (-0.15, 0.0, 0.7):
        mapping = DepthMapping(1.7, offset)
        assert mapping.disparity(mapping.depth(disparity).astype(float)) == pytest.approx(disparity, abs=1e-6)


def test_a_plane_stays_a_plane_under_every_offset():
    """Which is why no offset can be told from how flat a ground is."""
    rays = np.random.default_rng(3).uniform((-0.4, 0.1, 1), (0.4, 0.9, 1), (40, 3))
    depth = 1.5 / (rays @ [0.1, 0.9, 0.2])
    mapping = DepthMapping(float(depth.min()))
    for offset in (-0.1, 0.4):
        points = rays * mapping.changed(offset).depth(mapping.disparity(depth))[:, None]
        spread = np.linalg.svd(points - points.mean(axis=0))[1]
        assert spread[2] < 1e-5 * spread[0]


@pytest.mark.parametrize("values", [{"nearest": 0.0}, {"offset": -1.0}, {"far_limit": 1.0}, {"offset": float("nan")}])
def test_impossible_mappings_are_refused(values):
    with pytest.raises(RequestError, match=next(iter(values))):
        DepthMapping(**{"nearest": 1.0, **values})


def test_a_remapped_scene_has_other_depth_and_all_else_of_the_old_one(scene, tmp_path):
    before = scene.digest, scene.path("depth").read_bytes()
    made = remap_scene(scene, tmp_path / "new", MAPPING.changed(0.5, 20.0))
    expected = MAPPING.changed(0.5, 20.0).depth(MAPPING.disparity(scene.depth()))
    assert np.array(made.depth()) == pytest.approx(expected, rel=1e-5)
    assert made.manifest.depth_mapping == DepthMapping(2.0, 0.5, 20.0)
    assert made.manifest.depth_range == pytest.approx((made.depth().min(), made.depth().max()))
    assert made.manifest.subject_distance == pytest.approx(made.depth()[0][1:-1, 1:-1].min(), rel=0.2)
    for part in ("color", "source_camera", "footage"):
        assert made.manifest.files[part] == scene.manifest.files[part]
        assert made.path(part).read_bytes() == scene.path(part).read_bytes()
    assert (Scene.open(scene.path("depth").parent).digest, scene.path("depth").read_bytes()) == before


def test_the_mesh_of_a_scene_that_has_one_is_made_anew_too(scene, tmp_path):
    from ex4d_core.mesh_cache import positions_file

    positions_file(scene)
    folder = scene.path("depth").parent
    document = json.loads((folder / MANIFEST).read_text())
    size = (folder / FILE_NAMES["positions"]).stat().st_size
    document["files"]["positions"] = {"size": size, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(document))
    made = remap_scene(Scene.open(folder), tmp_path / "new", MAPPING.changed(0.5))
    assert made.path("positions").stat().st_size == size
    assert made.path("positions").read_bytes() != (folder / FILE_NAMES["positions"]).read_bytes()


def test_a_manifest_without_a_mapping_has_none(scene):
    plain = json.loads(replace(scene.manifest, depth_mapping=None).to_json())
    assert "depth_mapping" not in plain
    assert SceneManifest.from_json(json.dumps(plain).encode()).mapping.offset == 0


@pytest.mark.parametrize("mapping", [7, {"nearest": -1}, {"offset": 0.1}, {"nearest": 1, "surprise": 2}])
def test_a_damaged_mapping_is_refused(scene, mapping):
    from ex4d_core.scene_manifest import SceneError

    document = {**json.loads(scene.manifest_bytes), "depth_mapping": mapping}
    with pytest.raises(SceneError, match="damaged"):
        SceneManifest.from_json(json.dumps(document).encode())


# A ground 1.5 below a camera that looks down by 17 degrees and is tilted by 6.
UP = np.array([0.1, -0.95, -0.3]) / np.linalg.norm([0.1, -0.95, -0.3])
SIDE = np.cross(UP, [0.5, 0.1, 1.0]) / np.linalg.norm(np.cross(UP, [0.5, 0.1, 1.0]))
FOOT = -1.5 * UP + 2.2 * np.cross(SIDE, UP)


def under(offset: float, points: np.ndarray) -> tuple[np.ndarray, DepthMapping]:
    """Points as they are shown under an offset; under 0 they are true."""
    mapping = DepthMapping(1.2, offset)
    z = mapping.depth(DepthMapping(1.2).disparity(points[:, 2])).astype(float)
    return points * (z / points[:, 2])[:, None], mapping


@pytest.mark.parametrize("offset", [-0.15, 0.0, 0.4])
def test_a_right_angle_tells_the_offset(offset):
    corner, mapping = under(offset, np.array([FOOT, FOOT + 0.5 * SIDE, FOOT + 0.8 * np.cross(SIDE, UP)]))
    assert offset_of_corner(corner, mapping) == pytest.approx(0, abs=0.005)
    edge, mapping = under(offset, np.array([FOOT, FOOT + 0.7 * UP]))
    ground, _ = under(offset, np.array([FOOT, FOOT + SIDE, FOOT + np.cross(SIDE, UP), FOOT - 0.4 * SIDE]))
    normal = np.linalg.svd(ground - ground.mean(axis=0))[2][2]
    assert offset_of_vertical(edge, normal, mapping) == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([[0, 0, 3], [1, 0, 3], [0, 1, 3]], "hardly changes"),
        ([[0, 0, 3], [1, 0, 3], [1, 0, 3]], "3 different points"),
        ([[0, 0, 3], [1, 0, -3], [0, 1, 3]], "in front of the source camera"),
        ([[0, 0, 3], [1, 0, 3], [1, 0.1, 3.0]], "no depth offset"),
    ],
)
def test_a_mark_that_tells_nothing_says_why(points, says):
    with pytest.raises(OffsetError, match=says):
        offset_of_corner(np.array(points, dtype=float), DepthMapping(1.0))
