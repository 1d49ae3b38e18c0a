"""Small files and messages that claim to be, or unpack to, something huge: memory stays bounded, and all end in words.

Each goes through a service with a real worker, as footage, depth, camera, manifest or message.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import msgpack
import numpy as np
import OpenEXR
import psutil
import zmq

from campaigns.outcome import Outcome
from campaigns.service import PATIENCE, Service, ask, connected, shot, write_scene
from ex4d.media import write_png
from ex4d_core.client import Client
from ex4d_core.errors import Ex4dError
from ex4d_core.local_token import USER, read_token
from ex4d_core.messages import PROTOCOL_VERSION, Hello, Submit
from ex4d_core.reconstruction import ReconstructionPlan, ReconstructionSettings
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import MAX_MANIFEST_BYTES
from ex4d_core.sources import DepthSettings
from ex4d_core.transfers import Sent, upload_blobs

# What service and worker may take above what they had after an honest job. A message of 24 MB is unpacked once, and a
# file is read whole before its header is looked at.
MAX_MEMORY = 250e6
_SIDE = 100_000
_LOOK_SECONDS = 0.01
_MESSAGE_SECONDS = 10
_WIDTH, _HEIGHT = 300, 200

# The files of a reconstruction that a bomb replaces, by their place in `ReconstructionPlan`; "layout" is of depth.
Files = dict[str, Any]


def run(seed: int, count: int, names: Sequence[str] = ()) -> Outcome:
    """Send every bomb, or those of these names, ``count`` times in a random order."""
    names = names or list(BOMBS)
    choices, outcome, most = random.Random(seed), Outcome(), 0.0
    with Service.in_workplace() as (service, folder):
        client = connected(service.address)
        if not _MESSAGES.keys() >= set(names):
            honest = _reconstruct(client, folder / "honest", {})
            outcome.require(honest.startswith("done"), f"an honest reconstruction ended with {honest}")
        sent = 0
        for round_ in range(count):
            for name in choices.sample(names, len(names)):
                with _watched(service) as peak:
                    end = BOMBS[name](client, folder / f"{round_} {name}")
                sent += 1
                taken = peak[0]
                most = max(most, taken)
                outcome.require(taken < MAX_MEMORY, f"{name}: service and worker took {taken / 1e6:.0f} MB")
                outcome.require(bool(end) and not end.startswith("done"), f"{name}: ended with {end!r}")
                outcome.require("internal" not in end and "Traceback" not in end, f"{name}: {end[:300]}")
                outcome.require(len(end) < 1000, f"{name}: an end of {len(end)} letters")
                ask(client, Hello("campaign"))
        client.close()
        died = sum("was killed by" in line for line in service.log.read_text(errors="replace").splitlines())
        outcome.require(not died, f"{died} workers were killed")
        outcome.figures = {"bombs": sent, "kinds": len(names), "most MB of memory": round(most / 1e6)}
    return outcome


@contextmanager
def _watched(service: Service) -> Iterator[list[float]]:
    """Bytes that the processes of a service take at most during the block, above its beginning."""
    processes = [psutil.Process(service.process.pid), *service.children()]
    begin, peak, ended = _memory(processes), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            peak[0] = max(peak[0], _memory(processes) - begin)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _memory(processes: list[psutil.Process]) -> float:
    total = 0.0
    for one in processes:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _reconstruct(client: Client, folder: Path, files: Files) -> str:
    """Send footage of two small frames with depth, some of them replaced; returns state and reason, or the refusal."""
    folder.mkdir(exist_ok=True)
    if "footage" not in files:
        write_png(folder / "honest_0.png", np.zeros((_HEIGHT, _WIDTH, 3), np.uint8))
        files = {**files, "footage": (folder / "honest_0.png",)}
    if "depth_files" not in files:
        np.save(folder / "depth.npy", np.full((1, _HEIGHT, _WIDTH), 2, np.float32))
        files = {**files, "depth_files": (folder / "depth.npy",)}
    depth = DepthSettings(layout=files.get("layout", "array"), scale=1.0)
    settings = ReconstructionSettings("bomb", depth, fov_degrees=None if "camera_files" in files else 50.0)
    plan = ReconstructionPlan(settings, files["footage"], files["depth_files"], files.get("camera_files", ()))
    try:
        status = client.run(RemoteScene(folder / "scene", plan).conversation(), timeout=PATIENCE)
    except Ex4dError as error:
        return str(error)
    return f"{status.state} {status.reason}"


def _file(place: str, name: str, write: Callable[[Path], Any], **more: Any) -> Callable[[Client, Path], str]:
    """A bomb that is a file of a reconstruction."""

    def bomb(client: Client, folder: Path) -> str:
        folder.mkdir()
        write(folder / name)
        return _reconstruct(client, folder, {place: (folder / name,), **more})

    return bomb


def _png(path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 16, 6, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**8))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def _encoded(path: Path, codec: str, pixels: str, kind: str | None = None) -> bytes:
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, pixels
        frame = av.VideoFrame.from_ndarray(np.zeros((_HEIGHT, _WIDTH, 3), np.uint8), "rgb24").reformat(format=pixels)
        container.mux([*stream.encode(frame), *stream.encode()])
    return path.read_bytes()


def _jpeg(path: Path) -> None:
    data = _encoded(path, "mjpeg", "yuvj420p", "image2")
    size = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:size] + struct.pack(">HH", 65_500, 65_500) + data[size + 4 :])


def _tiff(path: Path) -> None:
    tags = [(256, _SIDE), (257, _SIDE), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1), (278, _SIDE), (279, 1000)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + bytes(1000))


def _bmp(path: Path) -> None:
    info = struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + info + bytes(1000))


def _avi(path: Path) -> None:
    data = _encoded(path, "mjpeg", "yuvj420p")
    size = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:size] + struct.pack(">HH", 65_500, 65_500) + data[size + 4 :])


def _mkv(path: Path) -> None:
    data = _encoded(path, "ffv1", "yuv420p")
    for element, side in ((b"\xb0", _WIDTH), (b"\xba", _HEIGHT)):
        before = element + (b"\x82" + struct.pack(">H", side) if side > 255 else b"\x81" + bytes([side]))
        data = data.replace(before, before[:2] + b"\xff" * (len(before) - 2), 1)
    path.write_bytes(data)


def _exr(path: Path) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": np.ones((_HEIGHT, _WIDTH), np.float32)}) as file:
        file.write(str(path))
    window = struct.pack("<4i", 0, 0, _WIDTH - 1, _HEIGHT - 1)
    path.write_bytes(path.read_bytes().replace(window, struct.pack("<4i", 0, 0, _SIDE - 1, _SIDE - 1)))


def _npz(name: str) -> Callable[[Path], None]:
    """An archive of 2 MB that unpacks to 2 GB of zeros."""

    def write(path: Path) -> None:
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
        ):
            np.lib.format.write_array_header_2_0(
                member, {"descr": "<f4", "fortran_order": False, "shape": (1, 20_000, 25_000)}
            )
            for _ in range(200):
                member.write(bytes(10**7))

    return write


def _npy(path: Path) -> None:
    with open(path, "wb") as file:
        shape = (_SIDE, _SIDE, _SIDE)
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(1000))


def _deep_json(path: Path) -> None:
    path.write_text("[" * 200_000 + "]" * 200_000)


def _wide_json(path: Path) -> None:
    path.write_text('{"frames": [' + ",".join(["{}"] * 1_000_000) + "]}")


def _manifest(make: Callable[[Scene], bytes]) -> Callable[[Client, Path], str]:
    """A bomb that is the manifest of a scene whose other files are not there."""

    def bomb(client: Client, folder: Path) -> str:
        folder.mkdir()
        scene = write_scene(folder / "scene")
        data = make(scene)
        digest = hashlib.sha256(data).hexdigest()
        try:
            client.run(upload_blobs({digest: data}, Sent()), timeout=PATIENCE)
            return f"done {ask(client, Submit(folder.name, {**shot(scene, 'x').to_wire(), 'scene': digest})).job}"
        except Ex4dError as error:
            return str(error)

    return bomb


def _message(make: Callable[[], bytes]) -> Callable[[Client, Path], str]:
    """A bomb that is the header of a message; the answer says what is wrong, or the connection is cut off."""

    def bomb(client: Client, folder: Path) -> str:
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.plain_username, socket.plain_password = USER.encode(), read_token(client.address).encode()
        socket.connect(client.address)
        try:
            socket.send(make())
            if not socket.poll(_MESSAGE_SECONDS * 1000):
                return "no answer"
            reply = msgpack.unpackb(socket.recv_multipart()[0])
            return str(reply.get("text", f"done {reply}"))
        finally:
            socket.close()

    return bomb


def _header(value: bytes) -> bytes:
    """A greeting whose client is this packed value."""
    start = msgpack.packb({"v": PROTOCOL_VERSION, "type": "Hello", "id": 1}) or b""
    return bytes([start[0] + 1]) + start[1:] + (msgpack.packb("client") or b"") + value


def _long_list(scene: Scene) -> bytes:
    values = json.loads(scene.manifest_bytes)
    return json.dumps({**values, "provenance": {str(number): "x" for number in range(20_000)}}).encode()


_FILES: dict[str, Callable[[Client, Path], str]] = {
    "png": _file("footage", "0001.png", _png),
    "jpeg": _file("footage", "0001.jpg", _jpeg),
    "tiff": _file("footage", "0001.tiff", _tiff),
    "bmp": _file("footage", "0001.bmp", _bmp),
    "avi": _file("footage", "clip.avi", _avi),
    "mkv": _file("footage", "clip.mkv", _mkv),
    "exr": _file("depth_files", "0001.exr", _exr, layout="exr"),
    "depth png": _file("depth_files", "0001.png", _png, layout="png"),
    "depth npz": _file("depth_files", "depth.npz", _npz("depth")),
    "depth npy": _file("depth_files", "depth.npy", _npy),
    "camera npz": _file("camera_files", "camera.npz", _npz("world_to_camera")),
    "camera deep json": _file("camera_files", "transforms.json", _deep_json),
    "camera wide json": _file("camera_files", "transforms.json", _wide_json),
}
_MESSAGES: dict[str, Callable[[Client, Path], str]] = {
    "manifest deep json": _manifest(lambda _: b"[" * 50_000 + b"]" * 50_000),
    "manifest too long": _manifest(lambda _: b" " * (MAX_MANIFEST_BYTES + 1)),
    "manifest with many entries": _manifest(_long_list),
    "deep msgpack": _message(lambda: _header(b"\x91" * 1_000_000 + b"\xc0")),
    "wide msgpack": _message(lambda: _header(b"\xdd" + struct.pack(">I", 10_000_000) + b"\x80" * 10_000_000)),
    "many maps in msgpack": _message(lambda: _header(b"\xdc\x04\x00" + (b"\xdc\x04\x00" + b"\x80" * 1024) * 1024)),
    "long text in msgpack": _message(lambda: _header(b"\xdb" + struct.pack(">I", 2**31) + b"x" * 1000)),
}
BOMBS = _FILES | _MESSAGES
