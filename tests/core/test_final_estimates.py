"""Working sizes by name, and what a final takes on a card before it is made."""

import pytest

from ex4d_core.cards import H200, Card
from ex4d_core.errors import RequestError
from ex4d_core.final_estimates import estimate_final, estimates_by_size, pass_operations, pass_seconds
from ex4d_core.final_sizes import generation_size
from ex4d_core.wan_settings import MODEL_PIXELS, WORKING_SIZES, WanSettings, pixels_from, size_name, wan_preset

RTX_4090 = Card.of_device("NVIDIA GeForce RTX 4090, 24 GiB (cuda:0)")
A100 = Card.of_device("NVIDIA A100-SXM4-80GB, 79 GiB (cuda:0)")


def test_working_sizes_have_names_and_any_other_size_is_a_number_of_pixels():
    assert list(WORKING_SIZES) == ["512x512", "832x480", "1280x720", "1920x1080"]
    assert [pixels_from(text) for text in ("832x480", "640x384", "full", "200000")] == [399_360, 245_760, 0, 200_000]
    assert [size_name(pixels) for pixels in (399_360, 0, 200_000)] == ["832x480", "full", ""]
    for text in ("832x", "x480", "-1", "832*480", "Full", ""):
        with pytest.raises(RequestError, match="invalid working size"):
            pixels_from(text)


def test_a_shot_keeps_its_aspect_at_as_many_pixels():
    assert generation_size(wan_preset("quality"), 1920, 1080) == (843, 474)
    assert generation_size(wan_preset("quality"), 832, 480) == (832, 480)
    assert generation_size(wan_preset("quality"), 1440, 1080, 4 / 3) == (843, 474), "wide pixels become square"
    assert generation_size(wan_preset("ex4d-reference"), 1440, 1080, 4 / 3) == (591, 443), "as the original does"


def test_sizes_above_the_models_own_are_enlarged_unless_they_are_to_be_generated():
    for pixels in (0, 1280 * 720, MODEL_PIXELS):
        assert wan_preset("quality", max_pixels=pixels).generated_pixels == MODEL_PIXELS
    direct = wan_preset("quality", max_pixels=1280 * 720, above_model="generate")
    assert generation_size(direct, 1920, 1080) == (1280, 720)
    assert wan_preset("draft").generated_pixels == 384 * 384, "smaller ones stay"
    assert generation_size(WanSettings(max_pixels=0), 1920, 1080) == (1920, 1080), "requests of earlier versions"


@pytest.mark.parametrize(
    ("preset", "changes", "seconds"),
    [
        ("standard", {}, 0.546),
        ("standard", {"fp8_attention": True}, 0.463),
        ("standard", {"precision": "bf16"}, 0.765),
    ],
)
def test_a_pass_on_the_card_that_was_measured_takes_what_was_measured(preset, changes, seconds):
    """docs/measured/speed.md has these figures."""
    assert pass_seconds(13_312, wan_preset(preset, **changes), H200) == pytest.approx(seconds, rel=0.01)


def test_operations_of_attention_grow_with_the_square():
    (matmul, attention), (twice, four_times) = pass_operations(1000), pass_operations(2000)
    assert (twice, four_times) == (2 * matmul, 4 * attention)


@pytest.mark.parametrize(
    ("described", "known", "fp8", "count"),
    [
        ("NVIDIA H200, 140 GiB (cuda:0)", True, True, 1),
        ("NVIDIA H100 PCIe, 79 GiB (cuda:0+1)", True, True, 2),
        ("NVIDIA A100-SXM4-80GB, 79 GiB (cuda:0), paused: its worker ended", True, False, 1),
        ("NVIDIA GeForce RTX 4090 Laptop GPU, 16 GiB (cuda:0)", False, False, 1),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb, 10 GiB (cuda:0)", False, False, 1),
        ("Somebody's card, 10 GiB (cuda)", False, False, 1),
    ],
)
def test_cards_are_known_by_their_drivers_name(described, known, fp8, count):
    card = Card.of_device(described)
    assert (card.known, card.fp8 > 0, card.count) == (known, fp8, count)


def test_a_cpu_is_no_card_and_names_are_told_apart():
    assert Card.of_device("CPU, 2 cores (x86_64)") is None
    assert Card.of_device("no device; paused: no room") is None
    assert Card.named("NVIDIA H20", 0).bf16 < Card.named("NVIDIA H200", 0).bf16
    assert Card.named("NVIDIA L4", 0).bf16 < Card.named("NVIDIA L40", 0).bf16 < Card.named("NVIDIA L40S", 0).bf16
    assert Card.named("NVIDIA GeForce RTX 4090", 0).short_name == "RTX 4090"


def test_larger_and_longer_finals_take_longer_and_more_memory():
    estimates = estimates_by_size(wan_preset("standard"), 49, 1920, 1080, H200)
    seconds = [estimate.seconds for estimate in estimates.values()]
    memory = [estimate.gpu_bytes for estimate in estimates.values()]
    assert seconds == sorted(seconds) and memory == sorted(memory)
    assert seconds[3] > 9 * seconds[0], "attention grows with the square of 8 times as many tokens"
    longer = estimate_final(wan_preset("standard"), 98, 512, 512, H200)
    assert longer.seconds > estimate_final(wan_preset("standard"), 49, 512, 512, H200).seconds


def test_slower_cards_take_longer_two_take_half_and_unknown_ones_are_not_guessed():
    standard = wan_preset("standard")
    one, slower = (estimate_final(standard, 49, 512, 512, card) for card in (H200, RTX_4090))
    assert slower.seconds > 5 * one.seconds and slower.fits(RTX_4090)
    two = estimate_final(standard, 49, 512, 512, Card.named(H200.name, H200.memory_bytes, 2))
    assert two.seconds < 0.6 * one.seconds
    assert estimate_final(standard, 49, 512, 512, A100).seconds == pytest.approx(
        estimate_final(wan_preset("standard", precision="bf16"), 49, 512, 512, A100).seconds
    ), "no products in fp8"
    unknown = estimate_final(standard, 49, 512, 512, Card.named("Somebody's card", 2**33))
    assert unknown.seconds is None and unknown.gpu_bytes == one.gpu_bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upscaler": "../x"}, "invalid upscaler '../x'"),
        ({"upscaler": ""}, "invalid upscaler ''"),
        ({"above_model": "both"}, "above_model must be one of generate, enlarge"),
        ({"keep_seen": True}, "keep_seen must be off with the preset ex4d-reference"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message):
    with pytest.raises(RequestError, match=message):
        WanSettings(**changes)
