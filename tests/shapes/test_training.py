"""The embedded models' architectures and training."""

import pytest
import torch
from torch import nn

from assd.errors import InputError
from assd.shapes import fit, networks, stages
from assd.shapes.corpus import Corpus, directed_clips


def test_the_control_net_starts_without_influence():
    """Its last convolutions are zero, and its edge convolutions end at the latents' size."""
    torch.manual_seed(0)
    image = networks.image_unet()
    network = networks.control_net(image)
    down, mid = network(
        torch.randn(2, 6, 16, 16), 10, torch.randn(2, 12, 64), torch.rand(2, 3, 64, 64), return_dict=False
    )
    assert not any(part.any() for part in (*down, mid))


def test_the_video_unet_starts_as_the_small_image_unet():
    """Applied to each frame alone, whatever the other frames are."""
    torch.manual_seed(0)
    image = networks.small_image_unet().eval()
    z, words = torch.randn(1, 6, 3, 16, 16), torch.randn(1, 12, 64)
    frames = image(z[0].movedim(0, 1), 500, words.expand(3, -1, -1)).sample
    assert torch.allclose(networks.video_unet(image).eval()(z, 500, words).sample[0].movedim(0, 1), frames, atol=1e-4)


def test_what_tells_a_group_apart_can_count_more():
    """An error that all members share counts once, one that differs counts `apart` times; at 1 it is the plain mean."""
    torch.manual_seed(0)
    task = stages.Denoising(torch.randn(8, 6, 2, 2), batch=8, group=4, apart=5)
    predicted, target = torch.randn(8, 6, 2, 2), torch.randn(8, 6, 2, 2)
    shared = torch.randn(2, 1, 6, 2, 2).expand(-1, 4, -1, -1, -1).flatten(0, 1)
    different = torch.tensor([1.0, -1.0, 1.0, -1.0] * 2).view(8, 1, 1, 1).expand_as(target)
    assert torch.allclose(task.error(target + shared, target), shared.square().mean(), atol=1e-6)
    assert torch.allclose(task.error(target + different, target), torch.tensor(5.0))
    task.apart = 1
    assert torch.allclose(task.error(predicted, target), (predicted - target).square().mean(), atol=1e-6)


def test_what_a_caption_foretells_is_the_mean_of_its_clips():
    """In groups of four directions of one colour, shape and background; every caption of the corpus is there."""
    clips = directed_clips("train", 2400)
    latents = torch.arange(2400.0)[:, None]
    chosen, means = stages.foretold(clips, latents)
    of_caption = {}
    for index, clip in enumerate(clips):
        of_caption.setdefault(clip.caption, []).append(float(index))
    assert max(map(len, of_caption.values())) > 2
    for clip, mean in zip(chosen, means, strict=True):
        assert mean.item() == pytest.approx(sum(of_caption[clip.caption]) / len(of_caption[clip.caption]))
    looks = [(c.colour, c.shape, c.background) for c in chosen]
    assert all(len(set(looks[i : i + 4])) == 1 for i in range(0, len(looks), 4))
    assert len(set(looks)) == len(looks) / 4
    assert {c.caption for c in chosen} == set(of_caption)


def test_a_pupil_with_its_teachers_weights_has_nothing_to_learn():
    """All that is left of the loss is the reader's, so it is the same whatever the clips' own noise."""
    torch.manual_seed(0)
    unet, text = networks.small_image_unet().eval(), networks.text_encoder().eval()
    clips, device, reader = directed_clips("train", 8), torch.device("cpu"), stages.Reader()

    def losses(latents, teacher):
        task = stages.Denoising(latents, batch=4)
        of = {"unet": unet, "text_encoder": text, "captions": stages.Captions(clips, device)}
        of |= {"reader": reader, "teacher": teacher}
        stage = stages.diffusion_stage("pupil", task=task, **of, device=device, steps=1, lr=1e-3)
        return stage.loss(torch.Generator().manual_seed(0)).item()

    teacher = stages.prediction_of(unet, text)
    near, far = torch.randn(8, 6, 8, 8), 9 * torch.randn(8, 6, 8, 8)
    assert losses(near, teacher) == pytest.approx(losses(far, teacher), abs=1e-5)
    assert losses(far, None) > losses(near, None) + 1


@pytest.mark.end_to_end
def test_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    """A stage that dies and starts again draws the batches and keeps the averages that the unbroken one would have."""
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(fit, "faster_precision", lambda stage, device: torch.float32)
    corpus = Corpus.render(directed_clips("train", 8))
    device = torch.device("cpu")

    def trained(folder, dies_at=None):
        torch.manual_seed(0)
        vae = networks.autoencoder()
        stage = stages.autoencoder_stage(vae, corpus, device, steps=6, batch=2)
        healthy, calls = stage.loss, []

        def loss(draw):
            calls.append(draw)
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            return healthy(draw)

        stage.loss = loss
        folder.mkdir(exist_ok=True)
        fit.fit(stage, folder, device)
        return vae.state_dict()

    unbroken = trained(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", dies_at=4)
    resumed = trained(tmp_path / "broken")
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_stage_of_another_length_is_refused(tmp_path):
    """A checkpoint's rate has fallen to zero: more steps would leave the one-cycle schedule."""
    cpu, line = torch.device("cpu"), nn.ModuleDict({"line": nn.Linear(1, 1)})

    def stage(steps):
        return fit.Stage("line", line, lambda draw: line["line"](torch.ones(1)).square().sum(), steps, lr=0.1)

    fit.fit(stage(4), tmp_path, cpu)
    fit.fit(stage(4), tmp_path, cpu)
    with pytest.raises(InputError, match="a stage of 4 steps, and 5 are asked for"):
        fit.fit(stage(5), tmp_path, cpu)
