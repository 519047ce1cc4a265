"""Everything that a person, a disk or a stranger can get wrong, each with the sentence that it must be answered by."""
