"""Arrays from files of any origin: everything wrong with them is one kind of error, with its reason."""

import io
import struct
import zipfile

import numpy as np
import pytest

from ex4d_core.archives import ArchiveError, read_npz


def flipped(data: bytes) -> bytes:
    """The same file with bits of its middle turned over."""
    middle = len(data) // 2
    return data[: middle - 40] + bytes(byte ^ 0x5A for byte in data[middle - 40 : middle + 40]) + data[middle + 40 :]


def an_array_that_says_to_be_larger_than_it_is() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8))
    return file.getvalue()


def test_all_arrays_come_back_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.arange(3), two=np.eye(2))
    arrays = read_npz(tmp_path / "a.npz")
    assert list(arrays) == ["one", "two"]
    assert np.array_equal(arrays["one"], [0, 1, 2])


def test_what_is_damaged_or_no_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", values=np.random.default_rng(0).random(2000))
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "single.npy", np.eye(3))
    np.savez(tmp_path / "objects.npz", values=np.array([{}], dtype=object))
    for data in (
        b"",
        b"hello",
        whole[: len(whole) // 2],
        (tmp_path / "single.npy").read_bytes(),
        flipped(whole),
        (tmp_path / "objects.npz").read_bytes(),
        an_array_that_says_to_be_larger_than_it_is(),
    ):
        (tmp_path / "case.npz").write_bytes(data)
        with pytest.raises(ArchiveError, match=r"\.npz"):
            read_npz(tmp_path / "case.npz")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nowhere.npz")


def test_a_bound_holds_before_anything_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", values=np.zeros(100_000))
    assert (tmp_path / "zeros.npz").stat().st_size < 10_000
    with pytest.raises(ArchiveError, match=r"800128 .* 10000"):
        read_npz(tmp_path / "zeros.npz", most_bytes=10_000)
