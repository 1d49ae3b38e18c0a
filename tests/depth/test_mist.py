"""Blender's mist pass as depth: with its start and depth stated, and the lens known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from ex4d.cli.main import main
from ex4d.depth import DepthError, DepthFiles, MistSettings, intrinsics_from
from ex4d.media import FootageInfo, write_png
from ex4d_core.scene import Scene
from ex4d_core.sources import MIST_FALLOFFS

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
    return np.stack(list(DepthFiles(path, lens=LENS, **options).estimate(FOOTAGE)))


@pytest.fixture(scope="module")
def rendered() -> dict[str, np.ndarray]:
    with np.load(RENDERED) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("falloff", MIST_FALLOFFS)
def test_mist_is_the_depth_that_blender_rendered_beside_it(tmp_path, rendered, falloff):
    write_exrs(tmp_path / "mist", ViewLayer_Mist_Z=rendered[falloff])
    found = depth_of(tmp_path / "mist", mist=MistSettings(2, 20, falloff))
    error = np.abs(found / rendered["z"] - 1)
    print(f"{falloff}: largest error {error.max():.1e}")
    assert found.shape == (FRAMES, HEIGHT, WIDTH) and error.max() < 1e-4
    # Distances along rays, taken for depth, would be wrong towards the corners.
    assert (2 + 20 * rendered["linear"] / rendered["z"]).max() > 1.1


def test_half_precision_of_the_file_costs_a_thousandth(tmp_path, rendered):
    write_exrs(tmp_path / "mist", Mist_V=rendered["linear"].astype(np.float16))
    assert np.abs(depth_of(tmp_path / "mist", mist=MistSettings(2, 20)) / rendered["z"] - 1).max() < 2e-3


def test_a_mist_pass_is_never_taken_for_depth(tmp_path, rendered):
    folder = write_exrs(tmp_path / "mist", ViewLayer_Mist_Z=rendered["linear"])
    with pytest.raises(DepthError, match=r"has a mist pass \(ViewLayer.Mist.Z\) and no depth pass.*--mist START DEPTH"):
        depth_of(folder)
    both = write_exrs(tmp_path / "both", ViewLayer_Mist_Z=rendered["linear"], ViewLayer_Depth_Z=rendered["z"])
    assert np.array_equal(depth_of(both)[0], rendered["z"])
    assert np.allclose(depth_of(both, mist=MistSettings(2, 20)), rendered["z"], rtol=1e-4)
    with pytest.raises(DepthError, match=r"mist goes from 0 to 1, but this is .*do not call it mist"):
        depth_of(both, mist=MistSettings(2, 20), key="ViewLayer.Depth.Z")
    with pytest.raises(DepthError, match=r"has no mist channel among ViewLayer.Depth.Z"):
        depth_of(write_exrs(tmp_path / "z", ViewLayer_Depth_Z=rendered["z"]), mist=MistSettings(2, 20))


def test_what_the_mist_cannot_tell_is_said(tmp_path, rendered):
    full = rendered["linear"].copy()
    full[0, 5] = 1
    folder = write_exrs(tmp_path / "full", Mist_Z=full)
    with pytest.raises(
        DepthError, match=r"1 infinite of 384 depth values, the first at pixel x=5 y=0.*--invalid-depth far"
    ):
        depth_of(folder, mist=MistSettings(2, 20))
    far = depth_of(folder, mist=MistSettings(2, 20), invalid="far")
    assert far[0, 0, 5] == far[0].max()
    full[0, 5] = 0
    with pytest.raises(DepthError, match="1 of 384 points have no mist: they are nearer than its start"):
        depth_of(write_exrs(tmp_path / "near", Mist_Z=full), mist=MistSettings(2, 20), invalid="far")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((-1, 20), "mist from -1 over 20 is not possible"),
        ((0, 0), "mist from 0 over 0 is not possible"),
        ((0, float("nan")), "not possible"),
        ((0, 20, "cubic"), "falloff 'cubic' is not known. Choose one of linear, quadratic, inverse-quadratic"),
    ],
)
def test_impossible_mist(settings, message):
    with pytest.raises(DepthError, match=message):
        MistSettings(*settings)


def test_a_mist_pass_needs_a_lens_and_an_exr(tmp_path, rendered):
    mist = MistSettings(2, 20)
    with pytest.raises(DepthError, match="distances along rays, which the lens turns into depth"):
        DepthFiles(tmp_path, mist=mist)
    with pytest.raises(DepthError, match="cannot be inverse depth, too"):
        DepthFiles(tmp_path, mist=mist, lens=LENS, inverse=True)
    np.savez(tmp_path / "d.npz", depth=np.ones((FRAMES, HEIGHT, WIDTH)))
    with pytest.raises(DepthError, match="read from EXR files"):
        depth_of(tmp_path / "d.npz", mist=mist)
    (tmp_path / "png").mkdir()
    for index in range(FRAMES):
        write_png(tmp_path / "png" / f"{index}.png", np.full((HEIGHT, WIDTH), 900, np.uint16))
    with pytest.raises(DepthError, match="read from EXR files, and these are PNGs"):
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
