"""Known answers of the scores, and a run directory scored without the editor."""

import math

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from assd.data import Prompts, TextVideoPair
from assd.errors import InputError
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import footage
from assd.video import to_bytes, write_video
from evaluation import run
from evaluation.clip import ClipScorer

PAIR, UNFINISHED = clip_pairs()[:2]


@pytest.fixture(scope="module")
def scorer():
    return ClipScorer()


def scored(frames, pair=PAIR):
    """A video under judgement against the first pair, whose edit is a colour."""
    known = footage(pair)
    prompts = Prompts(pair.source.caption, pair.target.caption)
    return run.Scored(frames(known), known.frames, TextVideoPair(pair.id, prompts, lambda: known), known)


def test_a_still_video_is_consistent(scorer):
    """CLIP consistency of a still video is 1, of a moving one less."""
    still = scored(lambda known: known.frames[:1].repeat(8, 1, 1, 1))
    assert run.clip_consistency(scorer, still) == pytest.approx(1, abs=1e-5)
    assert run.clip_consistency(scorer, scored(lambda known: known.frames)) < 1


def test_clip_text_is_open_clips(scorer):
    """Text alignment is the mean cosine that open_clip's own functions give."""
    video = scored(lambda known: known.frames)
    image = scorer.model.encode_image(((video.frames + 1) / 2 - 0.5) / 0.5, normalize=True)
    text = scorer.model.encode_text(scorer.tokenizer([video.pair.prompts.target]), normalize=True)
    assert run.clip_text(scorer, video) == pytest.approx((image @ text.T).mean().item(), abs=1e-5)


def test_the_true_edit_is_perfect_and_the_source_is_poor(scorer):
    """The true edit scores at infinity against itself and is preferred; the unedited source is not."""
    truth, source = scored(lambda known: known.truth), scored(lambda known: known.frames)
    assert run.truth_psnr(truth) == run.preservation(truth) == math.inf
    assert run.truth_psnr(source) < 30
    assert run.clip_prefers_target(scorer, truth) == 1
    assert run.clip_prefers_target(scorer, source) == 0


def test_preservation_looks_outside_the_edit():
    """A change within the object costs nothing, the same change outside does; the number is 10 log10(1 / MSE)."""
    mask = footage(PAIR).masks[:, None]
    inside = scored(lambda known: torch.where(mask, -known.frames, known.frames))
    everywhere = scored(lambda known: known.frames + 0.2)
    assert run.preservation(inside) == math.inf
    assert run.preservation(everywhere) == pytest.approx(20, abs=1e-3)  # 0.2 of [-1, 1] is 0.1 of [0, 1]


def test_scores_of_a_run_directory(scorer, tmp_path):
    """Files alone are scored; the unedited source is a row of its own, a pair without result a row with its reason."""
    config = {
        "dataset": {"_target_": "assd.shapes.dataset.shapes", "num_frames": 8, "height": 64, "width": 64, "limit": 2}
    }
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    known = footage(PAIR)
    folder = tmp_path / "edits" / PAIR.id
    folder.mkdir(parents=True)
    for name, frames in {"source": known.frames, "reconstruction": known.frames, "edited": known.truth}.items():
        write_video(folder / f"{name}.mp4", to_bytes(frames), known.fps)
    scores = run.score_run(tmp_path, scorer)
    assert isinstance(scores, pd.DataFrame)
    values = scores.set_index(["pair", "video", "metric"]).value
    prefers = next(name for name in run.metrics(scorer) if name.startswith("prefers"))
    assert values[PAIR.id, "edited", prefers] == 1
    assert values[PAIR.id, "source", prefers] == 0
    assert scores[scores.pair == UNFINISHED.id].reason.tolist() == ["not finished"]


def test_a_folder_that_is_no_run(scorer, tmp_path):
    """The error says what a run directory has."""
    with pytest.raises(InputError, match=r"no config\.yaml"):
        run.score_run(tmp_path, scorer)
