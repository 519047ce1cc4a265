"""Timesteps, injection lists and blend weights."""

from collections.abc import Iterator

from assd.diffusion.schedule import CLEAN
from assd.methods.tokenflow import TokenFlow
from assd.methods.tokenflow.key_frames import KeyFrames
from tests.parity.points import Case, Point
from tests.parity.tokenflow.setup import EXACT, PROMPT_KEYS, PUBLISHED_BLEND


def prompts(case: Case) -> Iterator[Point]:
    """The recorded embeddings are those of the formula."""
    for name, key in PROMPT_KEYS.values():
        yield case.exact(name, case.normal(key, case[name].shape))


def schedules(case: Case, pnp: TokenFlow, sdedit: TokenFlow) -> Iterator[Point]:
    """Timesteps, abar at them, and the steps at which features are injected."""

    def abar(timesteps: list[int]) -> list[float]:
        return [pnp.model.schedule[t].alpha ** 2 for t in timesteps]

    def injected(ending: str) -> list[int]:
        named = [any(name.endswith(ending) for name in pnp.injection.layers(i)) for i in range(len(pnp.timesteps))]
        return [t for t, is_named in zip(pnp.timesteps, named) if is_named]

    yield case.exact("sched.inversion_timesteps", pnp.inversion_timesteps)
    yield case.of_largest("sched.alphas_cumprod_inversion", abar(pnp.inversion_timesteps), EXACT)
    yield case.of_largest("sched.final_alpha_cumprod", abar([CLEAN])[0], EXACT)
    yield case.exact("sched.sampling_timesteps", pnp.timesteps)
    yield case.of_largest("sched.alphas_cumprod_sampling", abar(pnp.timesteps), EXACT)
    yield case.exact("sched.pnp_attn_timesteps", injected("to_q"))
    yield case.exact("sched.pnp_f_timesteps", injected("conv2"))
    yield case.exact("sched.sdedit_timesteps", sdedit.timesteps)


def blend_weights(case: Case) -> Iterator[Point]:
    """The own key frame's share in the frames of a batch behind the first."""
    sizes = {name: len(case[name]) for name in case.arrays.files if name.startswith("weights.blend")}
    for name, n in sizes.items():
        weights = KeyFrames(2 * n, n, **PUBLISHED_BLEND).weights([0, n])
        yield case.of_largest(name, weights[n:, 1], EXACT)
