"""Do the published editors compute here what their authors' code computes?

    python -m tests.parity ../shared/parity/<method>/<case> ...

prints one line a recorded point. A case is a folder with `case.json` and `arrays.npz`; the folder above it names the
method, whose points are in the module of that name: `points(case)` yields them, the earliest computed first.
"""
