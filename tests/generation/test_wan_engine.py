"""The whole engine with small random weights: what changes the video, what does not, and what stops it."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from safetensors.torch import load_file, save_file

from ex4d.devices import DeviceError
from ex4d.generation.engine import GenerationProgress
from ex4d.generation.wan import (
    GenerationError,
    PromptError,
    WanUnavailableError,
)
from ex4d.generation.wan.encode_cache import encodes
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.shot import RequestError
from ex4d_core.wan_settings import WanSettings, wan_preset
from tests.generation.small_shots import FEW, HEIGHT, WIDTH, shot

WAN_FOLDER = "Wan-AI/Wan2.1-I2V-14B-480P"


@pytest.fixture
def generate(toy_models) -> Callable[..., np.ndarray]:
    """Runs the engine and returns the video (T, H, W, 3)."""

    def run(frames: list[RenderedFrame] | None = None, *, models: Path = toy_models, on_progress=None, **changes):
        engine = create_wan_engine(wan_preset("ex4d-reference", **{**FEW, **changes}), "cpu", MachineSettings(models))
        frames = shot() if frames is None else frames
        return np.array(list(engine.generate(frames, count=len(frames), on_progress=on_progress)))

    return run


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - two.astype(int)).mean())


def test_a_video_of_the_shots_size_and_length_comes_out(generate):
    video = generate()
    assert video.shape == (5, HEIGHT, WIDTH, 3) and video.dtype == np.uint8
    assert video.std() > 5


def test_the_same_seed_gives_the_same_video_and_another_seed_another(generate):
    first = generate()
    assert np.array_equal(first, generate())
    assert distance(first, generate(seed=1)) > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "rain at night"},
        {"negative_prompt": "static quality"},
        {"guidance": 2.0},
        {"steps": 3},
        {"shift": 2.0},
        {"erosion": (8, 8)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_changes_the_video(generate, changes):
    assert distance(generate(), generate(**changes)) > 0.05


def test_colour_and_mask_change_the_video_each_alone(generate):
    frames = shot(5)
    plain = generate(frames, erosion=(0, 0))
    color = frames[3].color.copy()
    color[:, 24:] = 255 - color[:, 24:]
    recolored = [*frames[:3], dataclasses.replace(frames[3], color=color), *frames[4:]]
    assert distance(plain, generate(recolored, erosion=(0, 0))) > 0.05
    # Black pixels that count as seen look like unseen ones; only the mask tells them apart.
    revealed = [*frames[:3], dataclasses.replace(frames[3], mask=np.ones_like(frames[3].mask)), *frames[4:]]
    assert distance(plain, generate(revealed, erosion=(0, 0))) > 0.05


def test_camera_encoder_and_ex4d_lora_change_the_video_each_alone(generate, toy_models, tmp_path):
    plain = generate()
    for part, name in (("latent_patch_embedding", "adapter"), ("lora_B", "lora")):
        folder = tmp_path / name
        shutil.copytree(toy_models, folder)
        path = folder / "EX-4D" / "ex4d.ckpt"
        tensors = torch.load(path, weights_only=True)
        torch.save({key: value * 0 if part in key else value for key, value in tensors.items()}, path)
        assert distance(plain, generate(models=folder)) > 0.05


def test_a_further_lora_is_merged_by_file_and_weight(generate, toy_models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    (folder / "loras").mkdir()
    down, up = torch.randn(2, 128), torch.randn(128, 2)
    layer = "diffusion_model.blocks.0.self_attn.v"
    save_file({f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}, folder / "loras" / "mine.safetensors")
    plain = generate(models=folder)
    strong = generate(models=folder, loras=[{"name": "mine"}])
    assert distance(plain, strong) > 0.05
    assert np.array_equal(plain, generate(models=folder, loras=[{"name": "mine", "weight": 0.0}]))
    with pytest.raises(WeightsMissingError, match=r"no LoRA 'other' .*there: mine"):
        generate(models=folder, loras=[{"name": "other"}])


def test_without_guidance_the_negative_prompt_is_not_used(generate):
    assert np.array_equal(generate(guidance=1.0), generate(guidance=1.0, negative_prompt="static rain"))


def test_bfloat16_is_close_to_float32(generate):
    assert 0 < distance(generate(), generate(precision="bf16")) < 4


def test_tea_cache_skips_steps_whose_input_hardly_changes(generate, toy_models, tmp_path):
    exact = generate(steps=6)
    # Random weights react so strongly to time that no step may be left out, whatever the threshold.
    assert np.array_equal(exact, generate(steps=6, tea_cache=1.0))
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    key = "time_projection.1.weight"
    for path in (folder / WAN_FOLDER).glob("*.safetensors"):
        tensors = load_file(path)
        if key in tensors:
            save_file({**tensors, key: tensors[key] * 0}, path)
    constant = generate(steps=6, models=folder)
    assert np.array_equal(constant, generate(steps=6, models=folder, tea_cache=1e-3))
    assert distance(constant, generate(steps=6, models=folder, tea_cache=1.0)) > 0


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_any_number_of_frames(generate, count):
    assert len(generate(shot(count))) == count


@pytest.mark.parametrize(("width", "height"), [(33, 17), (64, 16), (50, 70)])
def test_any_size_is_padded_and_cut_not_squashed(generate, width, height):
    assert generate(shot(2, width, height)).shape == (2, height, width, 3)


def test_large_frames_are_downscaled_and_upscaled_again(generate):
    frames = shot(2, 160, 96)
    small = generate(frames, max_pixels=64 * 64)
    assert small.shape == (2, 96, 160, 3)
    assert distance(small, generate(frames, max_pixels=0)) > 0.05


def test_long_shots_continue_from_generated_frames(generate):
    """Windows of 9 frames that start from the 5 before: the second begins where the first ended."""
    frames = shot(13)
    long = generate(frames, window=9, overlap=5)
    assert len(long) == 13
    assert np.array_equal(long[:9], generate(frames[:9], window=9, overlap=5))
    # The second window depends on the first one's result: through its last frames, not only its own render.
    other = [dataclasses.replace(frames[0], color=255 - frames[0].color), *frames[1:]]
    assert distance(long[9:], generate(other, window=9, overlap=5)[9:]) > 0.05


def test_frames_come_as_soon_as_their_window_is_generated(toy_models):
    """Rendering continues only when a window needs it."""
    asked = []

    def rendering() -> Iterator[RenderedFrame]:
        for frame in shot(13):
            asked.append(frame.index)
            yield frame

    settings = wan_preset("ex4d-reference", **FEW, window=9, overlap=5)
    engine = create_wan_engine(settings, "cpu", MachineSettings(toy_models))
    frames = engine.generate(rendering(), count=13)
    next(frames)
    assert asked == list(range(9))
    frames.close()


def test_every_step_is_reported_with_an_image_and_the_eta(generate):
    steps: list[GenerationProgress] = []
    generate(shot(13), on_progress=steps.append, window=9, overlap=5)
    denoising = [step for step in steps if step.stage == "denoise" and not step.parts]
    assert [(step.done, step.total) for step in denoising] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(step.image.shape == (HEIGHT // 8, WIDTH // 8, 3) for step in denoising)
    assert denoising[-1].eta_seconds == 0 < denoising[0].eta_seconds


def test_loading_is_reported_too(toy_models, tmp_path):
    """A job that loads 80 GB must show signs of life."""
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    steps: list[GenerationProgress] = []
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(folder))
    list(engine.generate(shot(1), on_progress=steps.append))
    assert {step.stage for step in steps} == {"load weights", "encode", "warm up", "denoise", "decode"}
    # Everything before the first step may take long without any report.
    stages = [step.stage for step in steps]
    assert stages[0] == "warm up" and stages[stages.index("denoise") - 1] == "warm up"


def test_the_layers_of_a_step_and_of_encoders_and_decoder_are_reported(toy_models):
    """So that a slow GPU is not taken for a hung one."""
    steps: list[GenerationProgress] = []
    encodes.clear()
    choice = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models)).networks.choice
    networks = LoadedNetworks(choice)
    list(WanEngine(wan_preset("ex4d-reference", **FEW), networks).generate(shot(5), count=5, on_progress=steps.append))
    blocks = len(networks.transformer.blocks)
    inside = [(step.stage, step.done, step.part, step.parts, step.arithmetic) for step in steps if step.parts]
    assert inside == [
        *(("warm up", 0, part, blocks, "float32") for part in range(blocks)),
        *(("denoise", 1, part, blocks, "float32") for part in range(blocks)),
    ]
    assert [step.eta_seconds is None for step in steps if step.parts] == [True] * blocks + [False] * blocks
    assert all(step.image is None for step in steps if step.parts)
    # Two prompts, and three videos of two latents each; then the decoder's layers before each latent.
    encoding = [(step.done, step.total) for step in steps if step.stage == "encode"]
    vae = networks.vae.model
    prompts = 2 * len(networks._kept.encoders[networks._keys.encoders["text_encoder"]].blocks)
    video = 2 * len([*vae.encoder.downsamples, *vae.encoder.middle])
    assert [total for done, total in encoding if done == 0] == [prompts, video, video, video]
    assert encoding[prompts:] == 3 * [(done, video) for done in range(video)]
    layers = len([*vae.decoder.middle, *vae.decoder.upsamples])
    decoding = [(step.done, step.total) for step in steps if step.stage == "decode"]
    assert decoding == 2 * [(done, layers) for done in range(layers)]


class Cancelled(Exception):
    pass


def test_a_cancel_inside_encoding_a_step_or_decoding_ends_it_there(toy_models):
    """And the networks, which stay loaded, make the next video as ever."""
    choice = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models)).networks.choice
    networks = LoadedNetworks(choice)
    engine = WanEngine(wan_preset("ex4d-reference", **FEW), networks)
    plain = list(engine.generate(shot()))
    for stage in ("encode", "warm up", "denoise", "decode"):
        seen: list[str] = []

        def cancel(step: GenerationProgress, stage=stage, seen=seen) -> None:
            seen.append(step.stage)
            if step.stage == stage and (step.part if stage in ("warm up", "denoise") else step.done) == 1:
                raise Cancelled

        encodes.clear()
        with pytest.raises(Cancelled):
            list(engine.generate(shot(), on_progress=cancel))
        assert seen[-1] == stage
        layers = [*networks.transformer.blocks, *networks.vae.model.modules()]
        assert not any(layer._forward_pre_hooks for layer in layers)
    assert np.array_equal(plain, list(engine.generate(shot())))


def test_an_exception_of_the_callback_ends_the_work_within_that_step(generate):
    seen = []

    def on_progress(step: GenerationProgress) -> None:
        if step.stage == "denoise":
            seen.append(step.done)
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(on_progress=on_progress, steps=20)
    assert seen == [1]
    # The next job is unaffected.
    assert len(generate()) == 5


def test_text_embeddings_are_kept_on_disk(toy_models, tmp_path):
    choice = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models)).networks.choice
    engine = WanEngine(wan_preset("ex4d-reference", **FEW), LoadedNetworks(choice))
    first = list(engine.generate(shot(1)))
    kept = sorted((tmp_path / "cache" / "text_embeddings").iterdir())
    assert len(kept) == 2
    networks = LoadedNetworks(choice)
    assert np.array_equal(first, list(WanEngine(engine.settings, networks).generate(shot(1))))
    loaded = [key for key in networks._kept.encoders if key.startswith("text_encoder")]
    assert not loaded, "the encoder is not even loaded for a known prompt"
    kept[0].write_bytes(b"damaged")
    assert np.array_equal(first, list(WanEngine(engine.settings, LoadedNetworks(choice)).generate(shot(1))))


def test_text_embeddings_depend_on_the_encoder_and_its_type_alone(toy_models, tmp_path):
    """Fp8 matmuls are the transformer's, and not a reason to load 11 GB again."""
    folder = shutil.copytree(toy_models, tmp_path / "models")

    def kept_after(**changes: object) -> int:
        engine = create_wan_engine(wan_preset("ex4d-reference", **{**FEW, **changes}), "cpu", MachineSettings(folder))
        list(engine.generate(shot(1)))
        return len(list((tmp_path / "cache" / "text_embeddings").iterdir()))

    assert [kept_after(precision=precision) for precision in ("fp8", "bf16", "float32")] == [2, 2, 4]
    encoder = find_wan_files(folder).text_encoder[0]
    os.utime(encoder, (0, 0))  # as if another one were put in its place
    assert kept_after() == 6


# What cannot work is an error, not a black movie.


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_rendered(toy_models):
    def never() -> Iterator[RenderedFrame]:
        raise AssertionError("rendering must not have started")
        yield

    engine = create_wan_engine(wan_preset("ex4d-reference", prompt="street " * 600), "cpu", MachineSettings(toy_models))
    with pytest.raises(PromptError, match=r"the prompt has 601 tokens, .* takes 512"):
        next(engine.generate(never()))


def test_prompts_in_other_scripts_count(generate):
    assert distance(generate(prompt="一丁七"), generate(prompt="万丈三")) > 0.05


def test_a_shot_that_starts_with_an_unseen_frame_is_refused(generate):
    frames = shot()
    nothing = np.zeros_like(frames[0].mask)
    dark = dataclasses.replace(frames[0], mask=nothing, color=frames[0].color * 0)
    with pytest.raises(RequestError, match="frame 0 of the shot shows nothing"):
        generate([dark, *frames[1:]])


def test_a_shot_of_which_erosion_leaves_nothing_is_refused(generate):
    """Three pixels in frame 0, and squares of four: the generator would start from black."""
    frames = shot()
    dot = np.zeros_like(frames[0].mask)
    dot[10:13, 20:23] = True
    frames[0] = dataclasses.replace(frames[0], mask=dot, color=frames[0].color * dot[..., None])
    with pytest.raises(RequestError, match=r"shows nothing of the footage once its mask .* 4 pixels"):
        generate(frames, erosion=(4, 4))
    assert len(generate(frames, erosion=(2, 2))) == len(frames)


def test_later_frames_may_be_unseen_altogether(generate):
    frames = shot()
    dark = [dataclasses.replace(frame, mask=frame.mask & False, color=frame.color * 0) for frame in frames[1:]]
    assert len(generate([frames[0], *dark])) == 5


def test_frames_of_different_sizes_are_refused(generate):
    with pytest.raises(GenerationError, match=r"frame 1 has colour .* but frame 0 has 48x32 pixels"):
        generate([shot()[0], shot(2, 64, 32)[1]])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_fail_the_job(toy_models, tmp_path, value):
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    path = folder / "EX-4D" / "ex4d.ckpt"
    tensors = torch.load(path, weights_only=True)
    tensors["latent_encoder.0.bias"][0] = value
    torch.save(tensors, path)
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(folder))
    with pytest.raises(GenerationError, match="NaN or infinity in denoising step 1 of 2"):
        list(engine.generate(shot()))


def test_a_vae_that_produces_nan_fails_the_job_too(toy_models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    path = folder / WAN_FOLDER / "Wan2.1_VAE.pth"
    tensors = torch.load(path, weights_only=True)
    tensors["decoder.conv1.bias"][0] = float("nan")
    torch.save(tensors, path)
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(folder))
    with pytest.raises(GenerationError, match="the VAE produced NaN"):
        list(engine.generate(shot()))


def test_without_weights_or_gpu_the_preview_engine_is_offered(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(WanUnavailableError, match=r"NVIDIA GPU .*--engine preview.*ex4d models fetch dit"):
        create_wan_engine(WanSettings(), "auto", MachineSettings(tmp_path))
    with pytest.raises(DeviceError, match="no usable CUDA device"):
        create_wan_engine(WanSettings(), "cuda:0", MachineSettings(tmp_path))


def test_a_model_of_full_size_is_refused_without_a_gpu(toy_models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    shard = next((folder / WAN_FOLDER).glob("*00001-of-00007*"))
    with open(shard, "r+b") as file:  # sparse: as large as the published one, without its bytes
        file.truncate(9 * 2**30)
    with pytest.raises(WanUnavailableError, match="needs an NVIDIA GPU"):
        create_wan_engine(WanSettings(), "cpu", MachineSettings(folder))


def test_a_shard_cut_off_while_it_was_copied_is_named(toy_models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(toy_models, folder)
    shard = next((folder / WAN_FOLDER).glob("*00003-of-00007*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(folder))
    with pytest.raises(CheckpointError, match=r"00003-of-00007.safetensors .*may be cut off"):
        list(engine.generate(shot()))
