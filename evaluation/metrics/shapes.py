"""What only the embedded world allows: reading off an edited clip's pixels whether the edit was made."""

from assd.data import Prompts
from assd.shapes.judge import judge
from assd.shapes.world import ATTRIBUTES
from evaluation.case import Case


class EditSuccess:
    """1 where every attribute that the target prompt changes has its new value, read off the pixels; else 0."""

    name = "edit made (judged by pixels, share)"
    better = "higher"

    def __call__(self, case: Case) -> float | None:
        """None outside the embedded world, and where no known attribute changes."""
        asked = changed_attributes(case.prompts)
        if case.footage.truth is None or not asked:
            return None
        seen = judge(case.frames)
        return float(all(seen[attribute] == value for attribute, value in asked.items()))


def changed_attributes(prompts: Prompts) -> dict[str, str]:
    """The attributes whose word is in the target prompt and not in the source prompt."""
    source, target = (prompt.lower().split() for prompt in prompts)
    return {
        attribute: value
        for attribute, values in ATTRIBUTES.items()
        for value in values
        if value in target and value not in source
    }
