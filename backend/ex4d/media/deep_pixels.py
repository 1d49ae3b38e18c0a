"""Decoded frames of more than 8 bits as floats: what swscale would round, or darken by a part in a thousand.

swscale widens RGB by shifting bits, which makes white of 10 bits 0.999. In YUV of limited range a shift is right.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter

# Kr and Kb of ITU-T H.273's matrices, table 4.
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_BITS = 16


def deep_from_yuv(
    frame: av.VideoFrame, reformatter: VideoReformatter, flags: int, matrix: int, full_range: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB (H, W, 3) float32, full range, and straight alpha (H, W) or None, of a YUV frame of 9 to 16 bits.

    Args:
        reformatter: brings chroma to the size of luma.
        flags: of swscale.
        matrix: code of H.273.
        full_range: of the frame's values.
    """
    with_alpha = any(component.is_alpha for component in frame.format.components)
    bits = max(component.bits for component in frame.format.components)
    planes = _wide_planes(frame, reformatter, flags, bits, with_alpha, full_range)
    largest = float((1 << bits) - 1) * (1 << (_BITS - bits))
    half = float(1 << (_BITS - 1))
    luma, blue, red = planes[:3]
    if full_range:
        luma, blue, red = luma / largest, (blue - half) / largest, (red - half) / largest
    else:
        step = float(1 << (_BITS - 8))
        luma, blue, red = ((luma / step - 16) / 219, (blue / step - 128) / 224, (red / step - 128) / 224)
    of_red, of_blue = _LUMA_WEIGHTS[matrix]
    rgb = np.empty((frame.height, frame.width, 3), np.float32)
    rgb[..., 0] = luma + 2 * (1 - of_red) * red
    rgb[..., 2] = luma + 2 * (1 - of_blue) * blue
    rgb[..., 1] = (luma - of_red * rgb[..., 0] - of_blue * rgb[..., 2]) / (1 - of_red - of_blue)
    np.clip(rgb, 0.0, 1.0, out=rgb)
    return rgb, planes[3] / largest if with_alpha else None


def deep_from_rgb(frame: av.VideoFrame) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB (H, W, 3) float32 and straight alpha (H, W) or None of an RGB or grey frame; integers are in [0, 1].

    Raises:
        ValueError: PyAV has no array for the frame's format.
    """
    values = frame.to_ndarray()
    bits = max(component.bits for component in frame.format.components)
    if values.dtype != np.float32:
        values = values.astype(np.float32) / np.float32((1 << bits) - 1)
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2), None
    alpha = values[..., 3] if values.shape[2] == 4 else None
    return values[..., :3], alpha


def frame_of_deep(rgb: np.ndarray, alpha: np.ndarray | None) -> av.VideoFrame:
    """A frame of yuv444p10le or yuva444p10le in BT.709, limited range; swscale makes 16 bits brighter by 1 in 256.

    Args:
        rgb: (H, W, 3) float32 in [0, 1].
        alpha: (H, W) float32 in [0, 1], or None.
    """
    height, width = rgb.shape[:2]
    of_red, of_blue = _LUMA_WEIGHTS[1]
    luma = of_red * rgb[..., 0] + (1 - of_red - of_blue) * rgb[..., 1] + of_blue * rgb[..., 2]
    blue, red = (rgb[..., 2] - luma) / (2 * (1 - of_blue)), (rgb[..., 0] - luma) / (2 * (1 - of_red))
    planes = [64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red, *([] if alpha is None else [1023 * alpha])]
    frame = av.VideoFrame(width, height, "yuv444p10le" if alpha is None else "yuva444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((height, plane.line_size // 2), "<u2")
        rows[:, :width] = np.rint(values)
        plane.update(rows.tobytes())
    return frame


def _wide_planes(
    frame: av.VideoFrame, reformatter: VideoReformatter, flags: int, bits: int, with_alpha: bool, full_range: bool
) -> list[np.ndarray]:
    """Luma, chroma and alpha (H, W) float32, all of the frame's size, in 16 bits, shifted up."""
    if frame.format.name.startswith(("yuv444p", "yuva444p")):
        # Read as they are: where nothing changes its size, swscale fills full range up to 65535, but chroma not.
        order = ">u2" if frame.format.name.endswith("be") else "<u2"
        shift = float(1 << (_BITS - bits))
        return [_plane(plane, frame.width, order) * shift for plane in frame.planes]
    name = "yuva444p16le" if with_alpha else "yuv444p16le"
    kept = ColorRange.JPEG if full_range else ColorRange.MPEG
    wide = reformatter.reformat(
        frame, format=name, src_color_range=kept, dst_color_range=kept, interpolation=flags, threads=1
    )
    return [_plane(plane, frame.width, "<u2") for plane in wide.planes]


def _plane(plane: VideoPlane, width: int, order: str) -> np.ndarray:
    rows = np.frombuffer(memoryview(plane), order).reshape(plane.height, -1)
    return rows[:, :width].astype(np.float32)
