"""The real thing, small: a scene goes over the wire, the worker renders it with torch and Warp, a take comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ex4d.media import write_png
from ex4d.media.exr import read_exr_channels
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.pipeline.targets import files_of_take
from ex4d_core import __version__
from ex4d_core.client import Client
from ex4d_core.messages import Hello
from ex4d_core.output_settings import OutputSettings
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.remote_job import RemoteJob
from ex4d_core.remote_take import RemoteTake
from ex4d_core.render_settings import RenderSettings
from ex4d_core.shot import ShotRequest
from ex4d_core.sources import DepthSettings
from ex4d_core.take_files import ALL_TAKE_FILES


@pytest.fixture
def make_service(start_service):
    return lambda: start_service(runner="ex4d.pipeline.take:generate_take")


def test_a_client_gets_a_take_from_a_service(make_service, connect, scene, shot, tmp_path):
    service = make_service()
    client = Client(service.address)
    take = RemoteTake(tmp_path / "take", shot("a real one"), scene)
    status = client.run(take.conversation(), timeout=120)
    client.close()

    assert (status.state, status.done, status.total) == ("done", 6, 6), status.reason
    assert sorted(take.frames) == [0, 1, 2, 3, 4, 5]
    assert set(take.files) == set(ALL_TAKE_FILES)
    assert all(path.stat().st_size > 0 for path in [*take.frames.values(), *take.files.values()])

    made_by = json.loads(take.files["request.json"].read_text(encoding="utf-8"))["made_by"]
    assert made_by["ex4d"] == __version__ and made_by["rasterizer"] == "warp" and made_by["device"].startswith("CPU")

    welcome = connect(service).ask(Hello())
    assert "warp" in welcome.rasterizers and "preview" in welcome.engines
    assert welcome.devices[0].startswith("CPU")


def test_a_take_in_more_bits_brings_its_images_and_the_scene_its_half_floats(make_service, tmp_path):
    (tmp_path / "png").mkdir()
    ramp = np.linspace(0, 65535, 48 * 32 * 3).astype(np.uint16).reshape(32, 48, 3)
    for index in range(2):
        write_png(tmp_path / "png" / f"{index}.png", ramp)
    np.save(tmp_path / "depth.npy", np.full((2, 32, 48), 3.0, np.float32))
    sources = SourcePaths(tmp_path / "png", tmp_path / "depth.npy")
    settings = ReconstructionSettings("ramp", DepthSettings("array"), bit_depth="16")
    scene = reconstruct(sources, settings, tmp_path / "scene")
    output = OutputSettings(format="exr", file_name="ramp.{frame}")
    render = RenderSettings(occlusion="thickness", remember=False)
    request = ShotRequest(scene.digest, scene.source_camera(), render=render, output=output)
    client = Client(make_service().address)
    take = RemoteTake(tmp_path / "take", request, scene)
    assert client.run(take.conversation(), timeout=120).state == "done"
    for folder in (tmp_path / "take", tmp_path / "fetched"):
        if folder != tmp_path / "take":  # as somebody does who knows the job's name alone
            client.run(RemoteJob(folder, job=take.job).fetch_available(), timeout=120)
        for index, name in enumerate(("ramp.1001.exr", "ramp.1002.exr")):
            channels = read_exr_channels(folder / name)
            picture = np.dstack([channels[name] for name in "RGB"])
            assert np.array_equal(picture, scene.deep_color()[index])
    assert {"ramp.1001.exr", "ramp.1002.exr"} < {path.name for path in files_of_take(tmp_path / "fetched")}
    client.close()
