"""The original's numbers, through the engine's own loading code; and what `ex4d parity` reports of any case."""

import shutil

import numpy as np
import pytest
import torch

from parity.__main__ import main as parity_main
from tests.conftest import DATA


def test_the_camera_encoder_gives_the_originals_ray_latent(read_golden):
    """Runs in every clone: the golden data of the encoder alone."""
    from ex4d.generation.wan.camera_encoder import load_camera_encoder
    from parity.comparison import relative_l2

    case = read_golden("ex4d_generation_ray.npz")
    weights = {key: torch.from_numpy(value) for key, value in case.items() if key.startswith("latent_")}
    encoder = load_camera_encoder(weights, 256, DATA / "golden", device="cpu", dtype=torch.float32)
    latents = torch.cat([torch.from_numpy(case[name]) for name in ("color_latents", "mask_latents")], dim=1)
    assert relative_l2(encoder(latents).numpy(), case["ray_latent"]) < 0.01
    # Rounded where a GPU rounds, the CPU gives the original's numbers themselves.
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(latents)
    assert relative_l2(rounded.float().numpy(), case["ray_latent"]) < 1e-3


def test_generation_is_at_parity(golden_folder, capsys):
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    assert parity_main(["generation", str(golden_folder / "ex4d_generation")]) == 0
    lines = capsys.readouterr().out.splitlines()
    print(*lines, sep="\n")
    for precision in ("bf16", "float32"):
        for name in ("ray_latent", "velocity_t999", "velocity_t700", "velocity_t250", "final_latents"):
            assert any(line.startswith("ok ") and f"{name} ({precision})" in line for line in lines)
    assert lines[-1] == "16 comparisons, all within their bounds"
    # Far within them: what the original rounds is rounded here, and what it keeps in float32 is kept.
    figures = {line.split()[1]: float(line.split()[5]) for line in lines[:-1] if "(bf16)" in line}
    assert figures["ray_latent"] < 1e-4
    assert all(figures[name] < 0.0025 for name in figures if name.startswith("velocity"))
    assert figures["final_latents"] < 0.005


def test_a_lead_in_and_three_windows_are_at_parity_with_diffsynths_own_pass(golden_folder, capsys):
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    assert parity_main(["windows", str(golden_folder / "ex4d_generation")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for precision in ("bf16", "float32"):
        for name in ("lead-in of 8 frames", "window 1 of 3", "window 2 of 3", "window 3 of 3"):
            assert any(line.startswith("ok ") and f"{name} ({precision})" in line for line in lines)


@pytest.fixture
def case(golden_folder, tmp_path) -> dict[str, np.ndarray]:
    """The original's case, its weights copied to tmp_path as those of a case.npz that is still to be written."""
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    for name in ("ex4d_generation_dit.safetensors", "ex4d_generation_adapter.ckpt"):
        shutil.copyfile(golden_folder / name, tmp_path / name.replace("ex4d_generation", "case"))
    with np.load(golden_folder / "ex4d_generation.npz") as arrays:
        return dict(arrays)


def test_a_case_that_is_off_fails_whatever_type_its_arrays_have(case, tmp_path, capsys):
    case = {name: values.astype(np.float64) if values.dtype == np.float32 else values for name, values in case.items()}
    case["velocity_t700"] = 1.03 * case["velocity_t700"]
    case["velocity_t250"] = case["velocity_t250"][..., :-2]
    np.savez(tmp_path / "case.npz", **case)
    assert parity_main(["generation", str(tmp_path / "case.npz")]) == 1
    out = capsys.readouterr().out
    assert "OFF  velocity_t700 (bf16)" in out and "OFF  velocity_t250 (float32)" in out
    assert "16 comparisons, 4 off" in out


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("y", lambda values: values[:, :, :2], "invalid y of shape"),
        ("noise", lambda values: values[..., :5], "even h and w"),
        ("config", lambda values: np.array("{}"), "JSON with dim and num_heads"),
        ("config", lambda values: np.array('{"dim": 256, "num_heads": 4}'), "4 heads for a width of 256"),
    ],
)
def test_an_inconsistent_case_is_refused(case, tmp_path, capsys, name, change, message):
    np.savez(tmp_path / "case.npz", **{**case, name: change(case[name])})
    assert parity_main(["generation", str(tmp_path / "case")]) == 1
    assert message in capsys.readouterr().err


def test_a_case_that_is_cut_off_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "case.npz", depth=np.ones(1000))
    (tmp_path / "case.npz").write_bytes((tmp_path / "case.npz").read_bytes()[:2000])
    assert parity_main(["geometry", str(tmp_path / "case.npz")]) == 1
    assert "cannot be read as a case" in capsys.readouterr().err


def test_depth_is_at_parity_and_a_case_that_is_off_fails(golden_folder, tmp_path, capsys):
    pytest.importorskip("diffusers", reason="DepthCrafter needs the extra depth")
    pytest.importorskip("transformers", reason="DepthCrafter needs the extra depth")
    assert parity_main(["depth", str(golden_folder / "depthcrafter")]) == 0
    lines = capsys.readouterr().out.splitlines()
    print(*lines, sep="\n")
    for name in ("single", "windows", "guided"):
        for part in ("latents", "frames", "disparity", "depth"):
            assert any(line.startswith("ok ") and f"{name}, {part}" in line for line in lines)
    assert lines[-1] == "12 comparisons, all within their bounds"

    for folder in ("unet", "svd"):
        shutil.copytree(golden_folder / "depthcrafter" / folder, tmp_path / folder)
    with np.load(golden_folder / "depthcrafter" / "expected.npz") as arrays:
        case = {name: values for name, values in arrays.items() if name.startswith("single")}
    np.savez(tmp_path / "expected.npz", **{**case, "single_latents": 1.002 * case["single_latents"]})
    assert parity_main(["depth", str(tmp_path)]) == 1
    assert "OFF  single, latents" in capsys.readouterr().out
    del case["single_initial_noise"]
    np.savez(tmp_path / "expected.npz", **case)
    assert parity_main(["depth", str(tmp_path)]) == 1
    assert "lacks the arrays single_initial_noise" in capsys.readouterr().err


def test_geometry_is_at_parity_and_a_case_that_is_off_fails(golden_geometry, tmp_path, capsys):
    keep = {key: value for key, value in golden_geometry.items() if key in ("depth", "rgb", "frames", "intrinsics")}
    keep |= {
        key: golden_geometry[key]
        for key in ("extrinsics_30", "render_30", "mesh_vertices", "mesh_faces", "mesh_colors")
    }
    np.savez(tmp_path / "case.npz", **keep)
    assert parity_main(["geometry", str(tmp_path / "case.npz"), "--rasterizer", "warp"]) == 0
    assert "all within their bounds" in capsys.readouterr().out
    shifted = np.roll(keep["render_30"], 2, axis=2)
    np.savez(tmp_path / "case.npz", **{**keep, "render_30": shifted})
    assert parity_main(["geometry", str(tmp_path / "case.npz"), "--rasterizer", "warp"]) == 1
    assert "OFF  render_30, worst mask" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["generation", "windows", "geometry"])
def test_a_missing_or_foreign_case_is_refused(what, tmp_path, capsys):
    if what != "geometry":
        pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    path = tmp_path / "case.npz"
    assert parity_main([what, str(path)]) == 1
    assert "cannot be read as a case" in capsys.readouterr().err
    np.savez(path, depth=np.ones(3))
    assert parity_main([what, str(path)]) == 1
    assert "lacks the arrays" in capsys.readouterr().err
