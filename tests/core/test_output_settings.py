"""Names of renders by a template, and options that belong to one format."""

from __future__ import annotations

import pytest

from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings


def test_images_are_numbered_and_movies_are_not() -> None:
    images = OutputSettings(format="exr", file_version=12)
    assert [images.name_of("dolly", index) for index in (0, 1)] == ["dolly_v012.1001", "dolly_v012.1002"]
    assert OutputSettings(format="h265", file_version=12).name_of("dolly") == "dolly_v012"
    own = OutputSettings(format="png16", file_name="{shot}{frame}", first_number=0)
    assert own.name_of("a", 11) == "a11"


@pytest.mark.parametrize(
    "template", ["{shot}", "{shot.__class__}.{frame}", "{who}.{frame}", "../{frame}", ".{frame}", "{frame", "{frame:z}"]
)
def test_a_template_makes_plain_names_of_their_own(template) -> None:
    with pytest.raises(RequestError, match="file_name"):
        OutputSettings(format="exr", file_name=template)


@pytest.mark.parametrize("template", ["{frame:04}", "{frame}.{shot}", "takes/{shot}", "{shot}{frame:/>4}"])
def test_a_movie_has_a_plain_name_without_the_number(template) -> None:
    with pytest.raises(RequestError, match="file_name"):
        OutputSettings(format="prores4444", file_name=template)
    assert OutputSettings(format="prores4444", file_name="{frame}_{shot}").name_of("a") == "_a"


@pytest.mark.parametrize(
    "options",
    [
        {"format": "png16", "compression": "dwaa"},
        {"format": "h265", "position": True},
        {"format": "dnxhr", "first_number": 5},
        {"output_space": "ACEScg"},
        {"file_name": "{shot}"},
        {"file_version": 2},
    ],
)
def test_options_without_effect_are_refused(options) -> None:
    named = next(name for name in options if name != "format")
    with pytest.raises(RequestError, match=rf"{named}.* leave|leave out {named}"):
        OutputSettings(**options)


def test_another_format_has_the_settings_that_it_can_have() -> None:
    images = OutputSettings("exr", "dwaa", "ACEScg", "{shot}.{frame}", 3, 7, position=True, motion="both")
    assert images.in_format("exr") == images
    assert images.in_format("png16") == OutputSettings("png16", "zip", "ACEScg", "{shot}.{frame}", 3, 7)
    movie = images.in_format("h265")
    assert movie == OutputSettings("h265", "zip", "ACEScg", "{shot}.{frame}", 3)
    assert images.in_format("mp4") == OutputSettings()
    assert OutputSettings("h265", file_name="final").in_format("exr").name_of("a", 1) == "final.1002"
    assert OutputSettings("exr", file_name="{frame:04}").in_format("h265").name_of("a") == "a_v001"
