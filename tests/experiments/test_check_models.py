"""The check of the published models' memory and speed, at the embedded models' size."""

import pytest
import torch
from hydra.utils import instantiate

from assd.config import composed
from experiments.check_models import edit_noise, matmul_teraflops, teraflops
from tests.commands import SOURCE, TARGET


@pytest.mark.end_to_end
def test_the_full_size_check_measures():
    """Two steps are two passes of either U-Net, which take less time than the steps; twice the branches, twice the
    arithmetic. At the embedded models' size; the published one takes minutes."""
    method = instantiate(composed(["steps.distillation=2", "device=cpu"]).method, _convert_="all")
    trial = edit_noise(method, 0, SOURCE, TARGET)
    assert len(trial.passes) == 4
    assert 0 < sum(trial.passes) < sum(trial.steps)
    assert not torch.equal(trial.Z, trial.Z_ref)
    shape = trial.Z.shape
    assert matmul_teraflops(torch.device("cpu"), torch.float32) > 0.001
    assert teraflops(method.model.unet, (8, *shape), 12) == 2 * teraflops(method.model.unet, (4, *shape), 12) > 0
