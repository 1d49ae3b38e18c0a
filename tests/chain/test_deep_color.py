"""High bit depth from camera to comp: footage to a scene, through the source camera and new ones, to files for comp."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest

from ex4d.media import deep_source, read_deep_frames, read_png, read_png_metadata, write_png
from ex4d.media.colour_management import ACESCG, LINEAR_SRGB, ColourSpaceError, Conversion
from ex4d.media.deep_source import chromaticities_of
from ex4d.media.deep_video_writer import MOVIES, DeepVideoWriter
from ex4d.media.exr_writer import read_exr_metadata
from ex4d.media.video_writer import read_metadata
from ex4d.pipeline.deep_outputs import render_deep
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.pipeline.targets import OutputError
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene, SceneError
from ex4d_core.scene_manifest import FootageOrigin
from ex4d_core.sources import DepthSettings

FRAMES, HEIGHT, WIDTH = 2, 32, 48
# Half floats over all stops that film has, another one in each pixel.
RAMP = np.logspace(-14, 12, HEIGHT * WIDTH * 3, base=2).reshape(HEIGHT, WIDTH, 3).astype(np.float16)
RENDER = RenderSettings(rasterizer="warp", occlusion="thickness")


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> SourcePaths:
    """An EXR sequence of the ramp in ACEScg, and depth: a near square before a wall."""
    folder = tmp_path_factory.mktemp("ramp")
    (folder / "exr").mkdir()
    for index in range(FRAMES):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "chromaticities": chromaticities_of(ACESCG)}
        with OpenEXR.File(header, {"RGB": RAMP}) as file:
            file.write(str(folder / "exr" / f"ramp.{index:04}.exr"))
    depth = np.full((FRAMES, HEIGHT, WIDTH), 4.0, np.float32)
    depth[:, 10:22, 14:30] = 1.5
    np.save(folder / "depth.npy", depth)
    return SourcePaths(folder / "exr", folder / "depth.npy")


def scene_of(footage: SourcePaths, folder: Path, **settings) -> Scene:
    notes: list[str] = []
    chosen = ReconstructionSettings("ramp", DepthSettings("array"), bit_depth="16", **settings)
    scene = reconstruct(footage, chosen, folder, note=notes.append)
    assert any("16 bits a channel" in text for text in notes)
    return scene


@pytest.fixture(scope="module")
def scene(footage, tmp_path_factory) -> Scene:
    return scene_of(footage, tmp_path_factory.mktemp("scenes") / "ramp")


def moved(scene: Scene, x: float) -> CameraPath:
    """The source camera, moved to the right."""
    camera = scene.source_camera()
    poses = camera.world_to_camera.copy()
    poses[:, 0, 3] -= x
    return replace(camera, world_to_camera=poses)


def channels_of(path: Path) -> dict[str, np.ndarray]:
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {name: np.array(channel.pixels) for name, channel in file.channels().items()}


def rgb_of(channels: dict[str, np.ndarray]) -> np.ndarray:
    return np.dstack([channels[name] for name in "RGB"])


def half_steps(one: np.ndarray, other: np.ndarray) -> int:
    """The largest number of half floats between two arrays of positive ones."""
    return int(np.abs(one.view(np.int16).astype(int) - other.view(np.int16)).max())


def test_acescg_in_is_acescg_out_bit_for_bit(scene, tmp_path) -> None:
    assert scene.manifest.color_space == ACESCG and scene.manifest.version == 5
    made = render_deep(scene, scene.source_camera(), RENDER, OutputSettings(format="exr"), tmp_path, "same")
    assert [path.name for path in made.color] == ["same_v001.1001.exr", "same_v001.1002.exr"]
    for path in made.color:
        channels = channels_of(path)
        assert half_steps(rgb_of(channels), RAMP) == 0
        assert (channels["A"] == 1).all() and channels["A"].dtype == np.float16
        assert np.allclose(channels["Z"], scene.depth()[0], rtol=1e-6)
        with OpenEXR.File(str(path), header_only=True) as file:
            assert np.allclose(file.header()["chromaticities"], chromaticities_of(ACESCG), atol=1e-6)


def test_other_working_and_output_spaces_are_converted_and_back_within_two_steps(footage, tmp_path) -> None:
    """Two roundings to half floats, one for each conversion; dark channels beside bright ones lose more, as in film."""
    pytest.importorskip("PyOpenColorIO")
    scene = scene_of(footage, tmp_path / "scene", working_space=LINEAR_SRGB)
    expected = Conversion(ACESCG, LINEAR_SRGB).applied(RAMP.astype(np.float32))
    kept = scene.deep_color()[0].astype(np.float32)
    assert np.abs(kept - expected).max() <= np.abs(expected).max() * 2**-11
    output = OutputSettings(format="exr", output_space="acescg")
    made = render_deep(scene, scene.source_camera(), RENDER, output, tmp_path / "out", "same")
    shown = rgb_of(channels_of(made.color[0])).astype(np.float32)
    assert np.abs(shown / RAMP.astype(np.float32) - 1).max() < 2**-9


def test_colours_of_8_bits_follow_a_space_that_was_given(footage, tmp_path) -> None:
    pytest.importorskip("PyOpenColorIO")
    scene = scene_of(footage, tmp_path / "scene", input_space="Linear Rec.709 (sRGB)")
    light = RAMP.astype(np.float64)
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.clip(light, 0, 1) ** (1 / 2.4) - 0.055)
    assert np.abs(scene.color()[0] - np.clip(coded, 0, 1) * 255).max() <= 0.51
    assert np.array_equal(scene.deep_color()[0], RAMP)


def test_a_new_camera_gives_premultiplied_colour_soft_alpha_depth_and_positions(scene, tmp_path) -> None:
    camera, output = moved(scene, 0.4), OutputSettings(format="exr", position=True)
    made = render_deep(scene, camera, RENDER, output, tmp_path, "right")
    channels = channels_of(made.color[1])
    alpha = channels["A"].astype(np.float32)
    assert (alpha == 0).any() and ((alpha > 0) & (alpha < 1)).any()
    assert (rgb_of(channels)[alpha == 0] == 0).all()
    assert 0 < made.visible_fraction.min() < 1
    seen = alpha == 1
    points = np.dstack([channels[f"P.{axis}"] for axis in "XYZ"])
    assert np.allclose(points[seen][:, 2], channels["Z"][seen], rtol=1e-5)
    pixels = points[seen] @ camera.world_to_camera[1, :3, :3].T + camera.world_to_camera[1, :3, 3]
    pixels = pixels @ camera.intrinsics[1].T
    row, column = np.nonzero(seen)
    assert np.allclose(pixels[:, 0] / pixels[:, 2], column + 0.5, atol=1e-3)
    assert np.allclose(pixels[:, 1] / pixels[:, 2], row + 0.5, atol=1e-3)


def test_every_file_says_what_it_was_made_from(scene, tmp_path) -> None:
    manifest = replace(scene.manifest, origin=FootageOrigin("walk.mov", "", "01:00:00:23"))
    scene = Scene(manifest.to_json(), {part: scene.path(part) for part in scene.manifest.files})
    output = OutputSettings(format="exr", file_name="{shot}-{version}_{frame:06}", file_version=7, first_number=1)
    made = render_deep(scene, scene.source_camera(), RENDER, output, tmp_path, "same")
    assert [path.name for path in made.color] == ["same-7_000001.exr", "same-7_000002.exr"]
    texts = read_exr_metadata(made.color[1])
    assert json.loads(texts["request"])["output"]["file_version"] == 7 and texts["scene"] == scene.digest
    assert json.loads(texts["camera"])["size"] == [WIDTH, HEIGHT] and texts["version"]
    assert json.loads(texts["footage"])["frame"] == 1
    with OpenEXR.File(str(made.color[1]), header_only=True) as file:
        code = file.header()["timeCode"]
    assert tuple(getattr(code, name) for name in ("hours", "minutes", "seconds", "frame")) == (1, 0, 1, 0)


def test_timecode_and_camera_are_openexrs_standard_attributes(scene, tmp_path) -> None:
    origin = FootageOrigin("walk.mov", "", "01:00:00:47")
    manifest = replace(scene.manifest, origin=origin, fps=Fraction(50))
    scene = Scene(manifest.to_json(), {part: scene.path(part) for part in scene.manifest.files})
    camera = moved(scene, 0.4)
    made = render_deep(scene, camera, RENDER, OutputSettings(format="exr", position=True), tmp_path, "right")
    codes = []
    for path in made.color:
        with OpenEXR.File(str(path), header_only=True) as file:
            codes.append(file.header()["timeCode"])
    assert [(code.seconds, code.frame, code.fieldPhase) for code in codes] == [(0, 23, 1), (0, 24, 0)]
    # As other programs read the file: row vectors, in a space with x right, y up and z forward.
    stored = made.color[1].read_bytes().partition(b"worldToCamera\0m44f\0")[2]
    matrix = np.frombuffer(stored[4 : 4 + 64], "<f4").reshape(4, 4)
    assert matrix[3] == pytest.approx([-0.4, 0, 0, 1]) and (matrix[:3, 3] == 0).all()
    channels = channels_of(made.color[1])
    row, column = np.argwhere(channels["A"] == 1)[-1]
    point = np.array([channels[f"P.{axis}"][row, column] for axis in "XYZ"] + [1.0]) @ matrix
    assert point[2] == pytest.approx(channels["Z"][row, column])
    lens = camera.intrinsics[1]
    assert lens[0, 0] * point[0] / point[2] + lens[0, 2] == pytest.approx(column + 0.5, abs=1e-3)
    assert lens[1, 2] - lens[1, 1] * point[1] / point[2] == pytest.approx(row + 0.5, abs=1e-3)


def test_files_are_replaced_only_when_asked_and_only_ours(scene, tmp_path) -> None:
    output = OutputSettings(format="png16")
    how = (scene, scene.source_camera(), RENDER, output, tmp_path, "same")
    (first, _), *_ = [render_deep(*how).color]
    with pytest.raises(OutputError, match="exists"):
        render_deep(*how)
    render_deep(*how, overwrite=True)
    assert any(name.startswith("ex4d_") for name in read_png_metadata(first))
    first.write_bytes(b"not ours")
    with pytest.raises(OutputError, match="did not make it"):
        render_deep(*how, overwrite=True)


def test_png_of_16_bits_is_srgb_with_straight_alpha(scene, tmp_path) -> None:
    pytest.importorskip("PyOpenColorIO")
    made = render_deep(scene, moved(scene, 0.4), RENDER, OutputSettings(format="png16"), tmp_path, "right")
    with av.open(str(made.color[0])) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "rgba64be" or frame.format.name == "rgba64le"
        values = frame.to_ndarray()
    assert len(np.unique(values)) > 256 and {0, 65535} <= set(np.unique(values[..., 3]))
    assert read_png(made.color[0]).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("kind", "codec", "bits"), [("prores4444", "prores", 10), ("dnxhr", "dnxhd", 10), ("h265", "hevc", 10)]
)
def test_movies_of_10_bits(footage, tmp_path, kind, codec, bits) -> None:
    """A ramp in sRGB, so that nothing is clipped."""
    height, width = (128, 256) if kind == "dnxhr" else (64, 64)
    ramp = np.linspace(0, 65535, width).astype(np.uint16)[None, :, None].repeat(height, 0).repeat(3, 2)
    for index in range(FRAMES):
        (tmp_path / "png").mkdir(exist_ok=True)
        write_png(tmp_path / "png" / f"{index}.png", ramp)
    np.save(tmp_path / "depth.npy", np.full((FRAMES, height, width), 3.0, np.float32))
    scene = scene_of(SourcePaths(tmp_path / "png", tmp_path / "depth.npy"), tmp_path / "scene")
    output = OutputSettings(format=kind)
    made = render_deep(scene, scene.source_camera(), RENDER, output, tmp_path / "out", "same")
    (movie,) = made.color
    assert movie.stem == "same_v001" and (made.mask is None) == (kind == "prores4444")
    assert read_metadata(movie)["ex4d_version"]
    assert deep_source(movie).bits >= bits
    shown = list(read_deep_frames(movie))
    assert len(shown) == FRAMES
    with av.open(str(movie)) as container:
        assert container.streams.video[0].codec_context.name == codec
    assert np.abs(shown[0] - ramp / 65535).mean() < 1 / 1023
    assert len(np.unique(shown[0][0])) > 0.9 * min(width, 256)


def test_the_shortest_movies_in_h265_have_times(tmp_path) -> None:
    """Several, since x265 leaves their decoding times to chance."""
    black = np.zeros((64, 64, 3), np.float32)
    for frames in (1, 2, 3) * 8:
        with DeepVideoWriter(tmp_path / "short.mp4", MOVIES["h265"], 64, 64, Fraction(24)) as movie:
            for _ in range(frames):
                movie.write(black, black[..., 0])
        with av.open(str(tmp_path / "short.mp4")) as container:
            assert sorted(packet.pts for packet in container.demux() if packet.size) == [512 * k for k in range(frames)]


def test_what_has_8_bits_only_is_refused_by_name(scene, footage, tmp_path) -> None:
    output = OutputSettings(format="exr")
    plain = reconstruct(footage, ReconstructionSettings("ramp", DepthSettings("array")), tmp_path / "plain")
    assert not plain.manifest.is_deep and plain.manifest.version == 3
    with pytest.raises(SceneError, match="--bit-depth"):
        render_deep(plain, plain.source_camera(), RENDER, output, tmp_path / "out", "same")
    for settings in (RenderSettings(convention="reference"), RenderSettings(rasterizer="nvdiffrast")):
        with pytest.raises(RequestError, match="8 bits"):
            render_deep(scene, scene.source_camera(), settings, output, tmp_path / "out", "same")
    assert not (tmp_path / "out").exists()


def test_unknown_spaces_are_told_with_similar_names(scene, tmp_path) -> None:
    pytest.importorskip("PyOpenColorIO")
    with pytest.raises(ColourSpaceError, match="ACEScg"):
        output = OutputSettings(format="exr", output_space="ACEScgg")
        render_deep(scene, scene.source_camera(), RENDER, output, tmp_path, "same")
    with pytest.raises(RequestError, match="bit_depth"):
        ReconstructionSettings("ramp", DepthSettings("array"), working_space=ACESCG)
