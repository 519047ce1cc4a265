"""Known answers of the measures of fidelity: measure x other video x region."""

import math

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.models import squeezenet1_1

from assd.errors import InputError
from assd.shapes.corpus import clip_pairs
from evaluation.case import REGIONS
from evaluation.metrics.fidelity import IDENTICAL, SQUEEZENET, Fidelity, lpips_network
from evaluation.metrics.shapes import EditSuccess
from tests.evaluation.cases import BACKGROUND_PAIR, COLOUR_PAIR, case, no_meaning, plain_case, source, texture, truth


@pytest.mark.parametrize("pair", [COLOUR_PAIR, BACKGROUND_PAIR], ids=["colour", "background"])
def test_the_true_edit_is_perfect_and_the_source_is_poor(pair):
    """Every truth metric has its best value for the true edit itself, and a poor one for the unedited source."""
    perfect, unedited = case(truth, pair), case(source, pair)
    for region in ("all", "object", "background"):
        assert Fidelity("psnr", "truth", region)(perfect) == IDENTICAL
        assert Fidelity("ssim", "truth", region)(perfect) == pytest.approx(1, abs=1e-4)
    changed, stayed = ("object", "background") if pair is COLOUR_PAIR else ("background", "object")
    assert Fidelity("psnr", "truth", changed)(unedited) < 20
    assert Fidelity("psnr", "source", stayed)(perfect) == IDENTICAL
    assert Fidelity("ssim", "source", stayed)(perfect) == pytest.approx(1, abs=1e-4)
    assert Fidelity("change", "source", stayed)(perfect) == 0
    assert EditSuccess()(perfect) == 1
    assert EditSuccess()(unedited) == 0


def test_preservation_looks_outside_the_edit():
    """A change within the edit costs nothing; 0.1 everywhere is 20 dB and 25.5 grey levels."""
    inside = case(
        lambda known: torch.where((known.truth != known.frames).any(1, keepdim=True), -known.frames, known.frames)
    )
    assert Fidelity("psnr", "source", "background")(inside) == IDENTICAL
    dim = plain_case(
        torch.zeros(3, 3, 16, 16) + 0.2, torch.zeros(3, 16, 16, dtype=torch.bool), torch.zeros(3, 3, 16, 16)
    )
    assert Fidelity("psnr", "source", "background")(dim) == pytest.approx(20, abs=1e-3)
    assert Fidelity("change", "source", "background")(dim) == pytest.approx(25.5, abs=1e-3)


@pytest.mark.parametrize("edit", ["colour", "background"])
def test_a_bystander_stays_whatever_is_asked(edit):
    """The true edit leaves it alone, also before another background; taking it away is over-editing, seen in full."""
    pair = next(pair for pair in clip_pairs() if pair.edit == edit and pair.source.bystander)
    change = Fidelity("change", "source", "bystander")
    assert change(case(truth, pair)) == 0

    def without_bystander(known):
        return torch.where(known.bystander[:, None], -known.frames, known.truth)

    assert change(case(without_bystander, pair)) > 20
    alone = next(pair for pair in clip_pairs() if not pair.source.bystander)
    assert no_meaning(change, case(truth, alone)) == "there is no bystander"


def test_a_black_mask_inflates():
    """FiVE-Bench's convention divides by the whole frame: with half of it masked, 3 dB more than the region's own."""
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[..., :8] = True
    video = plain_case(torch.full((3, 3, 16, 16), 0.2), masks, torch.zeros(3, 3, 16, 16))
    own = Fidelity("psnr", "source", "background")(video)
    assert Fidelity("psnr", "source", "background", area_normalised=False)(video) == pytest.approx(
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
    assert Fidelity("ssim", "source", "background", area_normalised=False)(video) == pytest.approx(five, abs=1e-5)
    _, whole = structural_similarity_index_measure(torch.where(kept, a, b), b, data_range=1.0, return_full_image=True)
    mean = whole[kept.expand_as(whole)].mean().item()
    assert Fidelity("ssim", "source", "background")(video) == pytest.approx(mean, abs=1e-5)
    assert 0.2 < mean < five < 0.95


def test_lpips_looks_outside_the_edit(put_weights):
    """Of the source itself the distance is 0, and of a change within the edit; outside it a change is seen."""
    lpips_network.cache_clear()
    put_weights(squeezenet1_1(), SQUEEZENET)
    lpips = Fidelity("lpips", region="background", area_normalised=False)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[..., :32] = True
    of = texture(0)[None, :, :64, :64].repeat(2, 1, 1, 1)
    inside, outside = of.clone(), of.clone()
    inside[..., :32] *= -1
    outside[..., 32:] *= -1
    assert lpips(plain_case(of, masks)) == 0
    assert lpips(plain_case(inside, masks, of)) == 0
    assert lpips(plain_case(outside, masks, of)) > 1e-3
    assert no_meaning(lpips, plain_case(outside, None, of)) == "no mask says where the object is"
    lpips_network.cache_clear()


def test_lpips_says_where_its_weights_go(monkeypatch, tmp_path):
    """Nothing is downloaded, and the file is named before any video is read."""
    lpips_network.cache_clear()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path)):
        Fidelity("lpips", area_normalised=False)


def test_what_was_to_change_is_not_to_be_preserved():
    """Against the source, the object has no value where it was to change, nor the background where that was."""
    said = {region: f"what lies {REGIONS[region]} was to change" for region in ("object", "background")}
    for pair, changed in ((COLOUR_PAIR, "object"), (BACKGROUND_PAIR, "background")):
        assert no_meaning(Fidelity("psnr", "source", changed), case(truth, pair)) == said[changed]
        assert no_meaning(Fidelity("psnr", "reconstruction", changed), case(truth, pair)) == said[changed]
    both = next(pair for pair in clip_pairs() if pair.edit == "colour+background")
    for region, why in said.items():
        assert no_meaning(Fidelity("change", "source", region), case(source, both)) == why
        assert Fidelity("change", "truth", region)(case(source, both)) > 0


def test_what_is_not_known_has_its_own_reason():
    """No mask, no true edit, no autoencoder, no embedded world, an empty region: each is said, and none is a number."""
    video = plain_case(torch.rand(3, 3, 32, 32))
    nowhere = plain_case(torch.rand(3, 3, 32, 32), torch.ones(3, 32, 32, dtype=torch.bool))
    assert no_meaning(Fidelity("psnr", "source", "background"), video) == "no mask says where the object is"
    assert no_meaning(Fidelity("psnr", "truth"), video) == "there is no true edit"
    assert no_meaning(Fidelity("psnr", "reconstruction"), video) == "there is no reconstructed source"
    assert no_meaning(Fidelity("psnr", "source", "background"), nowhere) == "nothing lies outside the object"
    assert "embedded world" in no_meaning(EditSuccess(), video)


@pytest.mark.parametrize("measure", ["psnr", "ssim", "change"])
@pytest.mark.parametrize("area_normalised", [True, False])
def test_everywhere_needs_no_mask(measure, area_normalised):
    """Over all pixels both conventions are one number, to the truth and to the source alike."""
    video = plain_case(torch.full((3, 3, 16, 16), 0.2), None, torch.zeros(3, 3, 16, 16))
    expected = Fidelity(measure)(video)
    assert Fidelity(measure, "source", "all", area_normalised)(video) == pytest.approx(expected, rel=1e-3)


def test_names_say_measure_other_video_region_and_convention():
    """What heads every table, the same as ever: two metrics of one name would be one column."""
    assert Fidelity("psnr", "source", "background").name == "PSNR (dB) to source, outside the object"
    five = Fidelity("ssim", "source", "background", area_normalised=False)
    assert five.name == "SSIM to source, outside the object, black elsewhere"
    reconstruction = Fidelity("psnr", "reconstruction", "background")
    assert reconstruction.name == "PSNR (dB) to reconstructed source, outside the object"
    assert Fidelity("psnr", "truth").name == "PSNR (dB) to true edit, everywhere"
    assert Fidelity("change", region="background").name == (
        "contamination: mean change (of 255) to source, outside the object"
    )
    assert [Fidelity(measure).better for measure in ("psnr", "ssim", "change")] == ["higher", "higher", "lower"]


@pytest.mark.parametrize("arguments", [{"against": "target"}, {"region": "inside"}, {"measure": "l1"}])
def test_choices_are_named(arguments):
    """An unknown choice lists the known ones; LPIPS knows whole frames alone."""
    with pytest.raises(InputError, match="must be one of"):
        Fidelity(**{"measure": "psnr"} | arguments)
    with pytest.raises(InputError, match="area_normalised"):
        Fidelity("lpips", area_normalised=True)
