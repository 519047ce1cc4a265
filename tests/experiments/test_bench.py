"""The benchmark: that an editor is timed beside the passes that it makes, and what is left out is said."""

from collections import Counter

import pytest

from experiments.bare import EDITORS, short_edits
from experiments.passes import networks_of, noting_passes
from tests.commands import SOURCE, TARGET

pytestmark = pytest.mark.end_to_end


def test_bare_passes_are_those_of_the_edit():
    """One step a phase of Tune-A-Video: tuning with its gradient, inversion, and sampling with both halves."""
    edits, skipped = short_edits(["device=cpu"], 1, SOURCE, TARGET)
    assert sorted([*edits, *skipped]) == sorted(EDITORS)
    edit = edits["tune_a_video"]
    (unet,) = networks_of(edit.method).values()
    of_unet = [(noted.batch, bool(noted.trained)) for noted in edit.passes if noted.network is unet]
    assert of_unet == [(8, True), (8, False), (16, False)]
    vae = edit.model.vae
    assert Counter(noted.network for noted in edit.passes) == {unet: 3, vae.encoder: 2, vae.decoder: 4}
    with noting_passes([unet, vae.encoder, vae.decoder]) as again:
        edit.bare()
    assert [noted.args[0].shape for noted in again] == [noted.args[0].shape for noted in edit.passes]


def test_an_editor_without_its_network_is_left_out(tmp_path):
    edits, skipped = short_edits(["device=cpu", f"image_model.path={tmp_path / 'nowhere'}"], 1, SOURCE, TARGET)
    assert not edits
    assert all("there is no such folder" in why for why in skipped.values())
