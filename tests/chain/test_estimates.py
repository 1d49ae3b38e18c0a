"""Estimates against the real thing: disk within a tenth, memory as an upper bound, and nothing that is left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

import ex4d
from ex4d.cli.final_estimate import final_note
from ex4d.cli.main import main
from ex4d.depth import DepthFiles
from ex4d.media import probe
from ex4d.pipeline.disk_room import DiskRoomError
from ex4d.pipeline.estimate import Estimate, time_text, total
from ex4d.pipeline.scene_building import build_scene
from ex4d.pipeline.scene_estimates import scene_bytes
from ex4d.pipeline.shot_estimates import add_wan, estimate_take_of_footage
from ex4d.subprocesses import module_environment
from ex4d_core.cameras import CameraPath
from ex4d_core.cards import H200, Card
from ex4d_core.shot import ShotRequest
from ex4d_core.sizes import size_text
from ex4d_core.wan_settings import WORKING_SIZES, wan_preset

ORBIT = ["--preset", "orbit", "--amount", "25"]


def size_of(path: Path) -> int:
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def dry_run(capsys, *words: str) -> dict:
    assert main([*words, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["result"]


@pytest.mark.parametrize("options", [[], ["--mesh"], ["--convention", "reference"], ["--num_frames", "2"]])
def test_the_disk_of_a_scene_is_known_before(options, sample_clip, tmp_path, capsys):
    words = ["reconstruct", str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz"), *options]
    estimated = dry_run(capsys, *words, "-o", str(tmp_path / "scene"))
    assert not list(tmp_path.iterdir())
    assert main([*words, "-o", str(tmp_path / "scene")]) == 0
    assert estimated["disk"] == pytest.approx(size_of(tmp_path / "scene"), rel=0.1)
    assert estimated["time"] > 0


@pytest.mark.parametrize(
    ("verb", "out", "tolerance"),
    # Movies are a small part of a take, and all of a render; a few frames say less about them.
    [("generate", "take", 0.1), ("render", "arrays.npz", 0.1), ("render", "movies", 0.4)],
)
def test_the_disk_of_a_shot_is_measured_on_a_few_frames(verb, out, tolerance, long_scene, tmp_path, capsys):
    words = [verb, str(long_scene), *ORBIT, "--size", "256x256", "-o", str(tmp_path / out)]
    estimated = dry_run(capsys, *words)
    assert not list(tmp_path.iterdir())
    assert main(words) == 0
    assert estimated["disk"] == pytest.approx(size_of(tmp_path / out), rel=tolerance)


@pytest.fixture(scope="module")
def long_scene(tmp_path_factory) -> Path:
    """All frames of the sample."""
    folder = Path(__file__).resolve().parents[1] / "data" / "sample"
    footage = probe(folder / "footage.mp4")
    lens = CameraPath.load(folder / "camera.npz").intrinsics[0]
    depth = DepthFiles(folder / "depth.npz").estimate(footage)
    target = tmp_path_factory.mktemp("long") / "scene"
    build_scene(footage, depth, lens, target, name="sample")
    return target


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells memory of its own from files that are mapped")
@pytest.mark.parametrize("verb", ["reconstruct", "render", "generate"])
def test_memory_stays_under_the_bound(verb, sample_clip, sample_scene, tmp_path, capsys):
    words = {
        "reconstruct": [str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz")],
        "render": [str(sample_scene.path("color").parent), *ORBIT],
        "generate": [str(sample_scene.path("color").parent), *ORBIT],
    }[verb]
    words = [verb, *words, "-o", str(tmp_path / "out")]
    bound = dry_run(capsys, *words)["memory"]
    peak = 0
    with subprocess.Popen([sys.executable, "-m", "ex4d", *words, "-q"], env=module_environment()) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                memory = watched.memory_info()
            except psutil.Error:
                break
            peak = max(peak, memory.rss - memory.shared)
        assert process.wait() == 0
    assert peak < bound < 5 * peak


def test_a_disk_without_room_is_noticed_before_any_work(sample_clip, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9 - 10**6, 10**6))
    monkeypatch.setattr("ex4d.pipeline.scene_building.read_frames", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(DiskRoomError, match=r"6 frames of 512x512 needs about 2\d MB, and 1 MB are free"):
        ex4d.reconstruct(sample_clip / "footage.mp4", tmp_path / "scene", depth=sample_clip / "depth.npz")
    assert not list(tmp_path.iterdir())

    words = ["reconstruct", str(sample_clip / "footage.mp4"), "--depth", str(sample_clip / "depth.npz")]
    assert main([*words, "-o", str(tmp_path / "scene"), "--dry-run"]) == 0
    assert "no room" in capsys.readouterr().err


def test_doctor_knows_how_large_a_scene_is(monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, 10**9))
    assert main(["doctor", "--json", "--backend", "tcp://127.0.0.1:9"]) == 1
    findings = json.loads(capsys.readouterr().out)["result"]["findings"]
    problem = next(one["problem"] for one in findings if one["name"] == "data folder")
    assert problem.endswith(f"a minute of 512x512 footage needs {size_text(scene_bytes(1800, 512, 512))}")


def test_a_final_needs_a_gpu_and_its_memory():
    preview = Estimate(10.0, 1000, 10**9)
    draft, reference = (
        add_wan(preview, wan_preset(name), 49, 512, 512, "cpu", "wan") for name in ("draft", "standard")
    )
    assert draft.seconds is None and "GPU" in draft.basis[-1], "there is none here"
    assert 8e9 < draft.gpu_least_bytes < reference.gpu_least_bytes < 12e9  # 10.0 GB were measured under a limit of 12
    assert reference.gpu_bytes == pytest.approx(19.1e9, rel=0.01)
    assert add_wan(preview, wan_preset("draft"), 49, 512, 512, "cpu", "preview") == preview

    one, fewer = (
        add_wan(Estimate(0.0, 0, 0), wan_preset("standard", step_interval=n), 49, 512, 512, "cpu", "wan", card=H200)
        for n in (1, 3)
    )
    assert one.seconds - 120 == pytest.approx(28.3, rel=0.05)  # docs/measured/speed.md
    assert fewer.seconds - 120 < 15, "24 passes instead of 50"
    assert "NVIDIA H200 is an estimate" in one.basis[-1]
    small = Card.named("NVIDIA GeForce RTX 3080", 8 * 2**30)
    large = add_wan(preview, wan_preset("quality"), 81, 1920, 1080, "cpu", "wan", card=small)
    assert "has 8.6 GB, less than the 1" in large.basis[-1]


def test_footage_that_is_kept_is_held_for_a_window():
    preview = Estimate(10.0, 1000, 10**9)
    plain, kept = (
        add_wan(preview, wan_preset("quality", keep_seen=keep), 200, 1920, 1080, "cpu", "wan") for keep in (False, True)
    )
    assert kept.memory_bytes - plain.memory_bytes == 4 * 1920 * 1080 * 81


def with_card(monkeypatch, products="scaled rows", no_attention="") -> None:
    """A made-up GPU."""
    monkeypatch.setattr("ex4d.pipeline.shot_estimates.on_gpu", lambda device: True)
    monkeypatch.setattr("ex4d.pipeline.shot_estimates.card_here", lambda device: H200)
    monkeypatch.setattr("ex4d.devices.Devices.problem", lambda devices: "")
    monkeypatch.setattr("ex4d.generation.wan.arithmetic.fp8_products", lambda device: products)
    monkeypatch.setattr("ex4d.generation.wan.arithmetic.why_no_fp8_attention", lambda device: no_attention)


def test_the_estimate_of_a_final_is_that_of_what_its_gpu_can_do(monkeypatch):
    def estimate(preset: str, *card: str | None, **changes: str) -> Estimate:
        with_card(monkeypatch, *card)
        return add_wan(Estimate(0.0, 0, 0), wan_preset(preset, **changes), 49, 512, 512, "cuda:0", "wan")

    bf16, fast = estimate("standard", precision="bf16"), estimate("fast")
    assert len(fast.basis) == len(bf16.basis) == 1, "all of it is as it was asked for"
    none = estimate("standard", None)
    assert (none.seconds, none.gpu_bytes) == (bf16.seconds, bf16.gpu_bytes)
    assert "weights stored in fp8" in estimate("standard", "stored weights").basis[-1]
    slower = estimate("fast", "scaled rows", "cuDNN has none")
    assert slower.seconds > fast.seconds and slower.basis[-1].endswith("cuDNN has none")


def test_a_batch_counts_the_lead_in_where_the_camera_may_start_elsewhere(sample_clip, monkeypatch):
    with_card(monkeypatch)
    footage = probe(sample_clip / "footage.mp4")

    def seconds(preset: str, **how: bool) -> float:
        return estimate_take_of_footage(footage, 49, 512, 512, wan_preset(preset), "cuda:0", "wan", **how).seconds

    assert seconds("standard") < seconds("standard", own_camera=True)
    assert seconds("ex4d-reference") == seconds("ex4d-reference", own_camera=True)


def test_estimates_add_up():
    parts = [Estimate(1.0, 10, 300, basis=("a",)), Estimate(2.0, 20, 200, 5, 4, ("a", "b"))]
    assert total(parts) == Estimate(3.0, 30, 300, 5, 4, ("a", "b"))
    assert total([*parts, Estimate(None, 1, 1)]).seconds is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.2, "about 1 s"), (95, "about 95 s"), (600, "about 10 min"), (9000, "about 2.5 h")],
)
def test_times_are_not_more_exact_than_they_are(seconds, text):
    assert time_text(seconds) == text


def test_a_dry_run_of_a_final_tells_every_working_size(sample_scene, tmp_path, capsys):
    scene = str(sample_scene.path("color").parent)
    words = ["generate", scene, *ORBIT, "--engine", "wan", "--device", "cpu", "-o", str(tmp_path / "take")]
    sizes = dry_run(capsys, *words)["sizes"]
    assert list(sizes) == list(WORKING_SIZES) and not list(tmp_path.iterdir())
    assert {size["seconds"] for size in sizes.values()} == {None}, "no GPU here"
    assert main([*words, "--dry-run"]) == 0
    assert "generated at 832x480    time unknown, 19.1 GB of GPU memory" in capsys.readouterr().out


def test_a_final_says_what_it_takes_on_the_card_that_makes_it(sample_scene):
    request = ShotRequest(sample_scene.digest, sample_scene.source_camera(), engine="wan", wan=wan_preset("standard"))
    note = final_note(request, H200, 0)
    assert note.startswith("estimate for NVIDIA H200: about ") and note.endswith("besides loading weights")
    small = Card.named("NVIDIA GeForce RTX 3080", 4 * 2**30)
    assert "does not fit, it needs 7." in final_note(request, small, 0)
