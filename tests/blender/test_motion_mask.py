"""The mask of what moves: sent along with footage, and given to a scene that is imported already."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.footage.sources import FootageError, plan_from_text, plan_of, plan_to_text
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.link import open_scene
from ex4d_core.scene import Scene

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
FRAMES, WIDTH, HEIGHT = 9, 48, 32  # of the card's scene


@pytest.fixture(autouse=True)
def saved_file(tmp_path, blender) -> None:
    """New scenes are put beside a saved file."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))


def images_in(folder: Path, masks: np.ndarray) -> Path:
    """(T, H, W) bool as PNG files, written by Blender."""
    folder.mkdir()
    for number, mask in enumerate(masks):
        image = bpy.data.images.new("mask", mask.shape[1], mask.shape[0])
        values = np.ones((*mask.shape, 4), np.float32)
        values[..., :3] = mask[::-1, :, None]
        image.pixels.foreach_set(values.ravel())
        image.filepath_raw, image.file_format = str(folder / f"mask_{number:03d}.png"), "PNG"
        image.save()
        bpy.data.images.remove(image)
    return folder


def card_masks(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A block that moves to the right."""
    masks = np.zeros((FRAMES, height, width), bool)
    for number, mask in enumerate(masks):
        mask[height // 4 : height // 2, number : number + width // 4] = True
    return masks


def first_image(folder: Path) -> str:
    return str(folder / "mask_000.png")


def test_footage_takes_its_mask_along(tmp_path):
    settings = bpy.context.scene.ex4d_footage
    settings.footage, settings.depth = str(SAMPLE / "footage.mp4"), str(SAMPLE / "depth.npz")
    assert plan_of(settings, bpy.context.scene).mask_files == ()
    settings.mask = str(images_in(tmp_path / "mask", card_masks()))
    plan = plan_of(settings, bpy.context.scene)
    assert [file.name for file in plan.mask_files] == [f"mask_{number:03d}.png" for number in range(FRAMES)]
    assert plan_from_text(plan_to_text(plan)) == plan
    settings.mask = str(tmp_path / "gone")
    with pytest.raises(FootageError, match="gone does not exist; choose the motion mask again"):
        plan_of(settings, bpy.context.scene)


def test_a_scene_that_is_there_gets_a_mask_of_images(card_scene, tmp_path):
    imported, old = import_scene(card_scene), Scene.open(card_scene)
    bpy.ops.ex4d.set_scale(method="FACTOR", factor=2.0)
    bpy.context.view_layer.update()
    images = set(bpy.data.images)
    folder = images_in(tmp_path / "mask", card_masks())
    assert bpy.ops.ex4d.set_motion_mask(filepath=first_image(folder)) == {"FINISHED"}
    made = bpy.context.view_layer.objects.active
    package = open_scene(made)
    np.testing.assert_array_equal(package.motion_mask(), card_masks())
    assert package.manifest.provenance["motion mask"] == "mask"
    assert package.manifest.files["depth"] == old.manifest.files["depth"]
    assert made.matrix_world == imported.matrix_world and imported.hide_get()
    assert bpy.context.scene.ex4d_shot.scene_object == made, "takes show it from now on"
    assert open_scene(imported).motion_mask() is None and Scene.open(card_scene).digest == old.digest
    assert not [one for one in set(bpy.data.images) - images if "mask" in one.name], "nothing is left of it"


def test_another_size_is_resized_to_the_footages_own_pixels(card_scene, tmp_path):
    import_scene(card_scene)
    half = card_masks(HEIGHT // 2, WIDTH // 2)
    assert bpy.ops.ex4d.set_motion_mask(filepath=first_image(images_in(tmp_path / "half", half))) == {"FINISHED"}
    package = open_scene(bpy.context.view_layer.objects.active)
    np.testing.assert_array_equal(package.motion_mask(), half.repeat(2, axis=1).repeat(2, axis=2))


def test_a_movie_is_a_mask_too(card_scene):
    """The scene's own footage, whose bright stripes are the mask."""
    import_scene(card_scene)
    old, scenes = Scene.open(card_scene), set(bpy.data.scenes)
    assert bpy.ops.ex4d.set_motion_mask(filepath=str(old.path("footage"))) == {"FINISHED"}
    mask = open_scene(bpy.context.view_layer.objects.active).motion_mask()
    bright = old.color().mean(axis=3)
    for number in range(FRAMES):
        sure = np.abs(bright[number] - 128) > 60
        agrees = (mask[number] == (bright[number] >= 128))[sure].mean()
        assert agrees > 0.97, (number, agrees)
    assert mask.any() and set(bpy.data.scenes) == scenes, "nothing is left of it"


@pytest.mark.parametrize(
    ("masks", "says"),
    [(card_masks()[:-1], "8 frames.*9"), (card_masks(HEIGHT, HEIGHT), "32x32.*48x32")],
    ids=["number", "shape"],
)
def test_a_mask_that_does_not_fit_is_refused(card_scene, tmp_path, masks, says):
    imported = import_scene(card_scene)
    with pytest.raises(RuntimeError, match=says):
        bpy.ops.ex4d.set_motion_mask(filepath=first_image(images_in(tmp_path / "mask", masks)))
    assert not imported.hide_get() and not (tmp_path / "scenes").exists()


def test_an_empty_folder_is_no_mask(card_scene, tmp_path):
    import_scene(card_scene)
    (tmp_path / "mask").mkdir()
    with pytest.raises(RuntimeError, match="has no images"):
        bpy.ops.ex4d.set_motion_mask(filepath=str(tmp_path / "mask"))


@pytest.mark.parametrize(("white", "says"), [(True, "white in all frames"), (False, "black in all frames")])
def test_a_mask_that_says_nothing_is_named(card_scene, tmp_path, white, says):
    from blender_addon.footage.motion_masks import apply_mask

    folder = images_in(tmp_path / "mask", np.full((FRAMES, HEIGHT, WIDTH), white))
    (note,) = apply_mask(bpy.context, import_scene(card_scene), folder)
    assert says in note
