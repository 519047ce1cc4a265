"""The embedded models' training."""

import pytest
import torch

from assd.shapes import train
from assd.shapes.corpus import Corpus, directed_clips
from assd.shapes.networks import autoencoder


@pytest.mark.end_to_end
def test_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    """A stage that dies and starts again draws the batches and keeps the averages that the unbroken one would have."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    corpus = Corpus.render(directed_clips("train", 8))
    device = torch.device("cpu")

    def fit(folder, dies_at=None):
        torch.manual_seed(0)
        vae = autoencoder()
        stage = train.autoencoder_stage(vae, corpus, device, steps=6, batch=2)
        healthy, calls = stage.loss, []

        def loss(draw, step):
            calls.append(draw)
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            return healthy(draw, step)

        stage.loss = loss
        folder.mkdir(exist_ok=True)
        train.fit(stage, folder, device)
        return vae.state_dict()

    unbroken = fit(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", dies_at=4)
    resumed = fit(tmp_path / "broken")
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)
