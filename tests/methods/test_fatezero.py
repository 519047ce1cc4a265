"""FateZero: prompts aligned, words masked, maps taken over, and edits of which one knows what they must be."""

import logging

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from safetensors.torch import save_file

from assd.data.pairs import Footage
from assd.diffusion.features import FeatureStore
from assd.errors import InputError
from assd.methods.fatezero import FateZero
from assd.methods.fatezero.alignment import Tokens, align, differing, read_tokens, refinement, replacement
from assd.methods.fatezero.layers import Layers, frame_table
from assd.methods.fatezero.masks import mask, word_map
from assd.methods.fatezero.options import cross_windows, equalized, masked_words, mode
from assd.methods.fatezero.schedule import Window, cross_shares, equalizer
from assd.methods.fatezero.temporal import temporal_convolutions, video_network
from assd.methods.method import Method, Request
from assd.methods.reconstruction import Reconstruction
from assd.methods.tune_a_video import Tuning
from assd.models.unet import LatentDiffusion, attention_layers
from assd.shapes import networks
from tests.parity.network import tiny_unet

EDITOR = "assd.methods.fatezero.editor"
RED, BLUE, STAR = (f"a {it} moving right over snow" for it in ("red circle", "blue circle", "blue star"))
LETTERS = ["sa", "bc", "d"]


def prompt(text, length=12):
    """Each letter is a token, and 0 and 1 are start and end."""
    words, begin = [], 1
    for word in text.split(" "):
        words.append((word, tuple(range(begin, begin + len(word)))))
        begin += len(word)
    return Tokens((0, *(ord(letter) for word, _ in words for letter in word), 1), tuple(words), length)


# Alignment


def test_a_new_token_is_not_aligned_and_the_others_keep_theirs():
    assert align([0, 5, 6, 1], [0, 7, 5, 6, 1]) == [0, -1, 1, 2, 3]
    assert align([0, 5, 6, 7, 1], [0, 5, 7, 1]) == [0, 1, 3, 4]


def test_of_equally_good_alignments_the_first_token_is_taken():
    assert align([5, 5], [5]) == [0]
    assert align([5], [5, 5]) == [0, -1]


def test_refining_to_itself_is_the_source_map():
    S, E = torch.rand(2, 1, 3, 4, 12).softmax(-1)
    same = refinement(prompt("a bc"), prompt("a bc"))
    assert torch.equal(same(S, E), S)


def test_padding_behind_a_shorter_prompt_copies_words_only_as_published():
    source, target = prompt("abcd", 8), prompt("ab", 8)  # 6 and 4 tokens: columns 4 and 5 are words of the source
    assert refinement(source, target).columns.tolist() == [0, 1, 2, 5, -1, -1, 6, 7]
    assert refinement(source, target, padding_copies_words=True).columns.tolist() == [0, 1, 2, 5, 4, 5, 6, 7]


def test_a_word_is_replaced_by_one_of_more_tokens_and_the_rest_is_shifted():
    M = replacement(prompt("a b c", 7), prompt("a xy c", 7)).matrix
    assert M[2].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert M.argmax(0).tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert torch.equal(M.sum(1), torch.tensor([1.0, 1, 1, 1, 1, 1, 0]))  # attention is kept but for the last padding


def test_the_published_tail_is_not_shifted():
    M = replacement(prompt("a b c", 7), prompt("a xy c", 7), unshifted_tail=True).matrix
    assert M.argmax(0).tolist() == [0, 1, 2, 2, 4, 5, 6]
    longer = replacement(prompt("a xy c", 7), prompt("a b c", 7), unshifted_tail=True).matrix
    assert longer[:, 2].tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert longer[:, -1].sum() == 0


def test_words_that_differ_are_found_by_word():
    source, target = prompt("a ab c d", 16), prompt("xy of a b d", 16)
    assert differing(source, target) == ((2, 3, 4), (1, 2, 3, 4, 6))


def test_a_prompt_is_read_by_the_words_of_its_tokenizer(model):
    tokens = read_tokens(model, RED)
    assert tokens.words[1:3] == (("red", (2,)), ("circle", (3,)))
    assert len(tokens.ids) == 9 and tokens.length == networks.MAX_TOKENS


# Schedules


def test_windows_are_those_that_the_readme_counts():
    assert [Window(0, x).steps(N) for N, x in ((50, 0.8), (10, 0.3), (8, 0.6), (5, 0.9))] == [
        range(40), range(3), range(4), range(4),
    ]  # fmt: skip
    assert Window(0.2, 0.8).steps(8) == range(1, 6)


@pytest.mark.parametrize(("longer", "count"), [(False, 6), (True, 7)])
def test_attention_to_the_prompt_has_a_step_more_only_as_published(longer, count):
    assert cross_shares(Window(0, 0.8), {}, 5, 8, longer).sum(0).tolist() == [count] * 5


def test_a_word_has_a_window_of_its_own():
    default, words = cross_windows({"cross_replace_steps": "0.5 bc=0.25:0.75"}, prompt("a bc"))
    alpha = cross_shares(default, words, 12, 4)
    assert alpha[:, 1].tolist() == [1, 1, 0, 0]
    assert alpha[:, 2].tolist() == alpha[:, 3].tolist() == [0, 1, 1, 0]


def test_windows_of_words_alone_leave_the_others_all_steps():
    default, _ = cross_windows({"cross_replace_steps": "bc=0.5"}, prompt("a bc"))
    assert default == Window(0, 1)


@pytest.mark.parametrize("text", ["half", "0.5:", "1.2", "0.6:0.4"])
def test_a_window_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="cross_replace_steps"):
        cross_windows({"cross_replace_steps": text}, prompt("a"))


# Words


def test_words_of_an_option_precede_those_that_differ():
    source, target = prompt("a b c"), prompt("a x c")
    assert masked_words({}, source, target) == ((2,), (2,))
    assert masked_words({"blend_words": "b c"}, source, target) == ((2, 3), (2,))
    assert masked_words({"blend_words": "| a"}, source, target) == ((2,), (1,))


@pytest.mark.parametrize(
    ("option", "value", "missing"),
    [("blend_words", "z", "source prompt has no 'z'"), ("blend_words", "b | b", "target prompt has no 'b'"),
     ("equalizer_words", "x y", "no 'y'"), ("cross_replace_steps", "y=0.5", "no 'y'")],
)  # fmt: skip
def test_a_word_that_a_prompt_lacks_is_named(editor, option, value, missing):
    with pytest.raises(InputError, match=missing):
        editor().control(prompt("a b c"), prompt("a x c"), {option: value})


def test_an_equaliser_of_a_refined_prompt_is_for_the_words_it_adds():
    source, target, ten = prompt("a b"), prompt("x a b"), {"equalizer_values": "10"}
    assert equalizer(equalized(ten, "refine", source, target), 6).tolist() == [1, 10, 1, 1, 1, 1]
    assert equalized(ten, "replace", source, target) == {}
    asked = {"equalizer_words": "a b", "equalizer_values": "2 3"}
    assert equalizer(equalized(asked, "replace", source, target), 6).tolist() == [1, 1, 2, 3, 1, 1]


def test_replacing_asks_for_equally_many_words_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert mode({"mode": "replace"}, prompt("a b"), prompt("a b c")) == "refine"
    assert "these have 2 and 3: refine is taken" in caplog.text
    assert mode({}, prompt("a b"), prompt("a c")) == "replace"


# Masks and layers


def test_a_mask_is_where_a_word_is_and_one_pixel_around():
    maps = torch.zeros(1, 2, 25, 4)
    maps[0, :, 12, 1:3] = 0.5  # the middle of 5 x 5, tokens 1 and 2
    words = word_map([maps, maps], (1, 2), (5, 5))
    assert words[0, 2, 2] == 1 and words.sum() == 1
    assert mask(words, (5, 5), 0.3)[0].int().tolist() == [[0] * 5, *[[0, 1, 1, 1, 0]] * 3, [0] * 5]
    assert not mask(words, (5, 5), 1.0).any()
    assert not mask(word_map([maps], (), (5, 5)), (5, 5), 0.3).any()


def test_key_frames_are_the_readmes():
    assert frame_table(["mid"], 8) == [[3]] * 8
    assert frame_table([0, "mid"], 3) == [[0, 1], [1, 1], [2, 1]]
    assert frame_table([-1, 0, 1], 3) == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    with pytest.raises(InputError, match="middle"):
        frame_table(["middle"], 3)


@pytest.fixture(scope="module")
def unet():
    """Of Stable Diffusion's topology."""
    return tiny_unet(0)


def test_stable_diffusions_layers_are_the_published_ones(unet):
    layers = Layers(unet, attention_layers(unet), ["mid"], 64, 32, None, 3, 64, 48)
    assert [layers.grid(name) for name in layers.mask_layers] == [(16, 12)] * 5
    assert {name.split(".")[0] for name in layers.mask_layers} == {"down_blocks", "up_blocks"}
    assert len(layers.self_attention) == len(layers.cross_attention) == 11  # without those of 64 x 48 queries
    assert layers.chosen_frames(unet_layer("down_blocks.0")) == [] and layers.chosen_frames(
        unet_layer("mid_block")
    ) == ["mid"]


def unet_layer(part):
    return f"{part}.attentions.0.transformer_blocks.0.attn1"


def test_a_network_without_layers_for_masks_is_refused(unet):
    with pytest.raises(InputError, match=r"one of \[1, 2, 3\]; got 0"):
        Layers(unet, attention_layers(unet), ["mid"], None, 32, 0, 3, 64, 64)


# Time


def test_untouched_temporal_convolutions_are_the_identity(unet):
    x = torch.randn(6, 4, 8, 8)
    lora, full = temporal_convolutions(unet, 16), temporal_convolutions(unet, None)
    assert lora["conv_out.conv_temporal.up.weight"] == (4, 2, 3)  # of fewer channels than the rank
    zero = {name: torch.zeros(shape) if ".up." in name else torch.randn(shape) for name, shape in lora.items()}
    dirac = {name: torch.nn.init.dirac_(torch.empty(s)) if len(s) == 3 else torch.zeros(s) for name, s in full.items()}
    expected = unet.conv_in(x)
    for weights in (zero, dirac):
        with video_network(unet, 3, parameters(weights)):
            assert torch.equal(unet.conv_in(x), expected)
    assert torch.equal(unet.conv_in(x), expected)


def test_a_temporal_convolution_reaches_one_frame_to_either_side(unet):
    shapes = temporal_convolutions(unet, None)
    x = torch.zeros(5, 4, 4, 4)
    x[2] = 1.0
    ones = {name: torch.ones(shape) if len(shape) == 3 else torch.zeros(shape) for name, shape in shapes.items()}
    with video_network(unet, 5, parameters(ones)):
        still = unet.conv_in(torch.zeros(5, 4, 4, 4))
        moved = (unet.conv_in(x) - still).abs().amax((1, 2, 3))
    assert (moved > 1e-3).tolist() == [False, True, True, True, False]


def parameters(tensors):
    return {name: torch.nn.Parameter(value, requires_grad=False) for name, value in tensors.items()}


# Edits


class TinyModel(LatentDiffusion):
    """A random U-Net of three levels on the embedded world's texts and schedule; squares of pixels are its latents."""

    def __init__(self):
        torch.manual_seed(0)
        unet = tiny_unet(
            0,
            down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(32, 32, 64), layers_per_block=1, cross_attention_dim=networks.TEXT_WIDTH,
        )  # fmt: skip
        super().__init__(
            unet=unet, vae=None, vae_config={"scaling_factor": 1.0}, text_encoder=networks.text_encoder(),
            tokenizer=networks.tokenizer(), scheduler=networks.scheduler(),
        )  # fmt: skip
        self.passes = 0

    def encode(self, frames):
        means = reduce(frames, "f c (h s) (w t) -> c f h w", "mean", s=8, t=8)
        return torch.cat([means, means.sum(0, keepdim=True)])

    def decode(self, Z):
        return F.interpolate(rearrange(Z[:3], "c f h w -> f c h w"), scale_factor=8)

    def predict(self, z_t, t, embeddings):
        self.passes += 1
        return super().predict(z_t, t, embeddings)


@pytest.fixture(scope="module")
def model():
    return TinyModel()


@pytest.fixture
def editor(model):
    """Makes an editor; a keyword is an argument that differs."""

    def make(**changes):
        settings = dict(
            model=model, num_frames=3, height=64, width=48, seed=3, guidance_scale=4.0, negative_prompt="",
            sampling_steps=4, kv_frames=["mid"], least_channels=64, max_side=32, mask_level=None,
            cross_replace_steps=0.6, self_replace_steps=0.6, equalizer_values=10, blend_self_attention=True,
            blend_latents=False, blend_threshold=0.5, store="cpu", store_limit_gib=1.0, checkpoint_every=1,
            checkpoint_seconds=1e9,
        )  # fmt: skip
        return FateZero(**{**settings, **changes})

    return make


@pytest.fixture(scope="module")
def footage():
    return Footage(torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1, fps=8.0)


def edited(method, footage, *targets, source=RED, **request):
    edits = method(footage, source, [Request(target, **request) for target in targets], "clip")
    return [edit.latents["Z"] for edit in edits]


def test_it_is_a_method(editor):
    method = editor()
    assert isinstance(method, Method)
    assert method.num_steps == 8
    assert (method.canvas.num_frames, method.canvas.height, method.canvas.width) == (3, 64, 48)


def test_one_frame_without_control_goes_to_noise_and_back(editor, model, footage):
    still = Footage(footage.frames[:1], fps=8.0)
    method = editor(num_frames=1, guidance_scale=1.0, cross_replace_steps=0, self_replace_steps=0)
    there_and_back = Reconstruction(model, inversion=True, sampling_steps=4, network_time="target", checkpoint_every=1,
                                    checkpoint_seconds=1e9)  # fmt: skip
    torch.testing.assert_close(
        edited(method, still, RED)[0], edited(there_and_back, still, RED)[0], atol=1e-4, rtol=1e-4
    )


def test_the_frames_are_one_video_only_while_it_edits(editor, model, footage):
    z, embedding = torch.randn(1, 4, 3, 8, 6), model.embed((RED,))
    before = model.predict(z, 500, embedding)
    edited(editor(random_temporal_bias=True), footage, BLUE)
    assert torch.equal(model.predict(z, 500, embedding), before)


@pytest.mark.parametrize("changes", [{}, {"blend_latents": True, "store": "disk"}], ids=["maps", "latents"])
@pytest.mark.end_to_end
def test_an_edit_that_was_interrupted_at_any_step_ends_in_the_same_bits(editor, footage, changes):
    method, kept = editor(**changes), []
    (whole,) = edited(method, footage, BLUE, checkpoint=lambda c, _: kept.append(copied(c)))
    assert [c["step"] for c in kept] == list(range(1, 9))
    for checkpoint in (kept[1], kept[3], kept[5]):
        (resumed,) = edited(editor(**changes), footage, BLUE, resume=checkpoint)
        assert torch.equal(resumed, whole), checkpoint["step"]


def copied(checkpoint):
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in checkpoint.items()}


@pytest.mark.end_to_end
def test_maps_that_are_not_kept_are_computed_again(editor, footage):
    kept, again = (edited(editor(store=store), footage, BLUE)[0] for store in ("cpu", "recompute"))
    torch.testing.assert_close(again, kept, atol=1e-3, rtol=1e-3)


@pytest.mark.end_to_end
def test_several_targets_share_the_inversion(editor, model, footage):
    alone = [edited(editor(), footage, target)[0] for target in (BLUE, STAR)]
    model.passes = 0
    together = edited(editor(), footage, BLUE, STAR)
    assert model.passes == 4 + 2 * 4
    for one, other in zip(alone, together):
        torch.testing.assert_close(one, other)


@pytest.mark.end_to_end
def test_with_every_pixel_masked_self_attention_is_left_alone(editor, footage):
    masked, untouched = (
        edited(editor(**changes), footage, BLUE)[0] for changes in ({"blend_threshold": 0.0}, {"self_replace_steps": 0})
    )
    assert torch.equal(masked, untouched)
    assert not torch.allclose(edited(editor(blend_threshold=2.0), footage, BLUE)[0], masked)


@pytest.mark.parametrize(("noisier", "steps_inverted"), [(False, 2), (True, 3)], ids=["clean", "published"])
def test_with_no_pixel_masked_the_latent_is_an_inverted_one(editor, footage, noisier, steps_inverted):
    method, kept = editor(blend_latents=True, blend_threshold=2.0, blend_one_step_noisier=noisier), []
    edited(method, footage, BLUE, checkpoint=lambda c, _: kept.append(copied(c)))
    after_two_of_four = kept[4 + 1]
    assert torch.equal(after_two_of_four["Z"], after_two_of_four["trajectory"][steps_inverted])


def test_the_store_is_as_large_as_it_was_said(editor, footage, monkeypatch):
    stores, said = [], []
    monkeypatch.setattr(f"{EDITOR}.FeatureStore", lambda place: stores.append(FeatureStore(place)) or stores[0])
    monkeypatch.setattr(f"{EDITOR}.check_store", lambda nbytes, *_: said.append(nbytes))
    edited(editor(kv_frames=[-1, "first"], blend_latents=True), footage, BLUE)
    assert [stores[0].nbytes] == said
    assert said[0] > 0


def test_a_store_larger_than_allowed_is_refused(editor, footage):
    with pytest.raises(InputError, match="lower num_frames, sampling_steps"):
        edited(editor(store_limit_gib=1e-6), footage, BLUE)


def test_it_can_begin_with_the_tuning_of_tune_a_video(editor, footage):
    tuning = Tuning(steps=2, learning_rate=1e-3, weight_decay=0.0, max_gradient_norm=1.0, train_down_path=True,
                    temporal_bias="zero", gradient_checkpointing=False)  # fmt: skip
    method, kept = editor(tuning=tuning, sampling_steps=2), []
    (whole,) = edited(method, footage, BLUE, checkpoint=lambda c, _: kept.append(copied(c)))
    assert method.num_steps == len(kept) == 6
    assert not torch.allclose(whole, edited(editor(sampling_steps=2), footage, BLUE)[0])
    for checkpoint in (kept[0], kept[2], kept[4]):
        assert torch.equal(edited(method, footage, BLUE, resume=checkpoint)[0], whole), checkpoint["step"]


def test_tuned_weights_come_from_a_file(editor, model, footage, tmp_path):
    path = tmp_path / "tuned.safetensors"
    shapes = temporal_convolutions(model.network, 8)
    save_file({name: torch.zeros(s) if ".up." in name else torch.randn(s) for name, s in shapes.items()}, path)
    assert torch.equal(edited(editor(tuned_weights=str(path)), footage, BLUE)[0], edited(editor(), footage, BLUE)[0])
    save_file({"down_blocks.7.attentions.0.attn_temporal.to_q.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(InputError, match=r"fit no layer of this UNet2DConditionModel, such as \['down_blocks.7"):
        edited(editor(tuned_weights=str(path)), footage, BLUE)
