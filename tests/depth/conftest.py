"""Small clips on disk, and folders of toy models in the published layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.media import FootageInfo, VideoWriter, probe

WriteClip = Callable[..., FootageInfo]


def moving_image(index: int, width: int, height: int) -> np.ndarray:
    """A bright textured square that moves to the right over a darker, textured wall."""
    y, x = np.mgrid[:height, :width]
    wall = 70 + 40 * np.sin(x / 5) * np.cos(y / 4)
    image = np.stack([wall, wall * 0.8, wall * 1.2], axis=2)
    left, size = width // 5 + index, height // 3
    square = 190 + 50 * np.sin((x - left) / 3) * np.cos(y / 3)
    inside = (x >= left) & (x < left + size) & (y >= size) & (y < 2 * size)
    image[inside] = np.stack([square, square * 0.9, square * 0.4], axis=2)[inside]
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Toy networks are faster on one thread than on several that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def write_clip(tmp_path) -> WriteClip:
    """Writes a clip of a moving square, or of given images."""

    def write(frames: int = 5, width: int = 96, height: int = 64, images=None, name: str = "clip") -> FootageInfo:
        path = tmp_path / f"{name}.mp4"
        if images is not None:
            height, width = images[0].shape[:2]
        with VideoWriter(path, width, height, 24, crf=4) as movie:
            for index in range(frames):
                movie.write(moving_image(index, width, height) if images is None else images[index])
        return probe(path)

    return write


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory) -> Path:
    """A folder with toy checkpoints of the three models that the libraries' own classes can write."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.depth.toy_checkpoints import write_depth_anything, write_depth_pro, write_depthcrafter

    folder = tmp_path_factory.mktemp("models")
    write_depthcrafter(folder)
    write_depth_anything(folder)
    write_depth_pro(folder)
    return folder


@pytest.fixture(scope="session")
def toy_newer_models(tmp_path_factory) -> Path:
    """A folder with toy checkpoints of Depth Anything 3 and MoGe-2."""
    pytest.importorskip("safetensors")
    from tests.depth.toy_checkpoints import write_depth_anything_3, write_moge

    folder = tmp_path_factory.mktemp("newer_models")
    write_depth_anything_3(folder)
    write_moge(folder)
    return folder


@pytest.fixture(scope="session")
def toy_video_models(tmp_path_factory) -> Path:
    """A folder with Video Depth Anything's toy checkpoint and nothing else."""
    pytest.importorskip("transformers")
    from tests.depth.toy_checkpoints import write_video_depth_anything

    folder = tmp_path_factory.mktemp("video_models")
    write_video_depth_anything(folder)
    return folder
