"""The table of all bad inputs, by what they are."""

from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.five import FIVE
from tests.bad_inputs.given import CONFIGURATIONS, PROMPT_TABLES, VIDEOS
from tests.bad_inputs.models import MODELS
from tests.bad_inputs.others import BENCHMARK, EXPERIMENTS, STUDIES
from tests.bad_inputs.runs import READ, RESUMED, SCORED

GROUPS: dict[str, dict[str, BadInput]] = {
    "configuration": CONFIGURATIONS,
    "prompts": PROMPT_TABLES,
    "video": VIDEOS,
    "model": MODELS,
    "run that goes on": RESUMED,
    "run that is read": READ,
    "run that is scored": SCORED,
    "benchmark": BENCHMARK,
    "FiVE-Bench": FIVE,
    "study": STUDIES,
    "experiment": EXPERIMENTS,
}
BAD_INPUTS = {f"{group}: {what}": bad for group, entries in GROUPS.items() for what, bad in entries.items()}
