"""Known answers of every metric."""

import math

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.models import squeezenet1_1
from torchvision.models.optical_flow import raft_large

from assd.data.pairs import Footage, Prompts
from assd.data.video import to_bytes
from assd.errors import InputError
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import footage
from evaluation import clip, fidelity, motion, shapes
from evaluation.case import Case

COLOUR_PAIR = next(pair for pair in clip_pairs() if pair.edit == "colour")
BACKGROUND_PAIR = next(pair for pair in clip_pairs() if pair.edit == "background")


@pytest.fixture(scope="module")
def scorer():
    return clip.ClipScorer("local-dir:pkg://assd.shapes/weights/clip", device="cpu")


def case(frames, pair=COLOUR_PAIR):
    """The video that `frames` makes of a pair's footage."""
    known = footage(pair)
    return Case(frames(known), Prompts(pair.source.caption, pair.target.caption), known, known.frames)


def source(known):
    return known.frames


def truth(known):
    return known.truth


def plain_case(frames, masks=None, of=None):
    """A video of any content against a source, with a mask or none."""
    return Case(frames, Prompts("a", "b"), Footage(frames if of is None else of, 8.0, masks))


def test_a_still_video_is_consistent(scorer):
    """Consistency of a still video is 1; of one that jumps once, consecutive pairs notice less of it than all pairs."""
    still = case(lambda known: known.frames[:1].repeat(8, 1, 1, 1))
    for pairs in ("consecutive", "all"):
        assert clip.ClipConsistency(scorer, pairs)(still) == pytest.approx(1, abs=1e-5)
    jump = case(lambda known: torch.cat([known.frames[:1].repeat(4, 1, 1, 1), known.truth[:1].repeat(4, 1, 1, 1)]))
    jumped = 1 - clip.ClipConsistency(scorer)(jump)  # once in 7 consecutive pairs, in 16 of all 28
    assert 1 - clip.ClipConsistency(scorer, "all")(jump) == pytest.approx(jumped * 7 * 16 / 28, rel=1e-3)


def test_clip_text_is_open_clips(scorer):
    """Text alignment is the mean cosine that open_clip's own functions give."""
    video = case(source)
    image = scorer.model.encode_image(((video.frames + 1) / 2 - 0.5) / 0.5, normalize=True)
    text = scorer.model.encode_text(scorer.tokenizer([video.prompts.target]), normalize=True)
    assert clip.ClipText(scorer)(video) == pytest.approx((image @ text.T).mean().item(), abs=1e-5)


def test_frames_are_prepared_as_open_clip_does(scorer):
    """Resized, cropped and normalised: the embeddings are those of open_clip's own transform, but for rounding."""
    wide = F.interpolate(footage(COLOUR_PAIR).frames, size=(120, 168), mode="bicubic").clamp(-1, 1)
    transform = image_transform_v2(PreprocessCfg(**scorer.model.visual.preprocess_cfg), False)
    images = torch.stack([transform(Image.fromarray(frame.numpy())) for frame in to_bytes(wide)])
    expected = scorer.model.encode_image(images, normalize=True)
    assert (1 - clip.cosines(scorer.embed_frames(wide), expected)).abs().max() < 1e-3


def test_clip_sees_the_edit(scorer):
    """The true edit's frames are nearer to the target prompt and moved towards it; the source's did not move at all."""
    accuracy, direction = clip.ClipFrameAccuracy(scorer), clip.ClipDirection(scorer)
    assert accuracy(case(truth)) == 1
    assert accuracy(case(source)) == 0
    assert direction(case(truth)) > 0.3
    assert direction(case(source)) == 0


def test_an_unknown_clip_model_is_an_input_error():
    """The sentence names the model."""
    with pytest.raises(InputError, match="no-such-folder"):
        clip.ClipScorer("local-dir:/no-such-folder", device="cpu")


@pytest.mark.parametrize("pair", [COLOUR_PAIR, BACKGROUND_PAIR], ids=["colour", "background"])
def test_the_true_edit_is_perfect_and_the_source_is_poor(pair):
    """Every truth metric has its best value for the true edit itself, and a poor one for the unedited source."""
    perfect, unedited = case(truth, pair), case(source, pair)
    for region in ("all", "object", "background"):
        assert fidelity.PSNR("truth", region)(perfect) == fidelity.IDENTICAL
        assert fidelity.SSIM("truth", region)(perfect) == pytest.approx(1, abs=1e-4)
    changed, stayed = ("object", "background") if pair is COLOUR_PAIR else ("background", "object")
    assert fidelity.PSNR("truth", changed)(unedited) < 20
    assert fidelity.PSNR("source", stayed)(perfect) == fidelity.IDENTICAL
    assert fidelity.SSIM("source", stayed)(perfect) == pytest.approx(1, abs=1e-4)
    assert fidelity.Change("source", stayed)(perfect) == 0
    assert shapes.EditSuccess()(perfect) == 1
    assert shapes.EditSuccess()(unedited) == 0


def test_what_was_to_change_is_not_to_be_preserved():
    """Against the source, the object has no value where it was to change, nor the background where that was."""
    for pair, changed in ((COLOUR_PAIR, "object"), (BACKGROUND_PAIR, "background")):
        assert fidelity.PSNR("source", changed)(case(truth, pair)) is None
    both = next(pair for pair in clip_pairs() if pair.edit == "colour+background")
    for region in ("object", "background"):
        assert fidelity.Change("source", region)(case(source, both)) is None
        assert fidelity.Change("truth", region)(case(source, both)) > 0
    assert motion.Flicker()(case(source, BACKGROUND_PAIR)) is None


def test_preservation_looks_outside_the_edit():
    """A change within the edit costs nothing; 0.1 everywhere is 20 dB and 25.5 grey levels."""
    inside = case(
        lambda known: torch.where((known.truth != known.frames).any(1, keepdim=True), -known.frames, known.frames)
    )
    assert fidelity.PSNR("source", "background")(inside) == fidelity.IDENTICAL
    dim = plain_case(
        torch.zeros(3, 3, 16, 16) + 0.2, torch.zeros(3, 16, 16, dtype=torch.bool), torch.zeros(3, 3, 16, 16)
    )
    assert fidelity.PSNR("source", "background")(dim) == pytest.approx(20, abs=1e-3)
    assert fidelity.Change("source", "background")(dim) == pytest.approx(25.5, abs=1e-3)


def test_a_black_mask_inflates():
    """FiVE-Bench's convention divides by the whole frame: with half of it masked, 3 dB more than the region's own."""
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[..., :8] = True
    video = plain_case(torch.full((3, 3, 16, 16), 0.2), masks, torch.zeros(3, 3, 16, 16))
    own = fidelity.PSNR("source", "background")(video)
    assert fidelity.PSNR("source", "background", area_normalised=False)(video) == pytest.approx(
        own + 10 * math.log10(2), abs=1e-3
    )


def test_ssim_is_torchmetrics():
    """Without normalisation by area it is the library's own number of the masked frames; with it, of their map."""
    torch.manual_seed(0)
    of = torch.rand(3, 3, 32, 32) * 2 - 1
    frames = of + 0.3 * torch.randn(of.shape)
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[:, :12] = True
    kept, a, b = ~masks[:, None], (frames + 1) / 2, (of + 1) / 2
    five = structural_similarity_index_measure(a * kept, b * kept, data_range=1.0).item()
    video = plain_case(frames, masks, of)
    assert fidelity.SSIM("source", "background", area_normalised=False)(video) == pytest.approx(five, abs=1e-5)
    _, whole = structural_similarity_index_measure(torch.where(kept, a, b), b, data_range=1.0, return_full_image=True)
    mean = whole[kept.expand_as(whole)].mean().item()
    assert fidelity.SSIM("source", "background")(video) == pytest.approx(mean, abs=1e-5)
    assert 0.2 < mean < five < 0.95


def test_what_is_not_known_has_no_value(scorer):
    """No mask and no true edit: no preservation, no truth, no success; a single frame: no consistency, no motion."""
    video = plain_case(torch.rand(3, 3, 32, 32))
    assert fidelity.PSNR("source", "background")(video) is None
    assert fidelity.PSNR("truth")(video) is None
    assert fidelity.PSNR("reconstruction")(video) is None
    assert shapes.EditSuccess()(video) is None
    assert motion.Flicker()(video) is None
    single = plain_case(torch.rand(1, 3, 64, 64))
    assert clip.ClipConsistency(scorer)(single) is None
    assert motion.WarpError()(single) is None


def texture(shift):
    """A smooth random texture of 96 x 96 pixels, moved to the right by so many pixels."""
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, 24, 40) * 2 - 1
    fine = torch.nn.functional.interpolate(coarse, size=(96, 160), mode="bicubic").clamp(-1, 1)
    return fine[0, :, :, 32 - shift : 128 - shift]


def test_warp_error_of_a_shifted_texture():
    """Near 0 for a texture that moves rigidly, and much more when its frames are shuffled."""
    moving = torch.stack([texture(2 * i) for i in range(5)])
    still = motion.WarpError()(plain_case(moving))
    shuffled = motion.WarpError()(plain_case(moving[[0, 3, 1, 4, 2]], of=moving))
    assert still < 0.5
    assert shuffled > 20 * still


def test_warping_undoes_a_known_flow():
    """Frames moved by whole pixels come back exactly, by half pixels as the mean of neighbours."""
    ramp = torch.arange(8.0).repeat(1, 1, 8, 1) / 8
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2
    assert torch.allclose(motion.warp(ramp, flow)[..., :6], ramp[..., 2:])
    flow[:, 0] = 0.5
    assert torch.allclose(motion.warp(ramp, flow)[..., :7], (ramp[..., :7] + ramp[..., 1:]) / 2)


def test_points_that_leave_or_disagree_are_left_out():
    """Two pixels to the right: the last two columns leave the frame; where the way back differs, nothing is seen."""
    forward = torch.zeros(1, 2, 8, 8)
    forward[:, 0] = 2
    backward = -forward
    backward[:, :, :4] = 0  # the upper half says that nothing came from there
    seen = motion.visible_in_both(forward, backward)[0]
    assert not seen[:4].any()
    assert seen[5:, :6].all()
    assert not seen[:, 6:].any()


def test_flow_is_the_shift():
    """OpenCV's flow of the shifted texture is two pixels to the right."""
    first, second = (motion.enlarged(texture(shift)[None]) for shift in (0, 2))
    flow = motion.dis_flow(first, second)[0, :, 64:-64, 64:-64] / (first.shape[-1] / 96)
    assert flow[0].mean() == pytest.approx(2, abs=0.1)
    assert flow[1].mean() == pytest.approx(0, abs=0.1)


def test_flicker_counts_what_blinks_outside_the_edit():
    """Half the range from frame to frame is 127.5 grey levels; inside the mask it counts for nothing."""
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[:, :4] = True
    blinking = torch.zeros(4, 3, 8, 8)
    blinking[::2, :, 4:] = 1.0
    assert motion.Flicker()(plain_case(blinking, masks)) == pytest.approx(127.5)
    assert motion.Flicker()(plain_case(blinking.flip(2), masks)) == 0


def test_metrics_whose_weights_are_missing_say_where_they_go(monkeypatch, tmp_path):
    """LPIPS and RAFT name the file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for make in (fidelity.LPIPS, lambda: motion.WarpError("raft")):
        with pytest.raises(InputError, match=str(tmp_path)):
            make()


@pytest.fixture
def put_weights(monkeypatch, tmp_path):
    """Lays a network's random weights where torchvision's published ones would lie."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def put(network: torch.nn.Module, file: str) -> None:
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / file)

    return put


def test_lpips_looks_outside_the_edit(put_weights):
    """Of the source itself the distance is 0, and of a change within the edit; outside it a change is seen."""
    put_weights(squeezenet1_1(), fidelity.LPIPS.weights)
    lpips = fidelity.LPIPS()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[..., :32] = True
    of = texture(0)[None, :, :64, :64].repeat(2, 1, 1, 1)
    inside, outside = of.clone(), of.clone()
    inside[..., :32] *= -1
    outside[..., 32:] *= -1
    assert lpips(plain_case(of, masks)) == 0
    assert lpips(plain_case(inside, masks, of)) == 0
    assert lpips(plain_case(outside, masks, of)) > 1e-3
    assert lpips(plain_case(outside, None, of)) is None


def test_raft_flow_is_torchvisions(put_weights):
    """Its weights are those in the cache, its flow of the frames as they are; sides need not be multiples of 8."""
    torch.manual_seed(0)
    network = raft_large().eval()
    put_weights(network, motion.RaftFlow.weights)
    raft = motion.RaftFlow(device="cpu")
    first, second = texture(0)[None].repeat_interleave(3, -2), texture(2)[None].repeat_interleave(3, -2)
    first, second = (F.interpolate(frames, size=(256, 256), mode="bicubic") for frames in (first, second))
    with torch.no_grad():
        expected = network(first, second)[-1]
    assert torch.allclose(raft(first, second), expected, atol=1e-4)
    assert raft(first[..., :-3, :-5], second[..., :-3, :-5]).shape == (1, 2, 253, 251)
    by_raft = motion.WarpError("raft", device="cpu")
    assert "RAFT" in by_raft.name
    assert (by_raft(plain_case(torch.full((2, 3, 64, 64), 0.5))) or 0) < 1e-6  # grey stays grey, wherever it goes


@pytest.mark.parametrize("arguments", [{"against": "target"}, {"region": "inside"}])
def test_choices_are_named(arguments):
    """An unknown choice lists the known ones."""
    with pytest.raises(InputError, match="must be one of"):
        fidelity.PSNR(**arguments)
