"""Plans the denoising steps of a window from the settings alone: which run the network, and for which prompt.

The engine runs this plan, and estimates count its passes, so that both always agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from ex4d_core.wan_settings import WanSettings

POSITIVE, NEGATIVE = 0, 1


@dataclass(frozen=True)
class Step:
    """One denoising step.

    Attributes:
        sigma: share of noise that it starts from, in (0, 1].
        prompts: whose velocities it needs: (), (POSITIVE,), or (POSITIVE, NEGATIVE) for classifier-free guidance. A
            step that needs none leaves the latents as they are, as the zero-init of CFG-Zero* does.
        computed: those of them that the network computes; the others are extrapolated from the steps before.
        protected: computed in full, with dense attention.
    """

    sigma: float
    prompts: tuple[int, ...]
    computed: tuple[int, ...]
    protected: bool


def flow_sigma(step: int, steps: int, shift: float) -> float:
    """Sigma at the start of a step of Wan's flow-matching schedule."""
    unshifted = 1 - step / steps
    return shift * unshifted / (1 + (shift - 1) * unshifted)


def step_plan(settings: WanSettings, *, guided: bool = True) -> list[Step]:
    """Plan all steps of a window.

    Args:
        guided: whether there is a negative prompt; with a guidance of 1 none is needed.
    """
    low, high = settings.guidance_interval
    plan: list[Step] = []
    # Each prompt's steps since the network last ran for it; both run at the same steps, or guidance would amplify what
    # differs between their times.
    since: dict[int, int] = {}
    for index in range(settings.steps):
        sigma = flow_sigma(index, settings.steps, settings.shift)
        protected, last = index < settings.protected_steps, index == settings.steps - 1
        prompts: tuple[int, ...] = ()
        if index >= settings.zero_steps:
            with_negative = guided and settings.guidance != 1 and low <= sigma <= high
            prompts = (POSITIVE, NEGATIVE) if with_negative else (POSITIVE,)
        due = (
            protected
            or last
            or any(since.get(prompt, settings.step_interval) + 1 >= settings.step_interval for prompt in prompts)
        )
        computed = prompts if due else ()
        since |= {prompt: 0 if due else since[prompt] + 1 for prompt in prompts}
        plan.append(Step(sigma, prompts, computed, protected))
    return plan


def pass_count(settings: WanSettings) -> int:
    """Passes of the network in a window, one for each prompt of each step; TeaCache leaves out further ones."""
    return sum(len(step.computed) for step in step_plan(settings))
