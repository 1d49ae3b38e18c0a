"""Gives a strip everything that the artist did to the one it replaces: settings, keyframes, modifiers, effects.

Blender cannot turn an image strip into a movie strip, so a take's movie is a new strip. What refers to the old one
(effects, masks, F-curves) is made to refer to the new one, before the old one is removed and what refers to it with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import bpy

from ..blender_types import current_context
from .strip_api import (
    Strip,
    all_strips_in,
    container_of,
    content_length_of,
    content_start_of,
    effects_over,
    end_of,
    end_offset_of,
    inputs_of,
    length_of,
    offset_of,
    set_content_start_of,
    set_end_of,
    set_start_of,
    start_of,
    strips_in,
    update_effects,
)

# What a strip is and where it lies, which is not copied by value.
_OWN = {
    *("name", "type", "channel", "filepath", "directory", "elements", "fps", "stream_index", "proxy", "use_proxy"),
    *("lock", "select", "select_left_handle", "select_right_handle", "show_retiming_keys", "modifiers"),
    *("animation_offset_start", "animation_offset_end", "views_format", "use_multiview", "stereo_3d_format"),
    *("frame_start", "frame_offset_start", "frame_offset_end", "frame_final_start", "frame_final_end"),
    *("frame_final_duration", "frame_duration", "content_start", "content_trim_start", "content_trim_end"),
    *("left_handle", "right_handle", "left_handle_offset", "right_handle_offset", "duration"),
    *("input_1", "input_2", "rna_type"),
}
# How a strip blends with those below it: where an effect lies over a strip, Blender goes by the effect's.
BLENDING = ("blend_alpha", "blend_type")


def is_retimed(strip: Strip) -> bool:
    """Whether the artist has given a strip retiming keys, which Python cannot set on another one."""
    return length_of(strip) != content_length_of(strip) - round(offset_of(strip)) - round(end_offset_of(strip))


def replace_strip(old: Strip, new: Strip, length: int) -> None:
    """Put a strip in the place of another one in the same container, with everything that was done to that.

    Args:
        old: the strip that is removed.
        new: the strip that stays; its content is the old one's.
        length: frames of the scene that it lasts, unless the artist has cut off the old one's end.
    """
    scene: Any = old.id_data
    editor, container = scene.sequence_editor, container_of(old)
    name, channel, is_active, is_locked = old.name, old.channel, editor.active_strip == old, old.lock
    start, end, is_cut = start_of(old), end_of(old), bool(end_offset_of(old))
    selection = {side: getattr(old, side) for side in ("select", "select_left_handle", "select_right_handle")}
    set_content_start_of(new, content_start_of(old))
    set_start_of(new, start)
    set_end_of(new, end if is_cut else content_start_of(old) + length)
    _copy_settings(old, new)
    _copy_modifiers(old, new)
    new.colorspace_settings.name = old.colorspace_settings.name
    _copy_custom_properties(old, new)
    for effect in effects_over(old):
        _replace_input(effect, old, new)
    for strip in all_strips_in(editor):
        for modifier in strip.modifiers:
            if getattr(modifier, "input_mask_strip", None) == old:
                modifier.input_mask_strip = new
    move_animation(scene, old, new)
    # Blender 5.2 removes effects with what was their input before, unless a new name has it look at them again.
    old.name = f"{name} replaced"
    strips_in(container).remove(old)
    new.name, new.channel, new.lock = name, channel, is_locked
    for side, value in selection.items():
        setattr(new, side, value)
    if is_active:
        editor.active_strip = new


def slip_under(strip: Strip, effect: Strip) -> None:
    """Let an effect that was just put over a strip take that one's place in the picture.

    The artist's own effects now change its result, and it blends with what is below as the strip did.
    """
    for other in effects_over(strip):
        if other != effect:
            _replace_input(other, strip, effect)
    for name in BLENDING:
        setattr(effect, name, getattr(strip, name))
    move_animation(effect.id_data, strip, effect, BLENDING)
    strip.blend_alpha = 1.0
    update_effects(strip)


def move_animation(scene: bpy.types.ID | None, old: Strip, new: Strip, names: tuple[str, ...] = ()) -> None:
    """Let F-curves and drivers of a strip animate another one.

    Args:
        scene: whose strips they are.
        old: the strip that is animated now.
        new: the strip that will be.
        names: of the properties; all of them by default.
    """
    source, target = old.path_from_id(), new.path_from_id()
    for curve in _curves_of(scene):
        rest = curve.data_path.removeprefix(source)
        if rest != curve.data_path and rest.startswith(".") and (not names or rest[1:] in names):
            curve.data_path = target + rest


def _curves_of(scene: Any) -> Iterator[bpy.types.FCurve]:
    """The F-curves and drivers of a scene, also those of actions in its NLA tracks."""
    animation = scene.animation_data
    if animation is None:
        return
    yield from animation.drivers
    in_tracks = (strip.action for track in animation.nla_tracks for strip in track.strips)
    for action in {one for one in (animation.action, *in_tracks) if one is not None and one.library is None}:
        if bpy.app.version < (4, 4, 0):
            yield from action.fcurves
            continue
        for layer in action.layers:
            for strip in layer.strips:
                for bag in strip.channelbags:
                    yield from bag.fcurves


def _replace_input(effect: Strip, old: Strip, new: Strip) -> None:
    for name in inputs_of(effect):
        if getattr(effect, name) == old:
            setattr(effect, name, new)


def _copy_modifiers(old: Strip, new: Strip) -> None:
    # Blender 5.0 asks the context which scene the strip is in, and crashes without one.
    with current_context().temp_override(sequencer_scene=new.id_data):
        for modifier in old.modifiers:
            copy = new.modifiers.new(modifier.name, modifier.type)
            if copy is not None:
                _copy_settings(modifier, copy)
                _copy_custom_properties(modifier, copy)


def _copy_custom_properties(source: Any, target: Any) -> None:
    with suppress(TypeError):  # modifiers have them from Blender 5.0 on
        for key, value in source.items():
            target[key] = value.to_dict() if hasattr(value, "to_dict") else value


def _copy_settings(source: Any, target: Any) -> None:
    """Copy the values of all properties that both have, also those of structs inside (crop, transform, curves)."""
    for one in target.bl_rna.properties:
        name = one.identifier
        if name in _OWN or not hasattr(source, name):
            continue
        value = getattr(source, name)
        if isinstance(value, bpy.types.CurveMapping):
            _copy_curves(value, getattr(target, name))
        elif one.type == "POINTER" and value is not None and one.is_readonly:
            _copy_settings(value, getattr(target, name))
        elif not one.is_readonly and one.type != "COLLECTION":
            with suppress(AttributeError, TypeError):  # an enum's value that only images have
                setattr(target, name, value)


def _copy_curves(source: bpy.types.CurveMapping, target: bpy.types.CurveMapping) -> None:
    for name in ("use_clip", "clip_min_x", "clip_min_y", "clip_max_x", "clip_max_y", "extend", "tone"):
        setattr(target, name, getattr(source, name))
    target.black_level, target.white_level = source.black_level, source.white_level
    for curve, copy in zip(source.curves, target.curves, strict=True):
        while len(copy.points) > len(curve.points):
            copy.points.remove(copy.points[0])
        while len(copy.points) < len(curve.points):
            copy.points.new(0.0, 0.0)
        # Points are sorted by where they lie only at the update, so each copy gets its source's place.
        for point, other in zip(curve.points, copy.points, strict=True):
            other.location, other.handle_type = point.location, point.handle_type
    target.update()
