"""The published models: sizes without weights, and small copies of them through the very YAML files that users use."""

import json
import pickle
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel, UNet3DConditionModel
from hydra.utils import instantiate
from safetensors.torch import load_file

import assd
from assd.config import composed
from assd.data.video import write_video
from assd.errors import InputError
from assd.methods.score_distillation.fusion import WeightedAttentionFusion
from assd.models import load
from assd.models.hub import resolve_folder
from assd.models.loading import clip_tokenizer
from tests.commands import program
from tests.models.pipelines import PROMPTS, SIZE, image_pipeline, overrides, save_all, video_pipeline

PUBLISHED = "pkg://assd.models/published"


@pytest.mark.parametrize(
    "name, unet_class, billions",
    [("modelscope", UNet3DConditionModel, 1.41), ("stable_diffusion_v1_5", UNet2DConditionModel, 0.86)],
)
def test_published_sizes(name, unet_class, billions):
    """The configurations in the repository build networks of the published sizes."""
    config = unet_class.load_config(resolve_folder(f"{PUBLISHED}/{name}"), subfolder="unet")
    with torch.device("meta"):
        unet = unet_class.from_config(config)
    assert round(sum(p.numel() for p in unet.parameters()) / 1e9, 2) == billions


def test_clip_tokenizer_is_clips():
    """Known ids of the byte-pair vocabulary: <|startoftext|> a photo of a cat <|endoftext|>."""
    tokenizer = clip_tokenizer()
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.model_max_length == 77


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The small pipelines' folders."""
    return save_all(tmp_path_factory.mktemp("published"))


@pytest.fixture
def mp4(tmp_path):
    """A short video of noise that moves."""
    noise = torch.randint(0, 256, (6, 48, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / "cat.mp4", noise, 8.0)
    return tmp_path / "cat.mp4"


@pytest.mark.end_to_end
@pytest.mark.parametrize("model", ["modelscope", "zeroscope"])
def test_saved_pipelines_edit_a_video(saved, mp4, tmp_path, model):
    """From safetensors, fp16 variants and .bin alike, `assd.run` edits an mp4: the real entry point, exit code 0."""
    done = program(
        "-m", "assd.run", *overrides(saved, model), "dataset=video", f"dataset.path={mp4}",
        f"dataset.source_prompt={PROMPTS[0]}", f"dataset.target_prompt={PROMPTS[1]}", "steps.distillation=2",
        "tracking.mode=disabled", "metric=[flicker]", f"output={tmp_path / 'runs'}",
    )  # fmt: skip
    assert done.code == 0, done.text
    (latents,) = (tmp_path / "runs").rglob("latents.safetensors")
    edit = load_file(latents)
    assert edit["Z"].isfinite().all()
    assert not torch.equal(edit["Z"], edit["Z_ref"])


@pytest.mark.end_to_end
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_edits_as_float32_does(saved, mp4, precision):
    """The precision that is the default of the published models: the same edit but for its rounding."""
    told = [*overrides(saved, "modelscope"), "steps.distillation=2"]
    half = [f"model.dtype={precision}", f"image_model.dtype={precision}"]
    full_edit, half_edit = (
        assd.edit(str(mp4), *PROMPTS, model="modelscope", overrides=[*told, *more]).astype(int) for more in ([], half)
    )
    assert np.abs(half_edit - full_edit).max() > 0
    assert np.abs(half_edit - full_edit).mean() < {"float16": 4, "bfloat16": 20}[precision]


COMPILED = """
import sys, torch
from assd.methods.score_distillation.fusion import WeightedAttentionFusion
from assd.models import load
model = load(sys.argv[1], allow_bin=True, device="cpu", height=32, width=32, num_frames=4)
z = torch.randn(4, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
predictions = []
for edit in range(3):
    if edit == 1:
        model.unet.compile(backend="aot_eager", fullgraph=True)
    torch._dynamo.config.error_on_recompile = edit == 2
    with WeightedAttentionFusion(0.8, 1)(model, 2):
        predictions.append(model.predict(z, 500, model.embed(("", "", "a cat", "a dog"))))
for prediction in predictions[1:]:
    torch.testing.assert_close(prediction, predictions[0], rtol=1e-3, atol=1e-4)
"""


@pytest.mark.end_to_end
def test_compiled_is_plain_to_rounding(saved):
    """Inside the fusion too the U-Net is one graph, and a second edit compiles nothing again.

    Traced by torch.compile and run without its code generator, which takes minutes; and without the tests' type checks.
    """
    ended = program("-c", COMPILED, saved / "zeroscope")
    assert ended.code == 0, ended.text


def test_the_mode_of_compilation_arrives(saved, monkeypatch):
    """`compile: reduce-overhead` is torch.compile's mode; a slip is refused by name."""
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, mode: modes.append(mode))
    load(str(saved / "zeroscope"), allow_bin=True, compile="reduce-overhead", **SIZE)
    assert modes == ["reduce-overhead"]
    with pytest.raises(InputError, match="compile must be null or one of default, reduce-overhead"):
        load(str(saved / "zeroscope"), allow_bin=True, compile="fast", **SIZE)


def test_files_of_every_kind_hold_the_same_network(saved):
    """The weights that come out of .bin are those that were saved, and of the fp16 variant their rounding."""
    config = {model: composed(overrides(saved, model)) for model in ("modelscope", "zeroscope")}
    half, full = (instantiate(cfg.model).unet.state_dict() for cfg in config.values())
    expected = video_pipeline().unet.state_dict()
    assert expected.keys() == full.keys() == half.keys()
    for name, value in expected.items():
        assert torch.equal(full[name], value)
        assert torch.equal(half[name], value.half().float())


def test_only_what_is_used_is_loaded(saved):
    """The image model reads the video model's latents: its own autoencoder stays on disk, but its scale is known."""
    image_model = instantiate(composed(overrides(saved, "modelscope")).image_model)
    assert image_model.vae is None
    assert image_model.latents.scale == 0.18215


def test_older_repositories_leave_the_scale_out(saved, tmp_path):
    """Stable Diffusion v1.5's own vae/config.json has no scaling_factor: it is 0.18215, and not an error."""
    shutil.copytree(saved / "stable_diffusion", tmp_path / "older")
    config = tmp_path / "older" / "vae" / "config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "scaling_factor"}))
    model = load(str(tmp_path / "older"), vae=None, variant="fp16", device="cpu")
    assert model.latents.scale == 0.18215


def test_a_local_folder_may_do_without_the_variant(saved):
    """`variant: fp16` is the hub repository's; a folder that someone saved plainly is read through the same YAML."""
    plain = load(str(saved / "zeroscope"), variant="fp16", allow_bin=True, **SIZE)
    assert plain.unet.dtype == torch.float32


def test_channels_last_changes_nothing_but_speed(saved):
    """The same noise to rounding, also inside the fusion."""
    z = torch.randn(4, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    predictions = []
    for options in ({}, {"channels_last": True}):
        model = load(str(saved / "zeroscope"), allow_bin=True, **SIZE, **options)
        with WeightedAttentionFusion(0.8, 1)(model, 2):
            predictions.append(model.predict(z, 500, model.embed(("", "", *PROMPTS))))
    torch.testing.assert_close(predictions[1], predictions[0], rtol=1e-3, atol=1e-4)
    weight = next(m.weight for m in model.unet.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size[0] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_bin_files_need_permission_and_run_nothing(saved, tmp_path):
    """Without allow_bin a .bin is not read; with it, one that would run code when unpickled is refused."""

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    with pytest.raises(InputError, match="can't be loaded"):
        load(str(saved / "zeroscope"), **SIZE)
    shutil.copytree(saved / "zeroscope", tmp_path / "bad")
    with (tmp_path / "bad" / "unet" / "diffusion_pytorch_model.bin").open("wb") as file:
        pickle.dump({"conv_in.weight": Payload()}, file)
    with pytest.raises(InputError, match="can't be loaded"):
        load(str(tmp_path / "bad"), allow_bin=True, **SIZE)
    assert not (tmp_path / "owned").exists()


@pytest.mark.end_to_end
def test_models_of_different_schedules_are_refused(saved, tmp_path):
    """At one t their Z_t would differ: an error when the run is configured, and no silent gradient."""
    image_pipeline(beta_end=0.02).to(torch.float16).save_pretrained(tmp_path / "other", variant="fp16")
    cfg = composed([*overrides(saved, "modelscope"), f"image_model.path={tmp_path / 'other'}"])
    with pytest.raises(Exception, match="one noise schedule"):
        instantiate(cfg.method, _convert_="all")


def test_missing_model_says_how_to_get_it(monkeypatch):
    """Offline and not in the cache: the command that would fetch it, its size and licence, and why nobody was asked."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        load("someone/absent-model", revision="abc", variant="fp16", licence="CC-BY-NC-4.0", download="3.7 GB",
             device="cpu")  # fmt: skip
    message = str(error.value)
    assert "hf download someone/absent-model --revision abc" in message
    assert "--include 'unet/*.fp16.safetensors' --include 'vae/*.fp16.safetensors'" in message
    assert "3.7 GB" in message
    assert "CC-BY-NC-4.0" in message
    assert "HF_HUB_OFFLINE" in message


def test_random_weights_are_the_architecture(tmp_path):
    """`random: true` reads configurations alone, and the same call gives the same weights."""
    pipeline = video_pipeline()
    for name, part in {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}.items():
        part.save_pretrained(tmp_path / name)
        next((tmp_path / name).glob("*.safetensors")).unlink()
    pipeline.scheduler.save_pretrained(tmp_path / "scheduler")
    options = dict(random=True, architecture=str(tmp_path), **SIZE)
    model = load("unused/unused", **options)
    again = load("another/unused", **options)
    assert all(torch.equal(a, b) for a, b in zip(model.unet.parameters(), again.unet.parameters()))
    edited = model.decode(model.encode(torch.zeros(4, 3, 32, 32)))
    assert edited.shape == (4, 3, 32, 32)
