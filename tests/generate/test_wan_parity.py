"""The original's numbers, through the engine's own loading code; and what `ex4d parity` says of any case."""

import shutil

import numpy as np
import pytest
import torch

from backend.cli import main
from tests.conftest import DATA, golden


def test_the_camera_encoder_gives_the_originals_ray_latent():
    """Runs in every clone: the golden data of the encoder alone."""
    from backend.generate.wan.camera_encoder import load_camera_encoder
    from backend.parity.comparison import relative_l2

    case = golden("ex4d_generation_ray.npz")
    weights = {key: torch.from_numpy(value) for key, value in case.items() if key.startswith("latent_")}
    encoder = load_camera_encoder(weights, 256, DATA / "golden", device="cpu", dtype=torch.float32)
    latents = torch.cat([torch.from_numpy(case[name]) for name in ("color_latents", "mask_latents")], dim=1)
    assert relative_l2(encoder(latents).numpy(), case["ray_latent"]) < 0.01


def test_generation_is_at_parity(golden_folder, capsys):
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    assert main(["parity", "generation", str(golden_folder / "ex4d_generation")]) == 0
    lines = capsys.readouterr().out.splitlines()
    print(*lines, sep="\n")
    for precision in ("bf16", "float32"):
        for name in ("ray_latent", "velocity_t999", "velocity_t700", "velocity_t250", "final_latents"):
            assert any(line.startswith("ok ") and f"{name} ({precision})" in line for line in lines)
    assert lines[-1] == "16 comparisons, all within their bounds"


def test_a_case_that_is_off_fails(golden_folder, tmp_path, capsys):
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    for name in ("ex4d_generation_dit.safetensors", "ex4d_generation_adapter.ckpt"):
        shutil.copyfile(golden_folder / name, tmp_path / name.replace("ex4d_generation", "case"))
    with np.load(golden_folder / "ex4d_generation.npz") as arrays:
        case = dict(arrays)
    case["velocity_t700"] = 1.03 * case["velocity_t700"]
    np.savez(tmp_path / "case.npz", **case)
    assert main(["parity", "generation", str(tmp_path / "case.npz")]) == 1
    out = capsys.readouterr().out
    assert out.count("OFF") == 2 and "OFF  velocity_t700 (bf16)" in out and "16 comparisons, 2 off" in out


def test_geometry_is_at_parity_and_a_case_that_is_off_fails(golden_geometry, tmp_path, capsys):
    keep = {key: value for key, value in golden_geometry.items() if key in ("depth", "rgb", "frames", "intrinsics")}
    keep |= {
        key: golden_geometry[key]
        for key in ("extrinsics_30", "render_30", "mesh_vertices", "mesh_faces", "mesh_colors")
    }
    np.savez(tmp_path / "case.npz", **keep)
    assert main(["parity", "geometry", str(tmp_path / "case.npz"), "--rasterizer", "warp"]) == 0
    assert "all within their bounds" in capsys.readouterr().out
    shifted = np.roll(keep["render_30"], 2, axis=2)
    np.savez(tmp_path / "case.npz", **{**keep, "render_30": shifted})
    assert main(["parity", "geometry", str(tmp_path / "case.npz"), "--rasterizer", "warp"]) == 1
    assert "OFF  render_30, worst mask" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["generation", "geometry"])
def test_a_case_that_is_none_is_said_to_be_none(what, tmp_path, capsys):
    if what == "generation":
        pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    path = tmp_path / "case.npz"
    assert main(["parity", what, str(path)]) == 1
    assert "cannot be read as a case" in capsys.readouterr().err
    np.savez(path, depth=np.ones(3))
    assert main(["parity", what, str(path)]) == 1
    assert "lacks the arrays" in capsys.readouterr().err
