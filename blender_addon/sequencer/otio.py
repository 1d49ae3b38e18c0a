"""Exports a cut as OpenTimelineIO: every movie and image strip of a sequencer with its position, trim and version.

An .otio file is JSON, and a cut needs six of its record types, so they are written here; the library itself would be a
compiled package for every system. Source: OpenTimelineIO's serialized schema, as of release 0.17.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import bpy

from ..paths import from_blend
from .strip_api import Strip, content_length_of, end_of, length_of, offset_of, start_of
from .strips import REQUEST, SPEED_OF, TAKE_KEY, StripError, strips_of

_SHOWN = ("MOVIE", "IMAGE")
_ACTIVE = "DEFAULT_MEDIA"


def timeline(scene: bpy.types.Scene) -> dict[str, Any]:
    """A scene's cut as OpenTimelineIO's ``Timeline.1``: one track a channel, lowest first, gaps between the strips.

    Muted strips are included, disabled, so that all versions of a shot are exported. Speed effects become time warps of
    their takes; other effects, sounds and scenes are left out.

    Raises:
        StripError: the sequencer has neither movie nor image strips.
    """
    rate = scene.render.fps / scene.render.fps_base
    everything = [] if scene.sequence_editor is None else list(strips_of(scene))
    # Strips that end before the timeline starts are not part of the cut.
    strips = [one for one in everything if one.type in _SHOWN and end_of(one) > scene.frame_start]
    if not strips:
        raise StripError(f"the sequencer of scene {scene.name!r} has no movie or image strips; add strips to export")
    speeds = {one.get(SPEED_OF): one.speed_factor for one in everything if one.get(SPEED_OF)}
    tracks = []
    for channel in sorted({strip.channel for strip in strips}):
        on_it = sorted((one for one in strips if one.channel == channel), key=start_of)
        tracks.append(_track(f"Channel {channel}", on_it, scene, rate, speeds))
    return {
        "OTIO_SCHEMA": "Timeline.1",
        "metadata": {"blender": {"scene": scene.name}},
        "name": scene.name,
        "global_start_time": _time(scene.frame_start, rate),
        "tracks": {
            "OTIO_SCHEMA": "Stack.1",
            **_item("tracks", None),
            "children": tracks,
        },
    }


def export_cut(scene: bpy.types.Scene, path: Path) -> int:
    """Write a scene's cut to a ``.otio`` file; returns the number of strips.

    Raises:
        StripError: see `timeline`.
        OSError: the file cannot be written.
    """
    cut = timeline(scene)
    path.write_text(json.dumps(cut, indent=2, ensure_ascii=False), encoding="utf-8")
    return sum(one["OTIO_SCHEMA"] == "Clip.2" for track in cut["tracks"]["children"] for one in track["children"])


def _track(
    name: str, strips: list[Strip], scene: bpy.types.Scene, rate: float, speeds: dict[str, float]
) -> dict[str, Any]:
    children, reached = [], scene.frame_start
    for strip in strips:
        if start_of(strip) > reached:
            length = start_of(strip) - reached
            children.append({"OTIO_SCHEMA": "Gap.1", **_item("", _range(0, length, rate))})
        speed = speeds.get(strip.get(TAKE_KEY), 1.0)
        children.append(_clip(strip, rate, speed, max(0, reached - start_of(strip))))
        reached = max(reached, end_of(strip))
    return {"OTIO_SCHEMA": "Track.1", **_item(name, None), "kind": "Video", "children": children}


def _clip(strip: Strip, rate: float, speed: float, cut_off: int) -> dict[str, Any]:
    """A strip as ``Clip.2``.

    Args:
        strip: the strip.
        rate: frame rate of the scene.
        speed: frames of the strip for each frame of the scene.
        cut_off: frames of the scene by which the strip starts before the timeline.
    """
    own_rate = (strip.fps or rate) if strip.type == "MOVIE" else rate
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
    request = strip.get(REQUEST)
    return {
        "OTIO_SCHEMA": "Clip.2",
        **_item(strip.name, source_range, effects, enabled=not strip.mute),
        "metadata": {"ex4d": {"take": strip.get(TAKE_KEY), "request": json.loads(request)}} if request else {},
        "media_references": {_ACTIVE: _media(strip, own_rate)},
        "active_media_reference_key": _ACTIVE,
    }


def _media(strip: Strip, rate: float) -> dict[str, Any]:
    movie = strip.type == "MOVIE"
    names = [] if movie else [element.filename for element in strip.elements]
    folder = from_blend(strip.filepath if movie else strip.directory)
    available = _range(0, content_length_of(strip) if movie else len(names), rate)
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
