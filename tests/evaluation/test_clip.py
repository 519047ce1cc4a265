"""Known answers of the CLIP metrics."""

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn import functional as F

from assd.data.video import to_bytes
from assd.errors import InputError
from assd.shapes.dataset import footage
from evaluation.metrics.clip import ClipConsistency, ClipDirection, ClipFrameAccuracy, ClipScorer, ClipText, cosines
from tests.evaluation.cases import COLOUR_PAIR, case, no_meaning, plain_case, source, truth


@pytest.fixture(scope="module")
def scorer():
    return ClipScorer("local-dir:pkg://assd.shapes/weights/clip", device="cpu")


def test_a_still_video_is_consistent(scorer):
    """Consistency of a still video is 1; of one that jumps once, consecutive pairs notice less of it than all pairs."""
    still = case(lambda known: known.frames[:1].repeat(8, 1, 1, 1))
    for pairs in ("consecutive", "all"):
        assert ClipConsistency(scorer, pairs)(still) == pytest.approx(1, abs=1e-5)
    jump = case(lambda known: torch.cat([known.frames[:1].repeat(4, 1, 1, 1), known.truth[:1].repeat(4, 1, 1, 1)]))
    jumped = 1 - ClipConsistency(scorer)(jump)  # once in 7 consecutive pairs, in 16 of all 28
    assert 1 - ClipConsistency(scorer, "all")(jump) == pytest.approx(jumped * 7 * 16 / 28, rel=1e-3)


def test_clip_text_is_open_clips(scorer):
    """Text alignment is the mean cosine that open_clip's own functions give."""
    video = case(source)
    image = scorer.model.encode_image(((video.frames + 1) / 2 - 0.5) / 0.5, normalize=True)
    text = scorer.model.encode_text(scorer.tokenizer([video.prompts.target]), normalize=True)
    assert ClipText(scorer)(video) == pytest.approx((image @ text.T).mean().item(), abs=1e-5)


def test_frames_are_prepared_as_open_clip_does(scorer):
    """Resized, cropped and normalised: the embeddings are those of open_clip's own transform, but for rounding."""
    wide = F.interpolate(footage(COLOUR_PAIR).frames, size=(120, 168), mode="bicubic").clamp(-1, 1)
    transform = image_transform_v2(PreprocessCfg(**scorer.model.visual.preprocess_cfg), False)
    images = torch.stack([transform(Image.fromarray(frame.numpy())) for frame in to_bytes(wide)])
    expected = scorer.model.encode_image(images, normalize=True)
    assert (1 - cosines(scorer.embed_frames(wide), expected)).abs().max() < 1e-3


def test_clip_sees_the_edit(scorer):
    """The true edit's frames are nearer to the target prompt and moved towards it; the source's did not move at all."""
    accuracy, direction = ClipFrameAccuracy(scorer), ClipDirection(scorer)
    assert accuracy(case(truth)) == 1
    assert accuracy(case(source)) == 0
    assert direction(case(truth)) > 0.3
    assert direction(case(source)) == 0


def test_an_unknown_clip_model_is_an_input_error():
    """The sentence names the model."""
    with pytest.raises(InputError, match="no-such-folder"):
        ClipScorer("local-dir:/no-such-folder", device="cpu")


def test_a_single_frame_is_not_consistent_with_itself(scorer):
    """One frame has no next one: no value, and the reason."""
    assert no_meaning(ClipConsistency(scorer), plain_case(torch.rand(1, 3, 64, 64))) == "a single frame"


def test_unknown_words_are_named(scorer):
    """A prompt that this CLIP cannot read is no score of noise."""
    with pytest.raises(InputError, match="does not know 'zebra'"):
        scorer.embed_prompts(["a red zebra"])


def test_unknown_pairs_are_refused(scorer):
    """The known ones are named."""
    with pytest.raises(InputError, match="pairs must be one of consecutive, all"):
        ClipConsistency(scorer, "some")
