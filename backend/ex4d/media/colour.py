"""Colour spaces of footage: which one a frame has, and tables that convert it to sRGB.

Codes are those of ITU-T H.273, as files carry them. HDR is tone-mapped so that diffuse white stays white: linear light
is scaled by the reference white of ITU-R BT.2408 (203 cd/m2), kept up to `_KNEE`, and compressed above it by the Mobius
curve that FFmpeg's filter `tonemap` has. From 1000 cd/m2, the curve of BT.2390 leaves that white at 229 of 255, and
method A of BT.2446 at 175.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import av
import numpy as np

from ex4d.media.media_errors import MediaError

UNSPECIFIED = 2
BT2020 = 9  # the same code for matrix and primaries
YCGCO = 8
LINEAR, _PQ, _HLG = 8, 16, 18
_DCI_P3, DISPLAY_P3 = 11, 12

# Matrices that swscale knows: BT.709, FCC, BT.601 (625 and 525 lines), SMPTE 240M, BT.2020.
KNOWN_MATRICES = (1, 4, 5, 6, 7, 9)
_REFUSED_MATRICES = {
    10: "BT.2020 with constant luminance",
    11: "Y'D'zD'x",
    12: "derived from primaries",
    13: "derived from primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-PQ-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}

# CIE 1931 chromaticities of red, green, blue and white. DCI-P3's own white is adapted to D65, as displays do.
_D65 = (0.3127, 0.3290)
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65)
_SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
_WIDE_PRIMARIES = {
    BT2020: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)),
    _DCI_P3: ("DCI-P3", _P3),
    DISPLAY_P3: ("Display P3", _P3),
}
_TRANSFERS = {LINEAR: "linear light", _PQ: "PQ", _HLG: "HLG"}

_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_KNEE = 0.85
# Entries a channel: PQ and HLG need more than the nearly straight tables of two gamuts.
_HDR_ENTRIES, _GAMUT_ENTRIES = 65, 33

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class ColourSpace:
    """How a stream's values encode colours, as codes of ITU-T H.273; `full_range` is None where nothing says it."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    full_range: bool | None = None

    @property
    def is_hdr(self) -> bool:
        """Whether its values reach beyond diffuse white."""
        return self.transfer in (_PQ, _HLG)

    @property
    def is_pq(self) -> bool:
        """Whether its values are display light by SMPTE ST 2084."""
        return self.transfer == _PQ


def colour_of(frame: av.VideoFrame | av.VideoCodecContext, declared: ColourSpace | None = None) -> ColourSpace:
    """The colour space of a frame, completed by what its container declares (ProRes often says nothing itself).

    Raises:
        MediaError: a colour matrix that nothing here converts.
    """
    declared = declared or ColourSpace()

    def told(code: int, otherwise: int) -> int:
        return otherwise if code in (UNSPECIFIED, 0) else code

    matrix = told(int(frame.colorspace), declared.matrix)
    full_range = int(frame.color_range) == 2 if int(frame.color_range) else declared.full_range
    primaries = told(int(frame.color_primaries), declared.primaries)
    transfer = told(int(frame.color_trc), declared.transfer)
    return ColourSpace(matrix, primaries, transfer, full_range)


def require_known_matrix(space: ColourSpace, name: object) -> None:
    """Refuse footage that would come out in false colours.

    Raises:
        MediaError: its matrix is not among those that can be converted.
    """
    if space.matrix in _REFUSED_MATRICES:
        raise MediaError(
            f"{name}: its colour matrix, {_REFUSED_MATRICES[space.matrix]} (code {space.matrix} of H.273), cannot be "
            "converted. Export it as Rec.709."
        )


def colour_note(space: ColourSpace) -> str | None:
    """What is done to the colours, for the artist; None for nothing."""
    primaries = _WIDE_PRIMARIES.get(space.primaries)
    if space.is_hdr:
        curve = _TRANSFERS[space.transfer]
        return f"HDR footage ({curve}) is tone-mapped to sRGB; diffuse white (203 cd/m2) stays white"
    if primaries or space.transfer == LINEAR:
        return f"colours are converted from {primaries[0] if primaries else 'linear light'} to sRGB"
    return None


def conversion_table(space: ColourSpace) -> np.ndarray | None:
    """Table (N, N, N, 3) float32 of sRGB values in [0, 1] by encoded red, green and blue; None for no change."""
    if not space.is_hdr and space.primaries not in _WIDE_PRIMARIES and space.transfer != LINEAR:
        return None
    return _table(space.primaries, space.transfer)


@functools.lru_cache(maxsize=4)
def _table(primaries: int, transfer: int) -> np.ndarray:
    entries = _GAMUT_ENTRIES if transfer not in _TRANSFERS else _HDR_ENTRIES
    steps = np.linspace(0.0, 1.0, entries)
    codes = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    hdr = transfer in (_PQ, _HLG)
    if transfer == _PQ:
        light = _pq_nits(codes) / _WHITE_NITS
    elif transfer == _HLG:
        light = _hlg_nits(codes) / _WHITE_NITS
    else:
        # Rec.709 and its relatives are shown as sRGB everywhere in this project, which keeps greys exact.
        light = codes if transfer == LINEAR else linear_of_srgb(codes)
    wide = _WIDE_PRIMARIES.get(BT2020 if hdr and primaries == UNSPECIFIED else primaries)
    if wide:
        light = light @ to_srgb_primaries(wide[1]).T
    light = np.maximum(light, 0.0)
    if hdr:
        strongest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
        light *= _tone_mapped(strongest) / strongest  # one factor for all channels keeps the hue
    return srgb_of_linear(light).astype(np.float32)


def to_srgb_primaries(chromaticities: Chromaticities) -> np.ndarray:
    """Matrix (3, 3) from linear RGB of some primaries to that of sRGB; white is mapped to white.

    The white point is adapted by Bradford's matrix, as ICC profiles do.
    """
    of_footage, of_srgb = _to_xyz(chromaticities), _to_xyz(_SRGB)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    whites = bradford @ np.stack([of_srgb.sum(axis=1), of_footage.sum(axis=1)], axis=1)
    adapt = np.linalg.inv(bradford) @ np.diag(whites[:, 0] / whites[:, 1]) @ bradford
    return np.linalg.inv(of_srgb) @ adapt @ of_footage


def _to_xyz(chromaticities: Chromaticities) -> np.ndarray:
    """Matrix (3, 3) from linear RGB to CIE XYZ, with white at Y = 1 (SMPTE RP 177)."""
    xyz = np.array([(x / y, 1.0, (1.0 - x - y) / y) for x, y in chromaticities]).T
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def linear_of_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_of_linear(light: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB (IEC 61966-2-1), clipped to [0, 1]."""
    light = np.clip(light, 0.0, 1.0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _pq_nits(codes: np.ndarray) -> np.ndarray:
    """Display light in cd/m2 of PQ values (SMPTE ST 2084, equation 4.1)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = codes ** (1 / m2)
    return 10000.0 * (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_nits(codes: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of HLG values on a display of 1000 cd/m2 (ITU-R BT.2100, table 5: inverse OETF, then OOTF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(codes <= 0.5, codes**2 / 3.0, (np.exp((codes - c) / a) + b) / 12.0)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return _PEAK_NITS * scene * np.maximum(luminance, 1e-9)[..., None] ** 0.2


def _tone_mapped(light: np.ndarray) -> np.ndarray:
    """Light relative to diffuse white, compressed so that `_PEAK_NITS` becomes 1."""
    peak, knee = _PEAK_NITS / _WHITE_NITS, _KNEE
    a = -knee * knee * (peak - 1.0) / (knee * knee - 2.0 * knee + peak)
    b = (knee * knee - 2.0 * knee * peak + peak) / (peak - 1.0)
    bent = (b * b + 2.0 * b * knee + knee * knee) / (b - a) * (light + a) / (light + b)
    return np.where(light <= knee, light, np.minimum(bent, 1.0))
