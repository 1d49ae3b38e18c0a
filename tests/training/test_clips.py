"""From footage to windows: folders and CSV files of clips, cuts, still and broken clips, framing, and the plan."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ex4d.media import VideoWriter
from ex4d.training.build_plan import BuildPlan, make_plan
from ex4d.training.clip_list import Clip, list_clips
from ex4d.training.clip_scan import STILL, TOO_SHORT, UNREADABLE, scan_clip
from ex4d.training.dataset_settings import DatasetSettings
from ex4d.training.errors import TrainingDataError
from ex4d.training.framing import Framing
from ex4d.training.manifest import FORMAT
from ex4d_core.errors import RequestError

SMALL = DatasetSettings(frames=5, size=(32, 32), still=0.01)


def image(seed: int, shift: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 64, (6, 12, 3), dtype=np.uint8)
    coarse[..., seed % 3] += 160  # shots have colours of their own, as detection of cuts expects
    return np.roll(coarse.repeat(8, 0).repeat(8, 1), shift, axis=1)[:, :64]


def write_video(path, *shots: tuple[int, int, int]) -> None:
    """Shots of a seed, some frames, and a motion in pixels a frame."""
    with VideoWriter(path, 64, 48, Fraction(24)) as writer:
        for seed, frames, motion in shots:
            for frame in range(frames):
                writer.write(image(seed, motion * frame))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A moving clip with a cut, one that stands still, one that is too short, and one that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "below").mkdir()
    write_video(folder / "cut.mp4", (0, 13, 2), (1, 7, 2))
    write_video(folder / "below" / "still.mp4", (2, 6, 0))
    write_video(folder / "short.mp4", (3, 3, 2))
    (folder / "broken.mp4").write_bytes(b"no video at all" * 100)
    return folder


def test_windows_lie_between_cuts_and_what_cannot_be_used_is_counted(clips):
    scan = scan_clip(clips / "cut.mp4", SMALL)
    assert (scan.starts, scan.frames, scan.cuts, scan.dropped) == ((0, 5, 13), 20, 1, {})
    assert scan_clip(clips / "below" / "still.mp4", SMALL).dropped == {STILL: 1}
    assert scan_clip(clips / "short.mp4", SMALL).dropped == {TOO_SHORT: 1}
    broken = scan_clip(clips / "broken.mp4", SMALL)
    assert broken.dropped == {UNREADABLE: 1} and "broken.mp4" in broken.problem


def test_windows_may_overlap_and_be_limited(clips):
    overlapping = DatasetSettings(frames=5, size=(32, 32), stride=2)
    assert scan_clip(clips / "cut.mp4", overlapping).starts == (0, 2, 4, 6, 8, 13, 15)
    few = DatasetSettings(frames=5, size=(32, 32), stride=2, windows=3)
    assert scan_clip(clips / "cut.mp4", few).starts == (0, 6, 15)


def test_a_folder_has_videos_image_folders_and_captions_beside_them(clips, tmp_path):
    for name in ("a.mp4", "b.mov", "notes.pdf", "b.txt"):
        (tmp_path / name).write_text(" a  street\nat night\n" if name == "b.txt" else "")
    (tmp_path / "shot").mkdir()
    (tmp_path / "shot" / "0001.png").write_text("")
    (tmp_path / "shot.txt").write_text("a pond")
    listed = list_clips(tmp_path, "rain")
    assert [(clip.footage[len(str(tmp_path)) + 1 :], clip.caption) for clip in listed] == [
        ("a.mp4", "rain"),
        ("b.mov", "a street at night"),
        ("shot", "a pond"),
    ]
    with pytest.raises(TrainingDataError, match=r"1 of 3 clips have no caption, the first of them .*a\.mp4"):
        list_clips(tmp_path, "")


@pytest.mark.parametrize("changed", ["shot_0002.png", "depth_0001.exr", "solve/sparse/0/images.txt"])
def test_changed_files_of_footage_depth_and_camera_are_noticed(tmp_path, changed):
    (tmp_path / "solve" / "sparse" / "0").mkdir(parents=True)
    for name in ("shot_0001.png", "shot_0002.png", "depth_0001.exr", "solve/sparse/0/images.txt"):
        (tmp_path / name).write_text("before")
    csv = tmp_path / "list.csv"
    csv.write_text("clip,depth,camera\nshot_%04d.png,depth_####.exr,solve\n")
    plan = BuildPlan(FORMAT, SMALL, tuple(list_clips(csv, "rain")), (), {})
    plan.require_same(SMALL, list_clips(csv, "rain"), tmp_path)
    (tmp_path / changed).write_text("changed")
    with pytest.raises(TrainingDataError, match="identity was"):
        plan.require_same(SMALL, list_clips(csv, "rain"), tmp_path)


def test_a_csv_file_names_clips_captions_depth_and_cameras(tmp_path):
    (tmp_path / "depth.npz").write_bytes(b"")
    csv = tmp_path / "list.csv"
    csv.write_text('clip,caption,depth,camera,fov\na.mp4,"a street, wide",depth.npz,still,55\nb.mp4,,,,\n')
    first, second = list_clips(csv, "rain")
    assert first.footage == str(tmp_path / "a.mp4") and first.depth == str(tmp_path / "depth.npz")
    assert (first.caption, first.camera, first.fov) == ("a street, wide", "still", 55.0)
    assert (second.caption, second.depth, second.camera, second.fov) == ("rain", "", "", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("footage\na.mp4\n", "unknown column 'footage'"),
        ("caption\nrain\n", "no column clip"),
        ("clip,fov\na.mp4,wide\n", "line 2: invalid fov 'wide'"),
        ("clip,fov\na.mp4,200\n", "line 2: fov must be"),
        ("clip,caption\na.mp4\n", "line 2 has another number"),
        ("clip,depth\na.mp4,gone.npz\n", r"line 2: .*gone\.npz does not exist"),
        ("clip,camera\na.mp4,cameras.npz\n", "line 2: a camera file needs depth files"),
        ("clip\n", "has no clips"),
    ],
)
def test_a_csv_file_that_cannot_be_used_says_where(tmp_path, text, said):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(TrainingDataError, match=said):
        list_clips(tmp_path / "list.csv", "rain")


def test_nothing_to_list_is_said(tmp_path):
    with pytest.raises(TrainingDataError, match="has no clips"):
        list_clips(tmp_path, "rain")
    with pytest.raises(TrainingDataError, match="does not exist"):
        list_clips(tmp_path / "gone", "rain")


def test_a_plan_has_every_window_in_one_shard_and_mixes_clips(clips):
    settings = DatasetSettings(frames=5, size=(32, 32), stride=2, shard_samples=4, masks=2)
    plan = make_plan(list_clips(clips, "rain"), settings)
    windows = [(window.clip, window.start) for shard in plan.shards for window in shard]
    assert len(windows) == len(set(windows)) == 7 and [len(shard) for shard in plan.shards] == [2, 2, 2, 1]
    assert plan.samples == 14 and windows != sorted(windows)
    keys = [plan.key(s, w, m) for s, shard in enumerate(plan.shards) for w in range(len(shard)) for m in range(2)]
    assert len(set(keys)) == 14
    # Windows of 5 frames every 2: the still clip and the short one have one each that cannot be used.
    assert {name: plan.counts[name] for name in (UNREADABLE, TOO_SHORT, STILL)} == {
        UNREADABLE: 1,
        TOO_SHORT: 1,
        STILL: 1,
    }
    assert (plan.counts["clips"], plan.counts["cuts"], plan.counts["frames"]) == (4, 1, 29)
    assert len(plan.problems) == 1


def test_a_build_is_continued_with_what_it_was_begun_with(clips, tmp_path):
    listed = list_clips(clips, "rain")
    plan = make_plan(listed, SMALL)
    plan.save(tmp_path)
    again = BuildPlan.load(tmp_path)
    assert again == plan
    again.require_same(SMALL, listed, tmp_path)
    with pytest.raises(TrainingDataError, match=r"seed was 0 and is 1; .*moves\.tries|moves\.tries was 8 and is 9"):
        changed = DatasetSettings.from_wire({**SMALL.to_wire(), "seed": 1})
        changed = DatasetSettings.from_wire({**changed.to_wire(), "moves": {**SMALL.moves.to_wire(), "tries": 9}})
        again.require_same(changed, listed, tmp_path)
    with pytest.raises(TrainingDataError, match="caption was 'rain' and is 'snow'"):
        again.require_same(SMALL, list_clips(clips, "snow"), tmp_path)
    with pytest.raises(TrainingDataError, match=r"short\.mp4 is gone"):
        again.require_same(SMALL, listed[:-1], tmp_path)
    (tmp_path / "build.json").write_text("{")
    with pytest.raises(TrainingDataError, match="cannot be read"):
        BuildPlan.load(tmp_path)


def test_footage_without_a_window_is_refused_with_the_reasons(clips):
    with pytest.raises(TrainingDataError, match=r"none of 2 clips has 5 frames .*1 shots too short"):
        make_plan([Clip(str(clips / "short.mp4"), "rain"), Clip(str(clips / "broken.mp4"), "rain")], SMALL)


def test_framing_covers_the_samples_with_the_middle_of_the_footage():
    framing = Framing(200, 100, (64, 64))
    assert framing.scaled == (128, 64) and framing.corner == (32, 0)
    depth = np.arange(200, dtype=np.float32)[None].repeat(100, 0)
    framed = framing.depth(depth)
    assert framed.shape == (64, 64) and framed[0, 0] == 50 and framed[0, -1] == 149
    lens = framing.intrinsics(np.array([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]))
    np.testing.assert_allclose(lens, [[64, 0, 32], [0, 64, 32], [0, 0, 1]])
    assert framing.color(np.zeros((100, 200, 3), np.uint8)).shape == (64, 64, 3)
    wide = Framing(720, 576, (64, 64), pixel_aspect=1.5)
    assert wide.scaled == (120, 64)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"frames": 6}, "4n"), ({"size": (500, 512)}, "multiples of 16"), ({"erosion": (8, 2)}, "erosion")],
)
def test_settings_that_no_network_takes_are_refused(values, named):
    with pytest.raises(RequestError, match=named):
        DatasetSettings(**values)
