"""What a run shows in TensorBoard: losses, learning rate, speed, and sample videos with their masks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ex4d.media.video_writer import VideoWriter
from ex4d.training.errors import TrainingUnavailableError
from ex4d_core.durable_files import make_folder

if TYPE_CHECKING:
    from ex4d.training.trainer import StepResult

# Frames a second of sample videos: of Wan's own videos.
_FPS = 16
_QUARTERS = ("0 to 25 %", "25 to 50 %", "50 to 75 %", "75 to 100 %")


class TrainingLog:
    """Writes a run's events; what a run that is resumed did after its last state is hidden and written again."""

    def __init__(self, folder: Path, step: int):
        """Continue after a step.

        Raises:
            TrainingUnavailableError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingUnavailableError.without(error) from error
        make_folder(folder)
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def step(self, result: StepResult) -> None:
        """One step's figures."""
        add = self._writer.add_scalar
        add("loss", result.loss, result.step)
        for quarter, error in result.by_noise.items():
            add(f"error/noise {_QUARTERS[quarter]}", error, result.step)
        add("gradient norm", result.gradient_norm, result.step)
        add("learning rate", result.learning_rate, result.step)
        add("seconds a step", result.seconds, result.step)

    def video(self, frames: np.ndarray, step: int, folder: Path) -> Path:
        """Show frames (T, H, W, 3) uint8, and write them to an .mp4 in a folder; returns its path."""
        from tensorboard.compat.proto.summary_pb2 import (
            Summary,  # pyright: ignore[reportAttributeAccessIssue] (generated)
        )

        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_gif(frames))
        tag = "masked video, mask, sample, source"
        # The writer's own function for videos needs moviepy.
        writer = self._writer.file_writer
        assert writer is not None, "the writer is open"
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        self._writer.flush()
        make_folder(folder)
        path = folder / f"step-{step:08d}.mp4"
        with VideoWriter(path, width, height, _FPS) as video:
            for frame in frames:
                video.write(frame)
        return path

    def close(self) -> None:
        """Have all events on disk."""
        self._writer.close()


def _gif(frames: np.ndarray) -> bytes:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=1000 // _FPS, loop=0)
    return buffer.getvalue()
