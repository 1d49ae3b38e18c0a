"""Footage of phones, editors and other tools comes out in the right frames, at the right rate, in true colours."""

from __future__ import annotations

import gc
import importlib.util
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import OpenEXR
import pytest
from PIL import Image, ImageCms, features

from ex4d.media import MediaError, probe, read_frames, write_png
from ex4d.media.timeline import constant_rate
from ex4d_core.errors import RequestError
from ex4d_core.reconstruction import frame_rate_from_text

CASES = Path(__file__).parents[1] / "data" / "cases"
_spec = importlib.util.spec_from_file_location("chart", Path(__file__).with_name("chart.py"))
chart = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chart)


def numbers(path, **options) -> list[int]:
    return [chart.number_of(frame) for frame in read_frames(path, **options)]


def wide_profile() -> bytes:
    """An ICC profile whose red and green are swapped against sRGB's, so that a conversion cannot be overlooked."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.find(b"rXYZ"), profile.find(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


# Profiles


def test_images_with_a_profile_are_read_again_and_again():
    for _ in range(20):
        frame = next(read_frames(CASES / "01_icc_png"))
        gc.collect()
    assert chart.largest_difference(frame) <= 1


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_profile_is_converted(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(chart.chart()).save(path, icc_profile=wide_profile(), quality=95)
    info, frame = probe(tmp_path), next(read_frames(tmp_path))
    assert "ICC profile" in info.notes[0]
    assert np.abs(chart.patch(frame, "red") - (0, 255, 0)).max() <= 6
    assert np.abs(chart.patch(frame, "skin") - (120, 200, 90)).max() <= 6


@pytest.mark.parametrize("container", ["a.mov", "a.apng"])
def test_a_profile_within_a_video_of_pngs_is_converted(tmp_path, container):
    images = [Image.fromarray(chart.chart(number)) for number in range(3)]
    path = tmp_path / container
    if container == "a.apng":
        images[0].save(path, "PNG", save_all=True, append_images=images[1:], icc_profile=wide_profile(), duration=40)
    else:
        with av.open(str(path), "w") as output:
            stream = output.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = 320, 192, "rgb24"
            for number, image in enumerate(images):
                image.save(tmp_path / "one.png", icc_profile=wide_profile())
                packet = av.Packet((tmp_path / "one.png").read_bytes())
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                packet.is_keyframe = True
                output.mux(packet)
    for _ in range(5):
        frames = list(read_frames(path))
        gc.collect()
    assert [chart.number_of(frame) for frame in frames] == [0, 1, 2]
    assert np.abs(chart.patch(frames[0], "red") - (0, 255, 0)).max() <= 2


# Trims


def test_a_trimmed_movie_has_the_frames_that_players_show():
    info = probe(CASES / "02_trimmed.mp4")
    assert (info.frames, info.fps) == (82, 30)
    assert numbers(CASES / "02_trimmed.mp4") == list(range(8, 90))
    assert numbers(CASES / "02_trimmed.mp4", start=40, count=5) == [48, 49, 50, 51, 52]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(("group", "reordered", "cut"), [(4, 0, 6), (12, 2, 5), (30, 3, 17), (30, 0, 29)])
def test_trims_into_any_group_of_pictures(tmp_path, make_video, name, codec, group, reordered, cut):
    options = {"g": str(group), "bf": str(reordered), "sc_threshold": "0"}
    if codec == "libx265":
        options = {
            "x265-params": f"keyint={group}:min-keyint={group}:bframes={reordered}:scenecut=0:open-gop=0:log-level=none"
        }
    images = [chart.chart(number) for number in range(40)]
    whole = make_video(f"whole-{name}", images=images, size=(320, 192), codec=codec, options=options)
    trimmed = tmp_path / name
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        shift = round(Fraction(cut, 25) / stream.time_base)
        first = (cut // group) * group * round(Fraction(1, 25) / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is None or packet.pts < first:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            output.mux(packet)
    assert probe(trimmed).frames == 40 - cut
    assert numbers(trimmed) == list(range(cut, 40))


# Rates


def test_footage_with_a_missing_frame_keeps_its_rate():
    info = probe(CASES / "03_one_dropped.mp4")
    assert (info.frames, info.fps) == (100, 30)
    assert "1 frames shown again, none dropped" in info.notes[0]
    shown = numbers(CASES / "03_one_dropped.mp4")
    assert len(set(shown)) == 99


def test_unequal_delays_of_a_gif_become_held_frames():
    info = probe(CASES / "03_delays.gif")
    assert (info.frames, info.fps) == (19, 10)
    assert numbers(CASES / "03_delays.gif") == [0, 1, *(5 * [2]), 3, 4, *(10 * [5])]


@pytest.mark.parametrize(("delays", "frames"), [((100, 100, 100, 2000), 23), ((40, 40, 40, 400), 13)])
def test_a_gif_holds_its_last_frame_as_long_as_it_says(tmp_path, delays, frames):
    images = [Image.fromarray(chart.chart(number)) for number in range(4)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=list(delays))
    info = probe(tmp_path / "a.gif")
    assert (info.frames, info.fps) == (frames, Fraction(1000, delays[0]))
    assert numbers(tmp_path / "a.gif") == [0, 1, 2, *[3] * (frames - 3)]
    assert not any("transparency" in note for note in info.notes)


def test_rounded_time_stamps_are_the_nominal_rate():
    assert probe(CASES / "03_5994.mkv").fps == Fraction(60000, 1001)


def timeline(times, tick=Fraction(1, 90000), declared=()):
    stamps = np.round(np.asarray(times) / float(tick)).astype(np.int64)
    return constant_rate(
        SimpleNamespace(
            times=stamps, time_base=tick, readable=len(stamps), last_duration=0, declared_rates=declared, path=None
        )
    )


def shake(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.006, 0.006, count)


@pytest.mark.parametrize(
    ("times", "tick", "rate", "frames"),
    [
        (np.delete(np.arange(300) / 30 + shake(300), [5, 77, 100, 101]), Fraction(1, 90000), 30, 300),
        (np.delete(np.arange(300) / 25, [5]), Fraction(1, 1000), 25, 300),
        (np.delete(np.arange(3000) * 1.001 / 30, [5, 77]), Fraction(1, 1000), Fraction(30000, 1001), 3000),
        (np.delete(np.arange(300) * 1.001 / 24, [5, 77]), Fraction(1, 90000), Fraction(24000, 1001), 300),
        (np.r_[np.arange(60) / 30, 2 + np.arange(60) / 24], Fraction(1, 600), 30, 135),
        (np.r_[np.arange(30) / 30, 1 + np.arange(240) / 120, 3 + np.arange(30) / 30], Fraction(1, 1200), 120, 477),
        (np.delete(np.arange(100) / 12.5, [4]), Fraction(1, 1000), Fraction(25, 2), 100),
    ],
    ids=["phone", "25", "29.97 ms", "23.976", "phone in the dark", "slow motion", "12.5"],
)
def test_varying_rates_are_nominal_ones_and_no_frame_is_lost(times, tick, rate, frames):
    found = timeline(times, tick)
    assert found.fps == rate
    assert found.dropped == 0 and set(found.source_index) == set(range(len(times)))
    assert abs(len(found.source_index) - frames) <= 3


def test_a_glitch_of_the_recorder_changes_no_rate():
    found = timeline(np.sort(np.r_[np.arange(100) / 30, 50 / 30 + 0.001]))
    assert (found.fps, len(found.source_index), found.dropped) == (30, 100, 1)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("30", [30, 1]), ("23.976", [24000, 1001]), ("59.94", [60000, 1001]), ("12.5", [25, 2]), ("30/1", [30, 1])],
)
def test_rates_of_image_sequences_are_given_as_people_write_them(text, rate):
    assert frame_rate_from_text(text) == rate


@pytest.mark.parametrize("text", ["0", "-5", "fast", "1/0", "nan"])
def test_other_rates_are_refused(text):
    with pytest.raises(RequestError, match="frame rate"):
        frame_rate_from_text(text)


# Colours


@pytest.mark.parametrize(("name", "curve"), [("06_hlg.mp4", "HLG"), ("06_pq.mp4", "PQ")])
def test_hdr_is_tone_mapped_and_white_stays_white(name, curve):
    info, frame = probe(CASES / name), next(read_frames(CASES / name))
    assert curve in info.notes[0]
    for patch, right in {"white": 255, "skin": (200, 120, 90), "grey": 128, "red": (255, 0, 0)}.items():
        assert np.abs(chart.patch(frame, patch) - right).max() <= 12, patch


def test_display_p3_is_converted():
    info, frame = probe(CASES / "06_p3.mp4"), next(read_frames(CASES / "06_p3.mp4"))
    assert "Display P3" in info.notes[0]
    assert np.abs(chart.patch(frame, "skin") - (200, 120, 90)).max() <= 5


def test_a_matrix_that_only_the_container_names_is_used():
    assert chart.largest_difference(next(read_frames(CASES / "16_prores_colr_only.mov"))) <= 3


def test_ycgco_is_read():
    assert chart.largest_difference(next(read_frames(CASES / "17_ycgco.mp4"))) <= 3


def test_a_matrix_that_cannot_be_converted_is_refused_by_name(make_video):
    path = make_video("ictcp.mp4", images=[chart.chart()] * 2, size=(320, 192), tags={"colorspace": 14})
    with pytest.raises(MediaError, match=r"ICtCp \(code 14"):
        probe(path)


# Images


def test_tiff_with_jpeg_compression_is_read():
    assert chart.largest_difference(next(read_frames(CASES / "09_tiff_jpeg"))) <= 6


@pytest.mark.parametrize("number", range(1, 9))
def test_every_orientation_of_exif_is_applied(tmp_path, number):
    upright = Image.fromarray(chart.chart(5))
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Pillow's transpositions, what storing it so takes
    stored = upright.transpose(inverse[number]) if number > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = number
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    frame = next(read_frames(tmp_path))
    assert frame.shape == (192, 320, 3)
    assert np.abs(frame[4, 4].astype(int) - chart.TOP_LEFT).max() < 30
    assert np.abs(frame[4, -5].astype(int) - chart.TOP_RIGHT).max() < 30
    assert chart.number_of(frame) == 5


def test_a_front_cameras_mirrored_picture_is_mirrored_back():
    assert np.abs(next(read_frames(CASES / "10_exif_2"))[4, 4].astype(int) - (0, 255, 0)).max() < 30


def test_linear_exr_is_footage():
    info, frame = probe(CASES / "11_exr_footage"), next(read_frames(CASES / "11_exr_footage"))
    assert "linear light" in info.notes[0]
    assert chart.largest_difference(frame) <= 1


def test_exr_is_placed_in_its_display_window_and_its_primaries_are_converted(tmp_path):
    half = np.zeros((10, 20, 3), np.float16)
    half[..., 1] = 0.25
    p3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329)
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "dataWindow": (np.array((4, 2), np.int32), np.array((23, 11), np.int32)),
        "displayWindow": (np.array((0, 0), np.int32), np.array((31, 15), np.int32)),
        "chromaticities": p3,
    }
    OpenEXR.File(header, {"RGB": half}).write(str(tmp_path / "a.0001.exr"))
    frame = next(read_frames(tmp_path))
    assert frame.shape == (16, 32, 3)
    assert not frame[:2].any() and not frame[:, :4].any() and not frame[12:].any()
    assert frame[5, 10, 1] > 137 and frame[5, 10, 0] == 0  # 137 is 0.25 in sRGB; P3's green is outside of it


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_animated_avif_is_read_with_all_its_frames(tmp_path):
    images = [Image.fromarray(chart.chart(number)) for number in range(5)]
    images[0].save(tmp_path / "a.avif", save_all=True, append_images=images[1:], duration=100)
    info = probe(tmp_path / "a.avif")
    assert (info.frames, info.fps) == (5, 10)
    assert numbers(tmp_path / "a.avif") == list(range(5))


def test_exr_beside_other_images_is_their_depth(tmp_path):
    for number in range(2):
        write_png(tmp_path / f"a_{number}.png", chart.chart(number))
        shutil.copy(CASES / "11_exr_footage" / "d.1001.exr", tmp_path / f"depth_{number}.exr")
    assert numbers(tmp_path) == [0, 1]


def test_animated_webp_is_refused_by_name():
    with pytest.raises(MediaError, match="animated WebP"):
        probe(CASES / "13_anim.webp")


@pytest.mark.parametrize(("mode", "name"), [("P", "a.png"), ("CMYK", "a.jpg"), ("RGB", "a.webp")])
def test_pictures_without_transparency_have_no_note_of_it(tmp_path, mode, name):
    image = Image.fromarray(chart.chart()).convert(mode, palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / name, quality=95, lossless=True)
    assert probe(tmp_path).notes == () and chart.largest_difference(next(read_frames(tmp_path))) <= 2


def test_images_of_other_kinds_are_refused_by_name(tmp_path):
    (tmp_path / "a_1.heic").write_bytes(b"x")
    with pytest.raises(MediaError, match=r"\.heic"):
        probe(tmp_path)


def test_negative_frame_numbers_come_first(tmp_path):
    for number in (-10, -2, 0, 1):
        write_png(tmp_path / f"shot_{number:05d}.png", chart.chart(number + 10))
    assert numbers(tmp_path) == [0, 8, 10, 11]
    assert numbers(tmp_path / "shot_####.png") == [0, 8, 10, 11]


def test_a_hyphen_before_a_number_is_no_sign_after_a_word(tmp_path):
    for number in (1, 2, 10):
        write_png(tmp_path / f"shot-{number}.png", chart.chart(number))
    assert numbers(tmp_path) == [1, 2, 10]


# Streams


def test_the_default_stream_is_read_and_named():
    info = probe(CASES / "14_two_streams.mp4")
    assert (info.width, info.height, info.frames) == (320, 192, 12)
    assert "video stream 1 (320x192)" in info.notes[0] and "0 (160x96)" in info.notes[0]
    assert numbers(CASES / "14_two_streams.mp4") == list(range(12))


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparency_of_webm_is_kept(make_video, codec):
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., :3] = (200, 100, 50)
    image[:, 32:, 3] = 255
    options = {"auto-alt-ref": "0", "crf": "4", "b": "2M"}
    path = make_video("a.webm", images=[image] * 3, codec=codec, pixel_format="yuva420p", options=options)
    assert any("composited over black" in note for note in probe(path).notes)
    frame = next(read_frames(path)).astype(int)
    assert np.abs(frame[24, 8]).max() <= 4 and np.abs(frame[24, 56] - (200, 100, 50)).max() <= 8


def test_interlaced_footage_is_deinterlaced(make_video):
    images = []
    for number in range(12):
        fields = [np.zeros((48, 64, 3), np.uint8) for _ in range(2)]
        for field, image in enumerate(fields):
            left = 8 + 2 * (2 * number + field)
            image[:, left : left + 8] = 255
        images.append(np.where((np.arange(48) % 2 == 0)[:, None, None], *fields))
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "4", "g": "4"}
    path = make_video("i.mp4", images=images, options=options)
    info, frames = probe(path), list(read_frames(path))
    assert any("deinterlaced" in note for note in info.notes)
    assert len(frames) == info.frames == 12

    def comb(image) -> float:
        return float(np.abs(np.diff(image[8:40, :, 1].astype(int), axis=0)).mean())

    assert comb(frames[6]) < 0.3 * comb(images[6])
    part = list(read_frames(path, start=7, count=3))
    assert all(np.array_equal(one, other) for one, other in zip(part, frames[7:10], strict=True))
