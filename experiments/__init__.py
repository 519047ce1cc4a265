"""One entry per table and figure of the paper, and the benchmark of speed. Run from a clone with `python -m`."""
