"""Depth arrays in .npz and .npy files, read frame by frame: memory does not grow with the length of the clip."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from ex4d.depth.depth_clip import DepthError

_RETRY = "Export or copy it again."
_LARGEST_EXTRA = 64 << 20  # bytes; intrinsics of 100,000 frames are 7 MB, so more than this is something else


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type of an array in a file, known before any of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@contextmanager
def opened_array(path: Path, key: str) -> Iterator[tuple[ArrayHeader, IO[bytes]]]:
    """Opens the array `key` of an .npz, or the only array of an .npy, right behind its header.

    Raises:
        DepthError: missing, no permission, not such a file, no such key, damaged, or not plain numbers.
    """
    with _damage_reported(path):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as stream:
                yield _header(path, path.name, stream), stream
        else:
            with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive, key)) as stream:
                yield _header(path, f"{path}: {key!r}", stream), stream


def array_keys(path: Path) -> list[str]:
    """The names of the arrays in an .npz; empty for an .npy.

    Raises:
        DepthError: as `opened_array`.
    """
    if path.suffix.lower() == ".npy":
        return []
    with _damage_reported(path), zipfile.ZipFile(path) as archive:
        return _keys(archive)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except zipfile.BadZipFile as error:
        raise DepthError(f"{path}: not an .npz (zip) file, or truncated or damaged ({error}). {_RETRY}") from error
    except (zlib.error, lzma.LZMAError) as error:
        raise DepthError(f"{path}: damaged ({error}). {_RETRY}") from error
    except NotImplementedError as error:
        raise DepthError(f"{path}: {error}. Save it with numpy.savez or numpy.savez_compressed.") from error
    except EOFError as error:
        raise DepthError(f"{path}: truncated. {_RETRY}") from error
    except OSError as error:
        raise DepthError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and permissions."
        ) from error


def small_array(path: Path, key: str) -> np.ndarray:
    """A whole small array of an .npz, such as `intrinsics` or `scale`.

    Raises:
        DepthError: as `opened_array`, or when it is not small.
    """
    with opened_array(path, key) as (header, stream):
        size = math.prod(header.shape) * header.dtype.itemsize
        if size > _LARGEST_EXTRA:
            raise DepthError(f"{path}: {key!r} has shape {header.shape}, which is far too large. {_RETRY}")
        return np.frombuffer(_exactly(path, stream, size), header.dtype).reshape(header.shape)


def array_frames(path: Path, key: str) -> Iterator[np.ndarray]:
    """Yields array[0], array[1], ... in the type they are stored in, holding one at a time.

    Raises:
        DepthError: as `opened_array`, or when the file ends early.
    """
    with opened_array(path, key) as (header, stream):
        frame_shape = header.shape[1:]
        size = math.prod(frame_shape) * header.dtype.itemsize
        for index in range(header.shape[0]):
            data = _exactly(path, stream, size, f": frame {index} of {header.shape[0]} is cut off")
            yield np.frombuffer(data, header.dtype).reshape(frame_shape)


def _keys(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _member(path: Path, archive: zipfile.ZipFile, key: str) -> str:
    if key not in _keys(archive):
        keys = ", ".join(_keys(archive)) or "nothing"
        raise DepthError(f"{path}: has no array {key!r}; it holds {keys}. Name one of them with --depth-key.")
    name = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
    if archive.getinfo(name).flag_bits & 0x1:
        raise DepthError(f"{path}: is encrypted. Save it without a password.")
    return name


def _header(path: Path, what: str, stream: IO[bytes]) -> ArrayHeader:
    try:
        version = npy_format.read_magic(stream)
        read = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read(stream)
    except KeyError as error:
        raise DepthError(
            f"{what}: NumPy format {error} is not supported. Save plain numbers with numpy.save."
        ) from error
    except ValueError as error:
        raise DepthError(f"{what}: not a NumPy array, or damaged ({error}). {_RETRY}") from error
    if dtype.hasobject:
        raise DepthError(
            f"{what}: holds Python objects, which are never loaded. Save plain numbers (float16, float32)."
        )
    if dtype.kind not in "fiub":
        raise DepthError(f"{what}: has type {dtype}, which is not depth. Save plain numbers (float16, float32).")
    if fortran_order and sum(size > 1 for size in shape) > 1:
        raise DepthError(
            f"{what}: is stored in Fortran order, which cannot be read frame by frame. "
            "Save numpy.ascontiguousarray(depth)."
        )
    return ArrayHeader(shape, dtype)


def _exactly(path: Path, stream: IO[bytes], size: int, detail: str = "") -> bytes:
    data = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise DepthError(f"{path}: truncated{detail}. {_RETRY}")
        data += more
    return data
