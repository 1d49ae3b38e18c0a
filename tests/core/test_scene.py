"""The scene package: written whole or not at all, and checked when opened."""

import hashlib
import json

import numpy as np
import pytest

from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import (
    MANIFEST,
    RENDER_FILES,
    FileEntry,
    FootageOrigin,
    SceneError,
    SceneManifest,
    is_sha256,
)
from ex4d_core.scene_remap import remap_scene
from ex4d_core.transfers import scene_blobs


def test_a_scene_reads_back_as_written(small_scene):
    scene = Scene.open(small_scene.folder)
    assert np.array_equal(scene.color(), small_scene.color)
    assert np.array_equal(scene.depth(), small_scene.depth)
    assert scene.source_camera().intrinsics[0, 0, 0] == 40
    assert scene.manifest.fps == 24
    assert is_sha256(scene.digest)


def test_a_mask_of_what_moves_is_a_part_that_a_backend_gets_too(small_scene, tmp_path):
    scene = Scene.open(small_scene.folder)
    assert scene.motion_mask() is None and json.loads(scene.manifest_bytes)["version"] == 3
    moving = np.arange(small_scene.depth.size).reshape(small_scene.depth.shape) % 7 == 0
    masked = remap_scene(scene, tmp_path / "masked", None, mask=moving, mask_label="roto")
    assert np.array_equal(Scene.open(tmp_path / "masked").motion_mask(), moving)
    document = json.loads(masked.manifest_bytes)
    assert document["version"] == 4, "a program of before must not take it for a scene without a mask"
    sent = set(scene_blobs(masked)) - set(scene_blobs(scene))
    assert sent == {masked.manifest.files["motion_mask"].sha256, masked.digest}
    assert {**json.loads(scene.manifest_bytes), "version": 4}.keys() == document.keys()
    older = json.dumps({**document, "files": json.loads(scene.manifest_bytes)["files"], "version": 3}).encode()
    assert SceneManifest.from_json(older).render_files == RENDER_FILES


def test_the_name_on_the_wire_changes_with_the_content(small_scene, write_small_scene, tmp_path):
    same = write_small_scene(tmp_path / "same", seed=0)
    other = write_small_scene(tmp_path / "other", seed=1)
    assert Scene.open(same.folder).digest == Scene.open(small_scene.folder).digest
    assert Scene.open(other.folder).digest != Scene.open(small_scene.folder).digest


def test_an_interrupted_writer_leaves_nothing_and_keeps_the_old_scene(small_scene):
    before = Scene.open(small_scene.folder).digest
    with pytest.raises(KeyboardInterrupt), SceneWriter(small_scene.folder) as writer:
        writer.array("color", (2, 4, 4, 3), np.uint8).write(np.zeros((1, 4, 4, 3), np.uint8))
        raise KeyboardInterrupt
    assert Scene.open(small_scene.folder).digest == before
    assert [path.name for path in small_scene.folder.parent.iterdir()] == [small_scene.folder.name]


def test_a_new_scene_replaces_an_old_one_but_nothing_else(small_scene, write_small_scene, tmp_path):
    write_small_scene(small_scene.folder, seed=5)
    assert not np.array_equal(Scene.open(small_scene.folder).color(), small_scene.color)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "precious.txt").write_text("mine")
    with pytest.raises(SceneError, match=r"precious\.txt"):
        write_small_scene(tmp_path / "photos", seed=0)
    assert (tmp_path / "photos" / "precious.txt").read_text() == "mine"
    (small_scene.folder / "shot.blend").write_text("my work")
    with pytest.raises(SceneError, match=r"shot\.blend"):
        write_small_scene(small_scene.folder, seed=6)
    assert (small_scene.folder / "shot.blend").exists()
    with pytest.raises(SceneError, match="is a file"):
        write_small_scene(tmp_path / "photos" / "precious.txt")


def test_a_folder_without_a_scene_says_so(tmp_path):
    with pytest.raises(SceneError, match="is not a scene folder"):
        Scene.open(tmp_path)


def test_a_missing_or_cut_off_part_is_named(small_scene):
    depth = small_scene.folder / "depth.npy"
    depth.write_bytes(depth.read_bytes()[:-10])
    with pytest.raises(SceneError, match=r"depth\.npy is \d+ bytes long"):
        Scene.open(small_scene.folder)
    depth.unlink()
    with pytest.raises(SceneError, match=r"depth\.npy is missing"):
        Scene.open(small_scene.folder)


def test_an_array_that_contradicts_the_manifest_is_refused(small_scene):
    path = small_scene.folder / MANIFEST
    document = json.loads(path.read_bytes())
    document["frames"] += 1
    path.write_text(json.dumps(document))
    scene = Scene.open(small_scene.folder)
    with pytest.raises(SceneError, match="the manifest says"):
        scene.color()
    with pytest.raises(SceneError, match="does not fit its footage"):
        scene.source_camera()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a scene manifest"),
        ({"version": 99}, "version 99.* reads up to version 5.*update ex4d"),
        ({"version": "1"}, "no valid version"),
        ({"origin": {"colour": 1}}, "damaged"),
        ({"frames": 0}, "positive whole numbers"),
        ({"width": "wide"}, "positive whole numbers"),
        ({"fps": [1, 0]}, "damaged"),
        ({"fps": [-24, 1]}, "must be positive"),
        ({"fps": [float("inf")]}, "damaged"),
        ({"surprise": 1}, "damaged"),
        ({"name": 3}, "3"),
        ({"convention": None}, "None"),
        ({"subject_distance": "far"}, "three positive numbers"),
        ({"subject_distance": float("nan")}, "three positive numbers"),
        ({"middle_distance": "far"}, "middle_distance .*'far'"),
        ({"middle_distance": -2.0}, "middle_distance .*-2.0"),
        ({"depth_range": [0, 4]}, "three positive numbers"),
        ({"depth_range": [4]}, "three positive numbers"),
        ({"files": {}}, "lacks"),
        ({"files": {"../../etc": {"size": 1, "sha256": "0" * 64}}}, "unknown parts"),
    ],
)
def test_impossible_manifests_are_refused(small_scene, change, message):
    document = {**json.loads((small_scene.folder / MANIFEST).read_bytes()), **change}
    with pytest.raises(SceneError, match=message):
        SceneManifest.from_json(json.dumps(document).encode())


def test_json_nested_without_end_is_refused():
    with pytest.raises(SceneError, match="not JSON"):
        SceneManifest.from_json(b"[" * 60_000)


def test_a_checksum_that_could_be_a_path_is_refused(small_scene):
    manifest = Scene.open(small_scene.folder).manifest
    files = {**manifest.files, "depth": FileEntry(10, "../" * 21 + "x")}
    with pytest.raises(SceneError, match="SHA-256"):
        SceneManifest.from_json(SceneManifest(**{**manifest.__dict__, "files": files}).to_json())
    assert not is_sha256("A" * 64)


def test_a_manifest_of_version_1_is_migrated_and_its_bytes_stay(small_scene):
    path = small_scene.folder / MANIFEST
    document = json.loads(path.read_bytes())
    del document["origin"]
    path.write_text(json.dumps({**document, "version": 1, "provenance": {"footage": "walk.mp4"}}))
    before = path.read_bytes()
    scene = Scene.open(small_scene.folder)
    assert scene.manifest.origin == FootageOrigin("walk.mp4")
    assert path.read_bytes() == before and scene.digest == hashlib.sha256(before).hexdigest()


def test_a_manifest_of_version_2_keeps_its_subject_for_moves(small_scene):
    document = json.loads((small_scene.folder / MANIFEST).read_bytes())
    del document["middle_distance"]
    manifest = SceneManifest.from_json(json.dumps({**document, "version": 2}).encode())
    assert manifest.middle_distance is None and manifest.pivot_distance == manifest.subject_distance


@pytest.mark.parametrize("name", ["footage.mp4", "depth.npy", "manifest.json", "notes.txt"])
def test_a_folder_with_somebody_elses_files_is_never_replaced(small_scene, write_small_scene, tmp_path, name):
    """Not even when they have the names of a package's parts."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(SceneError, match="holds something else"):
        write_small_scene(folder)
    assert (folder / name).read_text() == "{}" and len(list(folder.iterdir())) == 1
