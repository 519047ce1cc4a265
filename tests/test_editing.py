"""`assd.edit`: editing from Python."""

import numpy as np
import pytest
import torch
from PIL import Image

import assd
from assd.data.video import write_video
from assd.errors import InputError
from tests.commands import SOURCE, TARGET

PROMPTS = dict(source=SOURCE, target=TARGET)
TOLD = ["steps.distillation=2", "device=cpu"]
FRAMES = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


@pytest.mark.end_to_end
@pytest.mark.parametrize("kind", ["path", "array", "images"])
def test_edit_from_python(tmp_path, kind):
    """`assd.edit` takes a path, an array or PIL images, and gives back bytes that are no longer the source."""
    video = {"array": FRAMES, "images": [Image.fromarray(frame) for frame in FRAMES]}.get(kind)
    if video is None:
        video = tmp_path / "eight.mp4"
        write_video(video, torch.from_numpy(FRAMES), 8.0)
    steps = []
    edited = assd.edit(
        video, **PROMPTS, overrides=TOLD, progress=lambda step, all_steps: steps.append((step, all_steps))
    )
    assert edited.shape == (8, 64, 64, 3)
    assert edited.dtype == np.uint8
    assert steps == [(1, 2), (2, 2)]
    reconstruction = assd.edit(video, **PROMPTS, overrides=[*TOLD, "optimizer.lr=0"])
    assert (edited != reconstruction).mean() > 0.1


def test_edit_refuses_what_is_no_video():
    """Floats, or frames without colour, are refused by name and shape."""
    with pytest.raises(InputError, match=r"video must be bytes.*float64 of shape \(8, 64, 64, 3\)"):
        assd.edit(np.zeros((8, 64, 64, 3)), **PROMPTS)
    for frames in ([], [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)]):
        with pytest.raises(InputError, match="frames of one size"):
            assd.edit(frames, **PROMPTS)
    with pytest.raises(InputError, match="num_steps"):
        assd.edit(np.zeros((8, 64, 64, 3), np.uint8), **PROMPTS, overrides=["steps.distillation=0"])


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("score_distillation", "loss.video.negative_prompt"),
        ("score_distillation", "loss.joint_guidance.negative_prompt"),
        *((name, "method.negative_prompt") for name in ("tune_a_video", "fatezero", "tokenflow", "flatten")),
        ("control_video", "method.negative_prompt"),
        ("flatten", "method.inversion_prompt"),
    ],
)
def test_no_prompt_has_unknown_words(method, argument):
    """Guidance away from a word that the model does not know would lead away from any unknown word."""
    with pytest.raises(InputError, match="does not know 'ugly'"):
        assd.edit(FRAMES, **PROMPTS, method=method, overrides=[f"++{argument}=ugly", "device=cpu"])


def test_there_is_something_to_edit_to():
    """A list without targets, and a canvas of which a part is missing, are refused by name."""
    with pytest.raises(InputError, match="target must be"):
        assd.edit(FRAMES, SOURCE, [], overrides=TOLD)
    with pytest.raises(InputError, match="height is null"):
        assd.edit(FRAMES, **PROMPTS, overrides=[*TOLD, "model.height=null"])


@pytest.mark.end_to_end
def test_another_method_from_python():
    """method="reconstruction" gives back the autoencoder's video, whatever is asked for, several targets as a list."""
    one = assd.edit(FRAMES, **PROMPTS, method="reconstruction", overrides=["device=cpu"])
    both = assd.edit(FRAMES, SOURCE, [TARGET, SOURCE], method="reconstruction", overrides=["device=cpu"])
    assert one.shape == (8, 64, 64, 3)
    assert all((edited == one).all() for edited in both)
