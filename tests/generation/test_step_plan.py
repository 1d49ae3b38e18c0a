"""Which passes of the network a window takes, and what replaces those that are left out."""

import pytest
import torch

from ex4d.generation.wan.guidance import VelocityHistory, guide
from ex4d_core.errors import RequestError
from ex4d_core.step_plan import NEGATIVE, POSITIVE, flow_sigma, pass_count, step_plan
from ex4d_core.wan_settings import WanSettings, wan_preset

BOTH = (POSITIVE, NEGATIVE)


def computed(**changes) -> list[tuple[int, ...]]:
    return [step.computed for step in step_plan(WanSettings(**changes))]


def test_nothing_is_left_out_unless_it_is_asked_for():
    assert computed() == [BOTH] * 25 and pass_count(WanSettings()) == 50
    assert computed(guidance=1.0, steps=4) == [(POSITIVE,)] * 4
    assert pass_count(wan_preset("ex4d-reference")) == 50
    assert all(len(step.computed) < 2 for step in step_plan(WanSettings(), guided=False)), "no negative prompt"


def test_the_schedule_is_diffsynths():
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    from ex4d.generation.wan.denoising import flow_match_schedule

    for steps, shift in ((25, 5.0), (4, 3.0), (1, 1.0)):
        sigmas, _ = flow_match_schedule(steps, shift)
        ours = [flow_sigma(step, steps, shift) for step in range(steps + 1)]
        assert ours == pytest.approx(sigmas.tolist(), abs=1e-6)


def test_first_and_last_steps_are_computed_and_those_between_at_intervals():
    assert computed(steps=8, step_interval=3) == [BOTH, (), (), BOTH, (), (), BOTH, BOTH]
    assert computed(steps=8, step_interval=3, protected_steps=3) == [BOTH, BOTH, BOTH, (), (), BOTH, (), BOTH]


def test_a_prompt_that_was_never_computed_is_not_extrapolated():
    """Where guidance sets in between two computed steps, both prompts run again."""
    plan = step_plan(WanSettings(steps=8, step_interval=4, guidance_interval=(0.0, 0.9)))
    first = next(step for step in plan if NEGATIVE in step.prompts)
    assert first.sigma < 1 and first.computed == BOTH


def test_the_preset_standard_takes_at_most_half_of_the_passes():
    assert pass_count(wan_preset("standard")) == 24 and pass_count(wan_preset("quality")) == 80


def test_guidance_in_an_interval_leaves_the_negative_prompt_out_elsewhere():
    plan = step_plan(WanSettings(guidance_interval=(0.5, 0.9)))
    for step in plan:
        assert (NEGATIVE in step.prompts) == (0.5 <= step.sigma <= 0.9)
    assert pass_count(WanSettings(guidance_interval=(0.5, 0.9))) == 25 + sum(0.5 <= s.sigma <= 0.9 for s in plan)


def test_zero_steps_take_no_pass():
    assert computed(steps=4, zero_steps=2) == [(), (), BOTH, BOTH]


def test_steps_that_leave_nothing_out_are_marked():
    assert [step.protected for step in step_plan(WanSettings(steps=4, protected_steps=2))] == [True, True, False, False]


def test_extrapolation_follows_a_line_and_keeps_what_was_computed():
    history, slope, start = VelocityHistory(), torch.randn(3), torch.randn(3)
    history.add(1.0, start)
    assert history.at(0.9) is start, "one value is kept as it is"
    history.add(0.8, start - 0.2 * slope)
    assert torch.allclose(history.at(0.5), start - 0.5 * slope, atol=1e-6)
    exact = torch.randn(3)
    history.add(0.5, exact)
    assert history.at(0.5) is exact


def test_cfg_zero_star_scales_the_negative_velocity_to_the_positive_one():
    positive = torch.tensor([2.0, 1.0])
    assert torch.allclose(guide([positive, positive / 3], 5.0, zero_star=True), positive), "they differ by scale alone"
    negative = torch.tensor([1.0, -1.0])
    scaled = 0.5 * negative
    assert torch.allclose(guide([positive, negative], 3.0, zero_star=True), scaled + 3 * (positive - scaled))
    assert torch.allclose(guide([positive, negative], 3.0), negative + 3 * (positive - negative))
    assert guide([positive], 7.0) is positive


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tea_cache": 0.2, "step_interval": 2}, "tea_cache"),
        ({"guidance_interval": (0.9, 0.5)}, "0.9"),
        ({"steps": 3, "zero_steps": 3}, "3"),
        ({"step_interval": 0}, "step_interval"),
        ({"attention": "flash"}, "attention"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, said):
    with pytest.raises(RequestError, match=said):
        WanSettings(**changes)
