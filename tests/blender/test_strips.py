"""A take in the sequencer: a strip that grows with the frames, then the movie in its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.sequencer.strips import (
    StripError,
    TakeStrip,
    find_strip,
    free_channel,
    grow_image_strip,
    replace_with_movie,
    strips_of,
)
from ex4d_core.scene import Scene
from ex4d_core.takes import frame_file_name

TAKE = TakeStrip("k1", "flower arc", 11, 9, {"engine": "preview", "label": "flower arc"})


@pytest.fixture
def pictures(tmp_path: Path) -> dict[int, Path]:
    """Nine small pictures, as a take's folder has them."""
    files = {index: tmp_path / frame_file_name(index) for index in range(9)}
    for index, path in files.items():
        image = bpy.data.images.new(path.name, 8, 6)
        gray = np.tile(np.float32([index / 8, index / 8, index / 8, 1]), 8 * 6)
        image.pixels.foreach_set(gray)
        image.filepath_raw, image.file_format = str(path), "PNG"
        image.save()
        bpy.data.images.remove(image)
    return files


def first(pictures: dict[int, Path], count: int) -> dict[int, Path]:
    return {index: pictures[index] for index in range(count)}


def span(strip) -> tuple[int, int]:
    return strip.frame_final_start, strip.frame_final_end


@pytest.fixture
def scene() -> bpy.types.Scene:
    return bpy.context.scene


def test_no_frames_no_strip(scene):
    assert grow_image_strip(scene, TAKE, {}) is None
    assert scene.sequence_editor is None or not len(strips_of(scene))


def test_the_strip_starts_at_the_cameras_first_frame_and_grows(scene, pictures):
    strip = grow_image_strip(scene, TAKE, first(pictures, 1))
    assert span(strip) == (11, 12)
    grow_image_strip(scene, TAKE, first(pictures, 4))
    assert span(strip) == (11, 15)
    assert [element.filename for element in strip.elements] == [frame_file_name(index) for index in range(4)]
    grow_image_strip(scene, TAKE, pictures)
    assert span(strip) == (11, 20)
    assert len(strips_of(scene)) == 1
    assert (strip.name, strip.channel, strip.type) == ("flower arc", 1, "IMAGE")


def test_frames_out_of_order_wait_for_those_before_them(scene, pictures):
    assert grow_image_strip(scene, TAKE, {1: pictures[1]}) is None
    strip = grow_image_strip(scene, TAKE, {0: pictures[0], 1: pictures[1], 4: pictures[4]})
    assert span(strip) == (11, 13)
    grow_image_strip(scene, TAKE, pictures)
    assert span(strip) == (11, 20)


def test_each_frame_shows_its_own_picture(scene, pictures, tmp_path):
    scene.view_settings.view_transform = "AgX"
    grow_image_strip(scene, TAKE, first(pictures, 2))
    grow_image_strip(scene, TAKE, pictures)
    scene.render.resolution_x, scene.render.resolution_y, scene.render.dither_intensity = 8, 6, 0
    scene.render.filepath = str(tmp_path / "render.png")
    for index in (0, 1, 4, 8):
        scene.frame_set(11 + index)
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath, check_existing=False)
        # sRGB in, sRGB out, although the view transform is AgX; its inverse is a table, good to a few levels.
        assert image.pixels[0] == pytest.approx(index / 8, abs=0.03)
        bpy.data.images.remove(image)


def test_other_strips_are_never_overlapped(scene, pictures):
    blocker = add_title(scene, 1, 15, 30)
    strip = grow_image_strip(scene, TAKE, first(pictures, 1))
    assert strip.channel == 2  # although its single frame would still fit on channel 1
    before = add_title(scene, 2, 1, 11)
    assert free_channel(scene, 11, 20, besides=strip) == 2
    assert {blocker.channel, before.channel} == {1, 2}


def test_a_strip_put_in_the_way_makes_the_take_change_its_channel(scene, pictures):
    strip = grow_image_strip(scene, TAKE, first(pictures, 2))
    add_title(scene, 1, 15, 30)
    grow_image_strip(scene, TAKE, pictures)
    assert (strip.channel, *span(strip)) == (2, 11, 20)


def test_all_channels_taken_is_said(scene, pictures):
    for channel in range(1, 129):
        add_title(scene, channel, 1, 50)
    with pytest.raises(StripError, match="all 128 sequencer channels are taken at frames 11 to 20"):
        grow_image_strip(scene, TAKE, pictures)


def test_the_movie_takes_the_strips_place(scene, pictures, card_scene, tmp_path):
    movie = Path(shutil.copy(Scene.open(card_scene).path("footage"), tmp_path / "take.mp4"))
    add_title(scene, 1, 15, 30)
    grow_image_strip(scene, TAKE, first(pictures, 5))

    strip = replace_with_movie(scene, TAKE, movie)

    assert [one.name for one in strips_of(scene)] == ["title", "flower arc"]
    assert (strip.type, strip.channel, *span(strip)) == ("MOVIE", 2, 11, 20)
    assert json.loads(strip["ex4d_request"]) == {"engine": "preview", "label": "flower arc"}
    assert replace_with_movie(scene, TAKE, movie) == strip
    assert grow_image_strip(scene, TAKE, pictures) == strip and len(strips_of(scene)) == 2


def test_a_renamed_and_moved_strip_is_found_and_keeps_its_place(scene, pictures, card_scene, tmp_path):
    movie = Path(shutil.copy(Scene.open(card_scene).path("footage"), tmp_path / "take.mp4"))
    strip = grow_image_strip(scene, TAKE, first(pictures, 5))
    strip.name, strip.frame_start, strip.channel = "mine", 101, 5
    assert find_strip(scene, "k1") == strip
    moved = replace_with_movie(scene, TAKE, movie)
    assert (moved.channel, *span(moved)) == (5, 101, 110)


def test_a_missing_movie_is_not_put_in(scene, pictures, tmp_path):
    strip = grow_image_strip(scene, TAKE, pictures)
    with pytest.raises(StripError, match="is missing"):
        replace_with_movie(scene, TAKE, tmp_path / "gone.mp4")
    assert find_strip(scene, "k1") == strip and strip.type == "IMAGE"


def test_a_movie_that_cannot_be_read_leaves_the_frames(scene, pictures, tmp_path):
    broken = tmp_path / "take.mp4"
    broken.write_bytes(b"not a movie")
    strip = grow_image_strip(scene, TAKE, pictures)
    with pytest.raises(StripError, match="Blender reads 1 of 9 frames"):
        replace_with_movie(scene, TAKE, broken)
    assert find_strip(scene, "k1") == strip and len(strips_of(scene)) == 1


def test_paths_are_relative_in_a_saved_file(scene, pictures, tmp_path, card_scene):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    strip = grow_image_strip(scene, TAKE, pictures)
    assert strip.directory in ("//", "//./")
    movie = Path(shutil.copy(Scene.open(card_scene).path("footage"), tmp_path / "take.mp4"))
    assert replace_with_movie(scene, TAKE, movie).filepath == "//take.mp4"


def add_title(scene: bpy.types.Scene, channel: int, start: int, end: int) -> bpy.types.Strip:
    """Another strip; the argument for its length changed its name in Blender 5.0."""
    length = {"length": end - start} if bpy.app.version >= (5, 0, 0) else {"frame_end": end}
    return strips_of(scene).new_effect(name="title", type="COLOR", channel=channel, frame_start=start, **length)
