"""Shot requests: complete and exact after the wire, and refused by name when anything is wrong."""

import msgpack
import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.output_settings import MAX_NUMBER, OutputSettings
from ex4d_core.render_settings import RenderSettings, default_occlusion
from ex4d_core.shot import PreviewSettings, RequestError, ShotRequest
from ex4d_core.trajectories import Trajectory, build_path
from ex4d_core.wan_settings import WAN_PRESETS, Lora, WanSettings, wan_preset

CAMERA = build_path(Trajectory("orbit", elevation=10), 5, intrinsics_matrix(40.1, 40, 24, 16), 48, 32, 2.0)


def request(**changes) -> ShotRequest:
    settings = {"scene": "a" * 64, "camera": CAMERA, "first_frame": 2, "label": "Take – 1"}
    return ShotRequest(**{**settings, **changes})


def over_the_wire(values: dict) -> ShotRequest:
    return ShotRequest.from_wire(msgpack.unpackb(msgpack.packb(values)))


def test_the_default_occlusion_is_the_engines_where_it_exists():
    assert default_occlusion("preview", "centered") == "thickness"
    assert default_occlusion("wan", "centered") == "watertight"
    for convention, rasterizer in (("reference", "auto"), ("centered", "nvdiffrast")):
        occlusion = default_occlusion("preview", convention, rasterizer)
        RenderSettings(rasterizer, convention, occlusion=occlusion)  # it can be rendered


def test_a_request_is_the_same_on_the_other_side():
    render = RenderSettings(convention="reference", occlusion="open", licence="commercial")
    sent = request(render=render, preview=PreviewSettings("mark", (0, 255, 0)))
    received = over_the_wire(sent.to_wire())
    assert np.array_equal(received.camera.world_to_camera, CAMERA.world_to_camera)
    assert np.array_equal(received.camera.intrinsics, CAMERA.intrinsics)
    assert received.wan == sent.wan == WanSettings()
    assert received.preview == sent.preview and received.render == sent.render
    assert (received.scene, received.first_frame, received.label) == (sent.scene, 2, "Take – 1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scene", "../../etc/passwd", "SHA-256"),
        ("first_frame", -1, "first_frame"),
        ("first_frame", 1.5, "first_frame"),
        ("engine", "magic", "engine must be one of preview"),
        ("label", "x" * 1000, "label"),
        ("render", {"rasterizer": "gl"}, "rasterizer must be one of"),
        ("render", {"shader": 1}, "no field"),
        ("render", {"occlusion": "closed"}, "occlusion must be one of watertight, open, thickness, not 'closed'"),
        ("render", {"occlusion": None}, "occlusion must be one of"),
        ("render", {"licence": "paid"}, "licence must be one of research, commercial, not 'paid'"),
        ("render", {"occlusion": "thickness", "convention": "reference"}, "thickness .* reference convention"),
        ("render", {"occlusion": "thickness", "rasterizer": "nvdiffrast"}, "use rasterizer warp"),
        ("render", {"clean": True, "convention": "reference"}, "clean .* reference convention"),
        ("preview", {"holes": "fill", "hole_color": [0, 0, 300]}, "hole_color"),
        ("preview", 7, "must be a map"),
        ("wan", {"preset": "best"}, "preset must be one of standard"),
        ("wan", {"prompt": None}, "prompt must be text"),
        ("wan", {"negative_prompt": "x" * 5001}, "negative_prompt must be text of at most 5000"),
        ("wan", {"seed": -1}, "seed must be a whole number"),
        ("wan", {"steps": 0}, "steps must be a whole number from 1 to 200"),
        ("wan", {"steps": True}, "steps must be a whole number"),
        ("wan", {"guidance": float("nan")}, "guidance must be a number"),
        ("wan", {"guidance": "5"}, "guidance must be a number"),
        ("wan", {"erosion": [8, 2]}, "erosion .*8, 2"),
        ("wan", {"erosion": 3}, "two whole numbers"),
        ("wan", {"window": 48}, "4n . 1 frames"),
        ("wan", {"overlap": 49}, "overlap must be shorter than window"),
        ("wan", {"max_pixels": 100}, "max_pixels must be 0 or at least"),
        ("wan", {"precision": "int4"}, "precision must be one of"),
        ("wan", {"fp8_attention": 1}, "fp8_attention must be true or false"),
        ("wan", {"loras": [{"name": "../../etc/passwd"}]}, "etc/passwd"),
        ("wan", {"loras": [{"name": "a/b"}]}, "a/b"),
        ("wan", {"loras": [{"name": "ok", "weight": 1e9}]}, "weight must be a number"),
        ("wan", {"loras": [{"weight": 1}]}, "Lora is incomplete"),
        ("wan", {"loras": [{"name": "ok"}] * 9}, "at most 8"),
        ("wan", {"loras": "ok"}, "must be a list"),
        ("wan", {"magic": 1}, "no field"),
        ("surprise", 1, "no field"),
        ("camera", None, "camera is missing"),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    with pytest.raises(RequestError, match=message):
        over_the_wire({**request().to_wire(), field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frames", 6, "of 6 frames must be 768 bytes"),
        ("frames", 10**9, "from 1 to"),
        ("width", 0, "width"),
        ("height", "32", "height"),
        ("intrinsics", b"", "intrinsics"),
        ("world_to_camera", CAMERA.world_to_camera.tobytes()[:-8] + np.float64(np.nan).tobytes(), "frame 4"),
    ],
)
def test_a_wrong_camera_is_named(field, value, message):
    values = request().to_wire()
    values["camera"] = {**values["camera"], field: value}
    with pytest.raises(RequestError, match=message):
        over_the_wire(values)


def test_wan_settings_are_the_same_on_the_other_side():
    sent = wan_preset("fast", prompt="雨 \u2013 rain", seed=2**62, erosion=(0, 4), loras=[{"name": "Some.LoRA-1+2"}])
    received = over_the_wire(request(engine="wan", wan=sent).to_wire())
    assert received.wan == sent and received.engine == "wan"
    assert received.wan.loras == (Lora("Some.LoRA-1+2", 1.0),)


def test_a_request_without_wan_settings_gets_ex4ds_own():
    """From a client that is older than the engine."""
    values = request().to_wire()
    del values["wan"]
    settings = over_the_wire(values).wan
    assert (settings.steps, settings.guidance, settings.shift, settings.window) == (25, 5.0, 5.0, 49)
    assert settings.max_pixels == 512 * 512 and settings.erosion == (2, 8)
    assert settings.prompt.startswith("4K ultra HD, surround motion")
    assert settings.negative_prompt.startswith("Bright tones") and settings.negative_prompt.endswith(
        "walking backwards"
    )


def test_settings_that_older_sides_do_not_know_travel_only_where_they_say_something():
    plain = request(engine="wan", wan=wan_preset("ex4d-reference", seed=3)).to_wire()
    new = {"conditioning", "lead_in", "erosion_seed", "stride", "step_interval", "protected_steps"}
    unset = {"adapter", "guidance_interval", "cfg_zero", "zero_steps", "attention"}
    assert not {*unset, *new} & set(plain["wan"])
    assert request(engine="wan", wan=wan_preset("ex4d-reference", adapter="mine")).to_wire()["wan"]["adapter"] == "mine"
    received = over_the_wire(plain).wan
    assert (received.conditioning, received.lead_in, received.erosion_seed, received.stride) == ("original", 0, None, 1)
    standard = wan_preset("standard", stride=2)
    sent = set(request(engine="wan", wan=standard).to_wire()["wan"])
    assert new <= sent and not unset & sent
    assert over_the_wire(request(engine="wan", wan=standard).to_wire()).wan == standard


def test_a_preview_carries_words_and_seed_alone_and_nothing_that_older_sides_refuse():
    sent = request(wan=wan_preset("quality", prompt="rain", seed=3, adapter="mine"))
    plain = request(engine="wan", wan=wan_preset("ex4d-reference")).to_wire()["wan"]
    assert set(sent.to_wire()["wan"]) == set(plain) and sent.to_wire()["wan"]["preset"] == "ex4d-reference"
    assert sent.wan == WanSettings(prompt="rain", seed=3)
    assert over_the_wire(sent.to_wire()).wan == sent.wan
    assert request(wan=wan_preset("standard", prompt="rain", seed=3)).to_wire() == sent.to_wire()


def test_a_stored_request_with_a_window_beyond_todays_is_still_read():
    values = request(engine="wan", wan=wan_preset("ex4d-reference", window=161, overlap=13)).to_wire()
    assert over_the_wire(values).wan.window == 161


@pytest.mark.parametrize("name", WAN_PRESETS)
def test_every_preset_can_be_asked_for_and_changed(name):
    assert wan_preset(name).preset == name
    assert wan_preset(name, steps=7).steps == 7


def test_what_the_presets_are_for():
    assert wan_preset("ex4d-reference").precision == "bf16", "as its name says"
    fast, draft = wan_preset("fast"), wan_preset("draft")
    for name in WAN_PRESETS:
        assert (wan_preset(name).conditioning == "known") == (name != "ex4d-reference")
        # A draft is worth no hidden frames.
        assert (wan_preset(name).lead_in > 0) == (name not in ("ex4d-reference", "live"))
    assert fast.loras and 4 <= fast.steps <= 8 and fast.guidance == 1
    assert draft.steps < 25 and draft.max_pixels < 512 * 512 and draft.tea_cache > 0


def test_a_missing_field_is_named():
    values = request().to_wire()
    del values["scene"]
    with pytest.raises(RequestError, match="scene"):
        over_the_wire(values)


def test_a_shot_must_lie_within_its_footage():
    request().require_footage(7)
    with pytest.raises(RequestError, match=r"5 frames .* frame 2, .* 6"):
        request().require_footage(6)


def test_giant_pictures_are_refused():
    with pytest.raises(RequestError, match="8192"):
        request(camera=CameraPath(CAMERA.world_to_camera, CAMERA.intrinsics, 10_000, 32))


def test_masks_are_cleaned_unless_the_engine_is_wan_or_the_shot_says_otherwise():
    assert RenderSettings().cleans and request().settled_render.cleans
    assert not request(engine="wan").settled_render.cleans
    assert request(engine="wan", render=RenderSettings(clean=True)).settled_render.cleans
    assert not request(render=RenderSettings(clean=False)).settled_render.cleans
    assert not RenderSettings(convention="reference").cleans


def test_cleaning_travels_only_where_a_shot_decides_it():
    assert "clean" not in request().to_wire()["render"]  # which older sides would refuse
    sent = request(render=RenderSettings(clean=False))
    assert over_the_wire(sent.to_wire()).render == sent.render


def test_samples_are_left_out_where_there_is_one_which_is_what_older_sides_have():
    assert request().render.samples == 3
    sent = request(render=RenderSettings(samples=1)).to_wire()
    assert "samples" not in sent["render"] and over_the_wire(sent).render.samples == 1
    assert over_the_wire(request().to_wire()).render.samples == 3
    assert over_the_wire({**sent, "render": {}}).render.samples == 1
    without = {name: value for name, value in sent.items() if name != "render"}
    assert over_the_wire(without).render.samples == 1


def test_the_reference_convention_has_one_sample():
    assert RenderSettings(convention="reference", samples=4).samples == 1
    with pytest.raises(RequestError, match="samples must be a whole number from 1 to 4, not 5"):
        RenderSettings(samples=5)


def test_images_of_a_part_have_the_numbers_of_the_whole_shot():
    whole = request(output=OutputSettings("exr", first_number=7))
    parts = [whole.part(0, 3), whole.part(3, 4), whole.part(4, 5)]
    assert sum((part.deep_files for part in parts), ()) == whole.deep_files
    retimed = request(output=OutputSettings("png16"), source_frames=(4, 2, 2, 0, 1), first_frame=0)
    assert retimed.part(2, 5).deep_files == retimed.deep_files[2:]
    movie = request(output=OutputSettings("h265"))
    assert movie.part(1, 3).output == movie.output


def test_the_last_image_has_a_number_too():
    most = MAX_NUMBER - 4
    last = request(output=OutputSettings("exr", first_number=most)).part(4, 5)
    assert last.output.first_number == MAX_NUMBER
    with pytest.raises(RequestError, match=f"first_number {most + 1} .* at most {most}"):
        request(output=OutputSettings("exr", first_number=most + 1))
