"""Blender's mist pass as depth: with its start and depth stated, and the lens known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from ex4d.cli.main import main
from ex4d.depth import DepthError, DepthFiles, intrinsics_from
from ex4d.media import FootageInfo, write_png
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.sources import MIST_FALLOFFS, MistPass

FRAMES, HEIGHT, WIDTH = 3, 16, 24
FOOTAGE = FootageInfo(path=Path("clip.mp4"), width=WIDTH, height=HEIGHT, frames=FRAMES, fps=Fraction(24))
LENS = intrinsics_from(WIDTH, HEIGHT, focal_mm=24)
# Rendered by Blender 5.0 (Cycles, one sample a pixel, 24 mm lens): a sphere before a tilted plane, mist from 2 over 20.
RENDERED = Path(__file__).resolve().parents[1] / "data" / "golden" / "blender_mist.npz"


def write_exrs(folder: Path, **channels: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for index in range(FRAMES):
        named = {name.replace("_", "."): value for name, value in channels.items()}
        OpenEXR.File(header, named).write(str(folder / f"{index}.exr"))
    return folder


def depth_of(path: Path, **options) -> np.ndarray:
    return np.stack(list(DepthFiles(path, intrinsics=LENS, **options).estimate(FOOTAGE)))


@pytest.fixture(scope="module")
def rendered() -> dict[str, np.ndarray]:
    with np.load(RENDERED) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("falloff", MIST_FALLOFFS)
def test_mist_is_the_depth_that_blender_rendered_beside_it(tmp_path, rendered, falloff):
    write_exrs(tmp_path / "mist", ViewLayer_Mist_Z=rendered[falloff])
    found = depth_of(tmp_path / "mist", mist=MistPass(2, 20, falloff))
    error = np.abs(found / rendered["z"] - 1)
    print(f"{falloff}: largest error {error.max():.1e}")
    assert found.shape == (FRAMES, HEIGHT, WIDTH) and error.max() < 1e-4
    # Distances along rays, taken for depth, would be wrong towards the corners.
    assert (2 + 20 * rendered["linear"] / rendered["z"]).max() > 1.1


def test_half_precision_of_the_file_costs_a_thousandth(tmp_path, rendered):
    write_exrs(tmp_path / "mist", Mist_V=rendered["linear"].astype(np.float16))
    assert np.abs(depth_of(tmp_path / "mist", mist=MistPass(2, 20)) / rendered["z"] - 1).max() < 2e-3


def test_a_mist_pass_is_never_taken_for_depth(tmp_path, rendered):
    folder = write_exrs(tmp_path / "mist", ViewLayer_Mist_Z=rendered["linear"])
    with pytest.raises(DepthError, match=r"ViewLayer.Mist.Z.*--mist START DEPTH"):
        depth_of(folder)
    both = write_exrs(tmp_path / "both", ViewLayer_Mist_Z=rendered["linear"], ViewLayer_Depth_Z=rendered["z"])
    assert np.array_equal(depth_of(both)[0], rendered["z"])
    assert np.allclose(depth_of(both, mist=MistPass(2, 20)), rendered["z"], rtol=1e-4)
    with pytest.raises(DepthError, match="from 0 to 1, not"):
        depth_of(both, mist=MistPass(2, 20), key="ViewLayer.Depth.Z")
    with pytest.raises(DepthError, match=r"mist .*ViewLayer.Depth.Z"):
        depth_of(write_exrs(tmp_path / "z", ViewLayer_Depth_Z=rendered["z"]), mist=MistPass(2, 20))


def test_points_that_the_mist_does_not_measure_are_reported(tmp_path, rendered):
    full = rendered["linear"].copy()
    full[0, 5] = 1
    folder = write_exrs(tmp_path / "full", Mist_Z=full)
    with pytest.raises(DepthError, match=r"1 infinite of 384 .*x=5 y=0.*--invalid-depth far"):
        depth_of(folder, mist=MistPass(2, 20))
    far = depth_of(folder, mist=MistPass(2, 20), invalid="far")
    assert far[0, 0, 5] == far[0].max()
    full[0, 5] = 0
    with pytest.raises(DepthError, match=r"1 of 384 .*\(2\)"):
        depth_of(write_exrs(tmp_path / "near", Mist_Z=full), mist=MistPass(2, 20), invalid="far")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((-1, 20), "start .*-1"),
        ((0, 0), "depth .*not 0"),
        ((0, float("nan")), "depth .*nan"),
        ((0, 20, "cubic"), "falloff .*linear, quadratic.*inverse-quadratic.*'cubic'"),
    ],
)
def test_invalid_mist(settings, message):
    with pytest.raises(RequestError, match=message):
        MistPass(*settings)


def test_a_mist_pass_needs_a_lens_and_an_exr(tmp_path, rendered):
    mist = MistPass(2, 20)
    with pytest.raises(DepthError, match="--fov"):
        DepthFiles(tmp_path, mist=mist)
    with pytest.raises(DepthError, match="inverse"):
        DepthFiles(tmp_path, mist=mist, intrinsics=LENS, inverse=True)
    np.savez(tmp_path / "d.npz", depth=np.ones((FRAMES, HEIGHT, WIDTH)))
    with pytest.raises(DepthError, match="EXR"):
        depth_of(tmp_path / "d.npz", mist=mist)
    (tmp_path / "png").mkdir()
    for index in range(FRAMES):
        write_png(tmp_path / "png" / f"{index}.png", np.full((HEIGHT, WIDTH), 900, np.uint16))
    with pytest.raises(DepthError, match="PNG"):
        depth_of(tmp_path / "png", mist=mist)


def test_the_command(tmp_path, rendered, write_clip, capsys):
    footage = write_clip(frames=FRAMES, width=WIDTH, height=HEIGHT)
    folder = write_exrs(tmp_path / "mist", ViewLayer_Mist_Z=rendered["quadratic"])
    options = [
        "--depth",
        str(folder),
        "--mist",
        "2",
        "20",
        "--mist-falloff",
        "quadratic",
        "-o",
        str(tmp_path / "scene"),
    ]
    assert main(["reconstruct", str(footage.path), *options]) == 1
    assert "Give the lens that it was rendered with" in capsys.readouterr().err
    assert main(["reconstruct", str(footage.path), *options, "--focal-mm", "24"]) == 0
    assert np.allclose(Scene.open(tmp_path / "scene").depth()[0], rendered["z"], rtol=1e-4)


def test_inverse_depth_in_exr_and_png(tmp_path):
    """Where files hold 1 / depth, whatever the format."""
    depth = np.linspace(1, 9, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    folder = write_exrs(tmp_path / "exr", Z=1 / depth)
    assert np.allclose(depth_of(folder, inverse=True), depth)
    (tmp_path / "png").mkdir()
    for index in range(FRAMES):
        write_png(tmp_path / "png" / f"{index}.png", np.round(65535 / depth).astype(np.uint16))
    assert np.allclose(depth_of(tmp_path / "png", inverse=True, scale=65535), depth, rtol=1e-3)
    nothing = np.where(depth > 8, 0, 1 / depth)
    with pytest.raises(DepthError, match="infinite"):
        depth_of(write_exrs(tmp_path / "sky", Z=nothing.astype(np.float32)), inverse=True)
