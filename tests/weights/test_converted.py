"""Converted weights beside the weights: read in parallel, found by what they were made from, never in the way."""

import errno
import os
import shutil
import threading
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from ex4d.leftovers import CONVERTED_FOLDER, converted_weights
from ex4d.weights import converted
from ex4d.weights.converted import BackgroundWriter, ConvertedWeights
from ex4d.weights.errors import CheckpointError
from ex4d.weights.parallel_files import read_tensors, write_tensors


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Of all types, with odd sizes, a number alone and nothing at all."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "blocks.0.weight": draw(7, 33).to(torch.float8_e4m3fn),
        "blocks.0.scale": draw(1, 33),
        "blocks.1.weight": draw(33, 7).to(torch.bfloat16),
        "norm": draw(3).half(),
        "number": draw(),
        "nothing": draw(0, 4),
    }


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype and found[key].shape == tensor.shape
        assert torch.equal(found[key].cpu().float(), tensor.float()), key


@pytest.fixture(autouse=True)
def any_disk():
    """However full the disk of this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converted, "FREE_BYTES", 0)
        yield


@pytest.fixture
def cache(tmp_path) -> ConvertedWeights:
    return ConvertedWeights(tmp_path / "models" / CONVERTED_FOLDER, 1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize("chunk", [16, 2**20])
def test_several_threads_read_what_safetensors_reads(tmp_path, device, chunk):
    path, counted = tmp_path / "a.safetensors", []
    assert write_tensors(path, weights())
    assert_equal(load_file(path), weights())
    found = read_tensors(path, device, lambda done, total: counted.append((done, total)), chunk_bytes=chunk, threads=3)
    assert_equal(found, weights())
    assert {tensor.device.type for tensor in found.values()} == {device}
    assert counted == [(number, 6) for number in range(1, 7)]


def test_files_of_safetensors_are_read_onto_the_devices_that_are_chosen_for_each_tensor(tmp_path, device):
    save_file(weights(), tmp_path / "a.safetensors", {"made": "elsewhere"})
    found = read_tensors(tmp_path / "a.safetensors", lambda key: "cpu" if key == "norm" else device, threads=1)
    assert_equal(found, weights())
    assert [found[key].device.type for key in ("norm", "number")] == ["cpu", device]


def test_damaged_files_are_errors_with_their_path(tmp_path):
    whole, path = tmp_path / "whole.safetensors", tmp_path / "damaged.safetensors"
    write_tensors(whole, weights())
    data = whole.read_bytes()
    other = (data[:8] + b"[" + data[9:], data.replace(b"BF16", b"XX16"))
    for damaged in (data[:-1], data[:20], b"", b"\xff" * 100, *other):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
            read_tensors(path, "cpu")


def test_what_counts_tensors_can_end_the_reading(tmp_path):
    write_tensors(tmp_path / "a.safetensors", weights())

    def cancel(done: int, total: int) -> None:
        raise InterruptedError(f"at {done} of {total}")

    with pytest.raises(InterruptedError, match="at 1 of 6"):
        read_tensors(tmp_path / "a.safetensors", "cpu", cancel)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-weights")]


def test_a_result_is_found_again_by_its_sources_and_settings(cache, source):
    path = cache.path("transformer", [source], torch.bfloat16, "scaled rows")
    assert not cache.find(path)
    assert cache.write(path, weights()) and cache.find(path)
    assert_equal(read_tensors(path, "cpu"), weights())
    assert path == cache.path("transformer", [source], torch.bfloat16, "scaled rows")
    assert path.name.startswith("transformer-") and [one.path for one in converted_weights(cache.folder.parent)] == [
        path
    ]
    assert path != cache.path("transformer", [source], torch.bfloat16, None)
    state = source.stat()
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert path != cache.path("transformer", [source], torch.bfloat16, "scaled rows"), "the file was replaced"
    assert not ConvertedWeights(cache.folder, 0).find(path), "the owner wants none"


def test_above_the_limit_what_was_used_longest_ago_goes(tmp_path, source):
    size = sum(tensor.nbytes for tensor in weights().values())
    cache = ConvertedWeights(tmp_path / "kept", 4 * size / 1e9)
    paths = [cache.path("vae", [source], number) for number in range(3)]
    for number, path in enumerate(paths[:2]):
        assert cache.write(path, weights(number))
        os.utime(path, (number, number))
    assert cache.find(paths[0])  # used now
    assert cache.write(paths[2], weights(2))
    assert sorted(cache.folder.iterdir()) == sorted([paths[0], paths[2]])
    small = ConvertedWeights(tmp_path / "kept", size / 2e9)
    assert not small.write(paths[1], weights()) and paths[0].is_file(), "nothing goes for what can never fit"


def test_a_full_disk_costs_the_cache_only(cache, source, monkeypatch, caplog):
    path = cache.path("vae", [source])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(converted, "FREE_BYTES", 10**10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**12 - 10**9, 10**9))
    assert not cache.write(path, weights()) and "1.0 GB free" in caplog.text
    monkeypatch.undo()

    def full(place, tensors, go_on) -> bool:
        place.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(converted, "write_tensors", full)
    assert not cache.write(path, weights()) and "No space left" in caplog.text
    assert not list(cache.folder.iterdir()), "nothing partial stays"
    monkeypatch.undo()
    cache.folder.rmdir()
    cache.folder.write_text("a file where the folder would be")
    assert not cache.write(path, weights()) and not cache.find(path)


def test_a_file_that_another_process_writes_is_left_to_it_unless_that_was_ended(cache, source):
    path = cache.path("vae", [source])
    partial = path.with_name(f"{path.name}.partial")
    cache.folder.mkdir(parents=True)
    partial.write_bytes(b"half")
    assert not cache.write(path, weights()) and partial.read_bytes() == b"half"
    os.utime(partial, (0, 0))
    assert cache.write(path, weights()) and not partial.exists()


def test_written_in_a_thread_and_given_up_when_memory_is_needed(cache, source, monkeypatch):
    writer, paths = BackgroundWriter(), [cache.path("vae", [source], number) for number in range(3)]
    writer.add(cache, paths[0], weights())
    writer.wait()
    assert paths[0].is_file()
    reached, released = threading.Event(), threading.Event()

    def pause(path, tensors, go_on) -> bool:
        reached.set()
        released.wait()
        return write_tensors(path, tensors, go_on)

    monkeypatch.setattr(converted, "write_tensors", pause)
    for path in paths[1:]:
        writer.add(cache, path, weights())
    reached.wait()
    threading.Thread(target=lambda: (writer._stopped.wait(), released.set())).start()
    writer.stop()
    assert sorted(cache.folder.iterdir()) == [paths[0]]
    writer.add(cache, paths[1], weights())
    writer.wait()
    assert paths[1].is_file(), "later ones are written again"
