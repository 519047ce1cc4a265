"""The weights that are shipped, measured on clips that no training saw."""

import hashlib
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from assd.config import composed
from assd.models import load
from assd.models.hub import resolve_folder
from assd.shapes.corpus import clip
from assd.shapes.judge import judge
from assd.shapes.world import Clip
from evaluation.metrics.clip import ClipScorer
from experiments.check_shapes import alternatives, autoencoder_psnr, check_clip, edge_f1, generate

WEIGHTS = "pkg://assd.shapes/weights"
CLIP = Clip("red", "star", "left", "sand", radius=0.33, x=0.0, y=0.1, travel=0.7, texture=3)


@pytest.mark.parametrize(
    ("chosen", "parts"),
    [
        ("model", ["vae", "video_text_encoder", "video_unet"]),
        ("image_model", ["image_unet", "text_encoder", "vae"]),
        ("control_net.network", ["control_net"]),
    ],
)
def test_a_runs_identity_names_its_weights(chosen, parts):
    """A configuration states the digest of the weights it names: other weights make another run, never half of one."""
    files = [f for part in parts for f in sorted(Path(resolve_folder(f"{WEIGHTS}/{part}")).glob("*.safetensors"))]
    digest = hashlib.blake2b(b"".join(f.read_bytes() for f in files), digest_size=4).hexdigest()
    assert OmegaConf.select(composed(["method=control_video"]), chosen).revision == digest


def test_embedded_autoencoder():
    """What is shipped reconstructs held-out clips at the stated quality."""
    model = load(WEIGHTS, unet="image_unet")
    assert autoencoder_psnr(model, [clip("validation", index) for index in range(12)]) >= 34


@pytest.fixture(scope="module")
def clip_accuracy():
    """Top-1 of the shipped CLIP among captions that differ in one attribute, on held-out frames."""
    scorer = ClipScorer(f"local-dir:{WEIGHTS}/clip", device="cpu")
    return check_clip(scorer, [clip("validation", index) for index in range(64)])


@pytest.mark.parametrize("attribute", ["colour", "background", "shape"])
def test_embedded_clip(clip_accuracy, attribute):
    """What is shipped tells captions apart that differ in one attribute."""
    assert clip_accuracy[f"CLIP: {attribute}"] >= 0.9


def test_alternatives_differ_in_one_attribute():
    """The captions that CLIP must tell apart: the right one, and visible ones with another value of one attribute."""
    variants = alternatives(CLIP, "colour")
    assert CLIP in variants
    assert len(variants) == 7  # eight colours, of which yellow can't be seen on sand
    assert {v.shape for v in variants} == {"star"}


def test_edge_f1_forgives_one_pixel():
    """A line moved by one pixel is the same edge, by two it is none; half of the edges found is a recall of a half."""
    line = torch.zeros(1, 16, 16, dtype=torch.bool)
    line[0, 4] = True
    assert edge_f1(line.roll(1, 1), line) == 1
    assert edge_f1(line.roll(2, 1), line) == 0
    both = line | line.roll(8, 1)
    assert edge_f1(line, both) == pytest.approx(2 / 3)


@pytest.mark.end_to_end
def test_embedded_video_model_obeys_its_prompt():
    """What is shipped moves things the way it is told, in the colour and over the background it is told."""
    model = load(WEIGHTS, unet="video_unet", text_encoder="video_text_encoder", num_frames=8, height=64, width=64)
    clips = [clip("validation", index) for index in range(8)]
    frames = generate(model, [c.caption for c in clips], num_frames=8, steps=8, w=2.0, seed=0)
    seen = [judge(video) for video in frames]
    for attribute in ("colour", "motion", "background"):
        assert sum(s[attribute] == getattr(c, attribute) for s, c in zip(seen, clips)) >= 6, attribute
