"""Reading and writing of footage, videos, PNGs and image sequences. Knows nothing of depth or meshes."""

from ex4d.media.background_video import BackgroundVideoWriter
from ex4d.media.contact_sheet import contact_sheet
from ex4d.media.deep_source import DeepSource, deep_source
from ex4d.media.exr import ExrWindow, read_exr_channels, read_exr_windows
from ex4d.media.exr_writer import write_exr_channels
from ex4d.media.footage import FootageInfo, probe, read_deep_frames, read_frames
from ex4d.media.lens import Lens, lens_of
from ex4d.media.media_errors import MediaError
from ex4d.media.motion_mask import MotionMask
from ex4d.media.origin import footage_sha256, start_timecode
from ex4d.media.png import read_png, read_png_metadata, write_png
from ex4d.media.sequences import is_sequence, sequence_files
from ex4d.media.sound import Sound, sound_of
from ex4d.media.undistortion import Distorter, Undistorter
from ex4d.media.video_writer import VideoWriter, read_metadata

__all__ = [
    "BackgroundVideoWriter",
    "DeepSource",
    "Distorter",
    "ExrWindow",
    "FootageInfo",
    "Lens",
    "MediaError",
    "MotionMask",
    "Sound",
    "Undistorter",
    "VideoWriter",
    "contact_sheet",
    "deep_source",
    "footage_sha256",
    "is_sequence",
    "lens_of",
    "probe",
    "read_deep_frames",
    "read_exr_channels",
    "read_exr_windows",
    "read_frames",
    "read_metadata",
    "read_png",
    "read_png_metadata",
    "sequence_files",
    "sound_of",
    "start_timecode",
    "write_exr_channels",
    "write_png",
]
