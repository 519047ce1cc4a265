"""What only the embedded world allows: reading off an edited clip's pixels whether the edit was made."""

from assd.shapes.judge import judge
from evaluation.case import Case, NoMeaning


class EditSuccess:
    """1 where every attribute that the edit gives a new value has it, read off the pixels; else 0."""

    name = "edit made (judged by pixels, share)"
    better = "higher"

    def __call__(self, case: Case) -> float:
        """Raises NoMeaning outside the embedded world, where no attribute can be read off."""
        if not case.footage.asked:
            raise NoMeaning("only the embedded world's attributes can be read off pixels")
        seen = judge(case.frames)
        return float(all(seen[attribute] == value for attribute, value in case.footage.asked.items()))
