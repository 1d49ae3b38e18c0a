"""Finals are enlarged by interpolation, or by an upscaler's file where it is there; takes say which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from ex4d.cli.main import main
from ex4d.generation.wan.enlarging import INTERPOLATION, Upscaler, create_enlarger, why_no_upscaler
from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.weights.errors import CheckpointError, WeightsMissingError

IMAGES = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def write_upscaler(models: Path, name: str = "small", channels: int = 3, convolutions: int = 2) -> Path:
    """A Real-ESRGAN of the compact kind that doubles sides, with random weights."""
    compact = pytest.importorskip("spandrel.architectures.Compact", reason="upscalers need the extra upscale")
    torch.manual_seed(1)
    network = compact.Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=convolutions, upscale=2)
    path = models / "upscalers" / f"{name}.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params": network.state_dict()}, path)
    return path


def test_without_an_upscaler_frames_are_interpolated(tmp_path):
    enlarge = create_enlarger("auto", tmp_path, "cpu")
    assert enlarge is INTERPOLATION is create_enlarger("bicubic", tmp_path, "cpu")
    expected = functional.interpolate(IMAGES, (48, 80), mode="bicubic").clamp(-1, 1)
    assert torch.equal(enlarge(IMAGES, 80, 48), expected)
    assert "there is no upscaler in" in why_no_upscaler(tmp_path)
    with pytest.raises(WeightsMissingError, match=r"no upscaler 'fine' in .*upscalers \(there: none\); put fine.pth"):
        create_enlarger("fine", tmp_path, "cpu")


def test_without_spandrel_a_file_is_not_used_and_the_command_that_helps_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("ex4d.generation.wan.enlarging.find_spec", lambda name: None)
    path = tmp_path / "upscalers" / "fine.pth"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert create_enlarger("auto", tmp_path, "cpu") is INTERPOLATION
    assert "upscale]" in why_no_upscaler(tmp_path)
    with pytest.raises(WanUnavailableError, match=r"install it with: pip install .*upscale\]"):
        create_enlarger("fine", tmp_path, "cpu")


def test_a_file_in_the_folder_enlarges_and_is_scaled_to_the_size_that_is_wanted(tmp_path):
    write_upscaler(tmp_path)
    enlarge = create_enlarger("auto", tmp_path, "cpu")
    assert enlarge.name == "small (RealESRGAN Compact, 2x)" and not why_no_upscaler(tmp_path)
    doubled = enlarge(IMAGES, 80, 48)
    assert doubled.shape == (2, 3, 48, 80) and doubled.abs().max() <= 1
    assert not torch.allclose(doubled, INTERPOLATION(IMAGES, 80, 48), atol=0.05)
    other = enlarge(IMAGES, 100, 60)
    assert other.shape == (2, 3, 60, 100)
    means = (functional.avg_pool2d(images, images.shape[-2:]) for images in (doubled, other))
    assert torch.allclose(*means, atol=0.02)
    assert torch.equal(enlarge(IMAGES, 20, 12), INTERPOLATION(IMAGES, 20, 12)), "nothing is enlarged"


def test_large_frames_are_enlarged_in_tiles_without_seams(tmp_path, monkeypatch):
    enlarge = Upscaler(write_upscaler(tmp_path, convolutions=6), "cpu")
    whole = enlarge(IMAGES, 80, 48)
    monkeypatch.setattr("ex4d.generation.wan.enlarging._TILE", 16)
    assert torch.allclose(enlarge(IMAGES, 80, 48), whole, atol=1e-5)
    monkeypatch.setattr("ex4d.generation.wan.enlarging._AROUND", 0)
    assert not torch.allclose(enlarge(IMAGES, 80, 48), whole, atol=1e-3), "tiles alone would show"


@pytest.mark.gpu
def test_half_precision_on_a_gpu_gives_nearly_the_same(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    path = write_upscaler(tmp_path, convolutions=6)
    on_gpu = Upscaler(path, "cuda:0")(IMAGES.cuda(), 100, 60)
    assert on_gpu.device.type == "cuda"
    assert torch.allclose(on_gpu.cpu(), Upscaler(path, "cpu")(IMAGES, 100, 60), atol=0.02)


def test_files_of_other_networks_are_refused_before_any_work(tmp_path):
    with pytest.raises(CheckpointError, match="takes 1 and makes 1 channels"):
        Upscaler(write_upscaler(tmp_path, channels=1), "cpu")
    other = tmp_path / "upscalers" / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(CheckpointError, match=r"other.pth is no upscaler that spandrel knows"):
        create_enlarger("other", tmp_path, "cpu")


def test_a_take_says_what_it_was_generated_at_and_how_it_was_enlarged(
    toy_models, small_scene, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    words = ["generate", str(small_scene.folder), "--engine", "wan", "--steps", "1", "--guidance", "1"]
    words += ["--precision", "float32", "--frames", "1", "--size", "144x96", "--device", "cpu"]
    assert main([*words, "--working-size", "96x64", "--out", str(tmp_path / "take")]) == 0
    assert "generated at 96x64, enlarged to 144x96 by bicubic interpolation" in capsys.readouterr().err
    made_by = json.loads((tmp_path / "take" / "request.json").read_text())["made_by"]
    assert (made_by["generated_at"], made_by["enlarged_by"]) == ([96, 64], "bicubic interpolation")
    with pytest.raises(SystemExit):
        main([*words, "--working-size", "large", "--out", str(tmp_path / "other")])
    assert "invalid working size 'large': expected 512x512, 832x480" in capsys.readouterr().err
