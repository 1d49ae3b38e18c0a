"""What the artist does to a strip while it grows is there when the movie has taken its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bpy
import pytest

from blender_addon.cameras.keyframes import curves_of
from blender_addon.sequencer.movies import movie_step, replace_with_movie
from blender_addon.sequencer.strip_api import (
    add_effect,
    all_strips_in,
    container_of,
    end_of,
    set_end_of,
    start_of,
    strips_in,
)
from blender_addon.sequencer.strips import find_strip, find_strips, grow_image_strip, strips_of, strips_of_take

from .strip_files import TAKE, add_title

BLUR = "GAUSSIAN_BLUR"


@pytest.fixture
def scene() -> bpy.types.Scene:
    return bpy.context.scene


def part(images, count: int) -> dict:
    return {index: images[index] for index in range(count)}


def span(strip) -> tuple[int, int]:
    return start_of(strip), end_of(strip)


def grouped(strip) -> Any:
    """The strip in a new meta strip, as Make Meta Strip does."""
    scene: Any = strip.id_data
    meta = strips_in(container_of(strip)).new_meta("group", strip.channel + 1, start_of(strip))
    strip.move_to_meta(meta)
    set_end_of(meta, end_of(strip))
    assert strip.parent_meta() == meta and scene.sequence_editor
    return meta


def test_name_picture_settings_and_tag_are_kept(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, part(images, 3))
    strip.name, strip.color_tag, strip.blend_type, strip.blend_alpha = "hero", "COLOR_05", "ADD", 0.5
    strip.crop.min_x, strip.transform.offset_x, strip.transform.rotation = 2, 3.0, 0.25
    strip.transform.filter, strip.use_flip_x, strip.color_multiply, strip.lock = "NEAREST", True, 0.75, True
    strip["note"] = "the good one"
    strip.select, scene.sequence_editor.active_strip = True, strip
    grow_image_strip(scene, TAKE, images)

    shown = replace_with_movie(scene, TAKE, movie)

    assert (shown.type, shown.name, shown.color_tag) == ("MOVIE", "hero", "COLOR_05")
    assert (shown.blend_type, shown.blend_alpha, shown.mute) == ("ADD", 0.5, False)
    assert (shown.crop.min_x, shown.transform.offset_x, shown.transform.rotation) == (2, 3.0, 0.25)
    assert (shown.transform.filter, shown.use_flip_x, shown.color_multiply, shown.lock) == ("NEAREST", True, 0.75, True)
    assert shown["note"] == "the good one"
    assert shown.select and scene.sequence_editor.active_strip == shown


def test_keyframes_and_drivers_are_kept(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, images)
    for frame, value in ((11, 0.0), (19, 1.0)):
        strip.blend_alpha = strip.transform.scale_x = value
        strip.keyframe_insert("blend_alpha", frame=frame)
        strip.transform.keyframe_insert("scale_x", frame=frame)
    strip.driver_add("color_saturation").driver.expression = "0.5"

    shown = replace_with_movie(scene, TAKE, movie)

    paths = {curve.data_path: len(curve.keyframe_points) for curve in curves_of(scene)}
    where = shown.path_from_id()
    assert paths == {f"{where}.blend_alpha": 2, f"{where}.transform.scale_x": 2}
    assert [driver.data_path for driver in scene.animation_data.drivers] == [f"{where}.color_saturation"]
    scene.frame_set(15)
    assert shown.blend_alpha == pytest.approx(0.5) and shown.transform.scale_x == pytest.approx(0.5)


def test_modifiers_are_kept_with_their_settings(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, images)
    mask, masked = (grow_image_strip(scene, replace(TAKE, key=key, label=key), images) for key in ("mask", "masked"))
    with bpy.context.temp_override(sequencer_scene=scene):  # Blender 5.0 crashes without
        balance = strip.modifiers.new("grade", "COLOR_BALANCE")
        curves = strip.modifiers.new("contrast", "CURVES")
        other = masked.modifiers.new("masked", "BRIGHT_CONTRAST")
    balance.color_balance.gain, balance.input_mask_strip, other.input_mask_strip = (1.5, 1.0, 0.5), mask, strip
    curves.curve_mapping.curves[0].points.new(0.25, 0.75)
    curves.curve_mapping.curves[0].points[1].handle_type = "VECTOR"
    curves.mute = True

    shown = replace_with_movie(scene, TAKE, movie)

    balance, curves = shown.modifiers
    assert (balance.name, tuple(balance.color_balance.gain), balance.input_mask_strip) == ("grade", (1.5, 1, 0.5), mask)
    points = curves.curve_mapping.curves[0].points
    assert [tuple(point.location) for point in points] == [(0, 0), (0.25, 0.75), (1, 1)]
    assert (points[1].handle_type, curves.mute) == ("VECTOR", True)
    assert other.input_mask_strip == shown, "as a mask of another strip"


def test_effect_strips_over_it_are_kept_and_grow_with_it(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, part(images, 3))
    blur = add_effect(strip, "blur", BLUR, 2, size_x=4.0)
    glow = add_effect(blur, "transform", "TRANSFORM" if bpy.app.version < (5, 0, 0) else BLUR, 3)
    grow_image_strip(scene, TAKE, images)
    assert span(blur) == span(glow) == (11, 20)

    shown = replace_with_movie(scene, TAKE, movie)

    assert (blur.input_1, blur.size_x, glow.input_1) == (shown, 4.0, blur)
    assert span(blur) == (11, 20) and len(strips_of(scene)) == 3


def test_a_grouped_strip_is_found_goes_on_growing_and_is_replaced_in_its_groups(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, part(images, 3))
    inner = grouped(strip)
    outer = grouped(inner)
    assert find_strip(scene, TAKE.key) == strip and span(outer) == (11, 14)
    grow_image_strip(scene, TAKE, images)
    assert span(strip) == span(inner) == span(outer) == (11, 20)

    shown = replace_with_movie(scene, TAKE, movie)

    assert (shown.type, shown.parent_meta(), inner.parent_meta(), span(shown)) == ("MOVIE", inner, outer, (11, 20))
    assert [one.type for one in all_strips_in(scene.sequence_editor)].count("MOVIE") == 1
    assert replace_with_movie(scene, TAKE, movie) == shown


def test_a_strip_that_is_grouped_between_two_steps_is_replaced_in_its_group(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, images)
    assert movie_step(scene, TAKE, movie)  # the movie is opened beside it
    meta = grouped(strip)
    shown = replace_with_movie(scene, TAKE, movie)
    assert (shown.type, shown.parent_meta()) == ("MOVIE", meta)
    assert len(list(all_strips_in(scene.sequence_editor))) == 2


def test_a_group_that_needs_room_changes_its_channel(scene, images):
    strip = grow_image_strip(scene, TAKE, part(images, 3))
    meta = grouped(strip)
    add_title(scene, meta.channel, 16, 30)
    grow_image_strip(scene, TAKE, images)
    assert span(meta) == (11, 20) and meta.channel == 3


def test_a_strip_that_was_cut_in_two_is_replaced_in_both_parts(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, part(images, 6))
    strip.split(frame=14, split_method="SOFT")
    left, right = sorted(find_strips(scene, TAKE.key), key=start_of)
    assert (span(left), span(right)) == ((11, 14), (14, 17))
    grow_image_strip(scene, TAKE, images)
    assert (span(left), span(right)) == ((11, 14), (14, 20)), "the end goes on growing, the cut stays"

    replace_with_movie(scene, TAKE, movie)

    parts = sorted(find_strips(scene, TAKE.key), key=start_of)
    assert [(one.type, span(one)) for one in parts] == [("MOVIE", (11, 14)), ("MOVIE", (14, 20))]


def test_a_trimmed_strip_stays_trimmed(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, images)
    handles = (
        ("left_handle", "right_handle") if bpy.app.version >= (5, 2, 0) else ("frame_final_start", "frame_final_end")
    )
    setattr(strip, handles[0], 13)
    setattr(strip, handles[1], 18)
    assert span(replace_with_movie(scene, TAKE, movie)) == (13, 18)


def test_where_the_movie_is_retimed_the_artists_effects_and_opacity_apply_to_the_result(scene, images, movie):
    scene.render.fps = 48
    take = replace(TAKE, fps=24.0)
    strip = grow_image_strip(scene, take, images)
    strip.blend_type = "MULTIPLY"
    for frame, value in ((11, 0.0), (19, 1.0)):
        strip.blend_alpha = value
        strip.keyframe_insert("blend_alpha", frame=frame)
    blur = add_effect(strip, "blur", BLUR, 2)

    shown = replace_with_movie(scene, take, movie)

    speed = next(one for one in strips_of_take(scene, TAKE.key) if one.type == "SPEED")
    assert (speed.input_1, blur.input_1, speed.blend_type, shown.blend_alpha) == (shown, speed, "MULTIPLY", 1.0)
    assert [curve.data_path for curve in curves_of(scene)] == [f"{speed.path_from_id()}.blend_alpha"]
    assert span(shown) == span(speed) == span(blur) == (11, 29)
