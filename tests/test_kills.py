"""A run that is killed again and again ends as one that nobody disturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.end_to_end
def test_ten_kills():
    """SIGKILL at ten random moments, each time the same command again: the same bits. `make soak` has a hundred."""
    command = [sys.executable, "-m", "tests.soak", "--kills", "10"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills" in done.stdout
