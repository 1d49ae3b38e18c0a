"""Exports a cut as OpenTimelineIO: movies, images and sounds with position, trim and version; metas and markers.

An .otio file is JSON, and a cut needs nine of its record types, so they are written here; the library itself would be a
compiled package for every system. Source: OpenTimelineIO's serialized schema, as of release 0.17.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy

from ..blender_types import enum_items
from ..paths import from_blend
from .strip_api import (
    Container,
    Strip,
    content_length_of,
    content_start_of,
    effects_over,
    end_of,
    length_of,
    offset_of,
    start_of,
    strips_in,
)
from .strips import REQUEST, SHOT_KEY, SOUND_OF, TAKE_KEY, StripError, rate_of

_PICTURES = ("MOVIE", "IMAGE")
_SOUND = "SOUND"
_META = "META"
_ACTIVE = "DEFAULT_MEDIA"
_ADJUSTED = "picture adjustments"


@dataclass
class Cut:
    """A cut as OpenTimelineIO.

    Attributes:
        timeline: the ``Timeline.1``.
        clips: how many movie, image and sound strips are in it.
        left_out: what the sequencer has and the cut has not: kind and number.
    """

    timeline: dict[str, Any] = field(default_factory=dict)
    clips: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def left_out_text(self) -> str:
        """What was left out, for people; "" if nothing was."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))


def timeline(scene: bpy.types.Scene) -> Cut:
    """A scene's cut: one track a channel, lowest first, gaps between the strips, those with sound last.

    A meta strip becomes a stack of tracks of its own. Muted strips are included, disabled, so that all versions of a
    shot are exported. Speed effects become time warps of their strips. Scenes, clips, masks and other effects are left
    out, and so are crop, transform, opacity and modifiers; `Cut.left_out` counts them.

    Raises:
        StripError: the sequencer has no movie, image or sound strips.
    """
    cut, rate = Cut(), rate_of(scene)
    tracks = _tracks(cut, scene.sequence_editor, scene.frame_start, rate) if scene.sequence_editor else []
    if not cut.clips:
        raise StripError(
            f"the sequencer of scene {scene.name!r} has no movie, image or sound strips; add strips to export"
        )
    markers = [
        _marker(marker, scene.frame_start, rate)
        for marker in scene.timeline_markers
        if marker.frame >= scene.frame_start
    ]
    if before := len(scene.timeline_markers) - len(markers):
        cut.left_out["markers before the first frame"] = before
    cut.timeline = {
        "OTIO_SCHEMA": "Timeline.1",
        "metadata": {"blender": {"scene": scene.name, "left_out": dict(cut.left_out)}},
        "name": scene.name,
        "global_start_time": _time(scene.frame_start, rate),
        "tracks": {"OTIO_SCHEMA": "Stack.1", **_item("tracks", None), "markers": markers, "children": tracks},
    }
    return cut


def export_cut(scene: bpy.types.Scene, path: Path) -> Cut:
    """Write a scene's cut to a ``.otio`` file.

    Raises:
        StripError: see `timeline`.
        OSError: the file cannot be written.
    """
    cut = timeline(scene)
    path.write_text(json.dumps(cut.timeline, indent=2, ensure_ascii=False), encoding="utf-8")
    return cut


def _tracks(cut: Cut, container: Container, start: int, rate: float) -> list[dict[str, Any]]:
    """The tracks of a sequencer or meta strip, whose time starts at frame ``start`` of the scene."""
    pictures, sounds = [], []
    for strip in strips_in(container):
        if end_of(strip) <= start:
            cut.left_out["strips before the first frame"] += 1
        elif strip.type == _SOUND:
            sounds.append(strip)
        elif strip.type in (*_PICTURES, _META):
            pictures.append(strip)
            cut.left_out.update([_ADJUSTED] if _is_adjusted(strip) else [])
        elif not _is_time_warp(strip):
            cut.left_out[enum_items(strip, "type")[strip.type].name] += 1
    tracks = []
    for kind, strips in (("Video", pictures), ("Audio", sounds)):
        for channel in sorted({strip.channel for strip in strips}):
            on_it = sorted((one for one in strips if one.channel == channel), key=start_of)
            name = f"Channel {channel}"
            tracks.append({**_track(cut, on_it, start, rate), "name": name, "kind": kind})
    return tracks


def _track(cut: Cut, strips: list[Strip], start: int, rate: float) -> dict[str, Any]:
    children, reached = [], start
    for strip in strips:
        if start_of(strip) > reached:
            length = start_of(strip) - reached
            children.append({"OTIO_SCHEMA": "Gap.1", **_item("", _range(0, length, rate))})
        cut_off = max(0, reached - start_of(strip))
        if strip.type == _META:
            children.append(_stack(cut, strip, rate, cut_off))
        else:
            cut.clips += 1
            children.append(_clip(strip, rate, cut_off))
        reached = max(reached, end_of(strip))
    return {"OTIO_SCHEMA": "Track.1", **_item("", None), "children": children}


def _stack(cut: Cut, meta: Strip, rate: float, cut_off: int) -> dict[str, Any]:
    """A meta strip as ``Stack.1``, trimmed as it is."""
    start = content_start_of(meta)
    shown = _range(start_of(meta) + cut_off - start, length_of(meta) - cut_off, rate)
    shot = meta.get(SHOT_KEY)
    return {
        "OTIO_SCHEMA": "Stack.1",
        **_item(meta.name, shown, enabled=not meta.mute),
        "metadata": {"ex4d": {"shot": shot}} if shot else {},
        "children": _tracks(cut, meta, start, rate),
    }


def _clip(strip: Strip, rate: float, cut_off: int) -> dict[str, Any]:
    """A movie, image or sound strip as ``Clip.2``.

    Args:
        strip: the strip.
        rate: frame rate of the scene.
        cut_off: frames of the scene by which the strip starts before the timeline.
    """
    own_rate = (strip.fps or rate) if strip.type == "MOVIE" else rate
    speed = next((one.speed_factor for one in effects_over(strip) if _is_time_warp(one)), 1.0)
    start = round(offset_of(strip) + cut_off * speed)
    # Blender plays one movie frame a scene frame; OpenTimelineIO plays a movie at its own rate without a time warp.
    scalar = speed * rate / own_rate
    warp = {"OTIO_SCHEMA": "LinearTimeWarp.1", "metadata": {}, "name": "", "effect_name": "LinearTimeWarp"}
    effects = [] if abs(scalar - 1.0) < 1e-5 else [{**warp, "time_scalar": scalar}]
    source_range = {
        "OTIO_SCHEMA": "TimeRange.1",
        "start_time": _time(start, own_rate),
        "duration": _time(length_of(strip) - cut_off, rate),
    }
    take, request = strip.get(TAKE_KEY, strip.get(SOUND_OF)), strip.get(REQUEST)
    of_take = {"take": take, **({"request": json.loads(request)} if request else {})}
    return {
        "OTIO_SCHEMA": "Clip.2",
        **_item(strip.name, source_range, effects, enabled=not strip.mute),
        "metadata": {"ex4d": of_take} if take else {},
        "media_references": {_ACTIVE: _media(strip, own_rate)},
        "active_media_reference_key": _ACTIVE,
    }


def _is_time_warp(strip: Strip) -> bool:
    """Whether a strip is a speed effect by a constant factor over a strip that is exported: a time warp."""
    if strip.type != "SPEED" or strip.speed_control != "MULTIPLY":
        return False
    return strip.input_1 is not None and strip.input_1.type in _PICTURES


def _is_adjusted(strip: Strip) -> bool:
    """Whether an editing program would show the strip otherwise than Blender does."""
    crop, transform = strip.crop, strip.transform
    return bool(
        len(strip.modifiers)
        or strip.blend_alpha < 1.0
        or any((crop.min_x, crop.max_x, crop.min_y, crop.max_y))
        or any((transform.offset_x, transform.offset_y, transform.rotation))
        or (transform.scale_x, transform.scale_y) != (1.0, 1.0)
    )


def _marker(marker: bpy.types.TimelineMarker, start: int, rate: float) -> dict[str, Any]:
    camera = {"blender": {"camera": marker.camera.name}} if marker.camera else {}
    return {
        "OTIO_SCHEMA": "Marker.2",
        "metadata": camera,
        "name": marker.name,
        "color": "GREEN",
        "marked_range": _range(marker.frame - start, 0, rate),
    }


def _media(strip: Strip, rate: float) -> dict[str, Any]:
    names = [element.filename for element in strip.elements] if strip.type == "IMAGE" else []
    file = strip.sound.filepath if strip.type == _SOUND else strip.directory if names else strip.filepath
    folder = from_blend(file)
    available = _range(0, len(names) or content_length_of(strip), rate)
    shared = {"metadata": {}, "name": "", "available_image_bounds": None, "available_range": available}
    numbered = re.fullmatch(r"(.*?)(\d+)(\.\w+)", names[0]) if len(names) > 1 else None
    if numbered is None:
        url = folder.joinpath(*names[:1]).as_uri()
        return {"OTIO_SCHEMA": "ExternalReference.1", **shared, "target_url": url}
    prefix, number, suffix = numbered.groups()
    return {
        "OTIO_SCHEMA": "ImageSequenceReference.1",
        **shared,
        "target_url_base": folder.as_uri() + "/",
        "name_prefix": prefix,
        "name_suffix": suffix,
        "start_frame": int(number),
        "frame_step": 1,
        "rate": rate,
        "frame_zero_padding": len(number),
        "missing_frame_policy": "hold",
    }


def _item(name: str, source_range: dict | None, effects: list | None = None, enabled: bool = True) -> dict[str, Any]:
    """The fields that stacks, tracks, gaps and clips have in common."""
    return {
        "metadata": {},
        "name": name,
        "source_range": source_range,
        "effects": effects or [],
        "markers": [],
        "enabled": enabled,
    }


def _range(start: int, frames: int, rate: float) -> dict[str, Any]:
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": _time(start, rate), "duration": _time(frames, rate)}


def _time(frames: int, rate: float) -> dict[str, Any]:
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": float(rate), "value": float(frames)}
