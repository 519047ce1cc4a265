"""FiVE-Bench's protocol: numbers against its formulas, the macro-average by hand, and its folder layout."""

import io
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from einops import rearrange
from hydra.utils import instantiate
from PIL import Image
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import squeezenet1_1
from transformers import ViTConfig, ViTModel

from assd.config import composed
from assd.data.pairs import Canvas
from assd.data.video import read_video, to_bytes, write_frames, write_video
from assd.errors import InputError
from evaluation import five
from evaluation.metrics.fidelity import IDENTICAL, SQUEEZENET, lpips_network
from evaluation.metrics.five import FiveMean
from evaluation.metrics.structure import StructureDistance
from evaluation.run import score
from evaluation.scores import COLUMNS, EDITED, row, update_scores
from tests.data.five_files import HEIGHT, VIDEOS, WIDTH, write_five, write_manifest
from tests.evaluation.cases import no_meaning, plain_case
from tests.evaluation.five_formulas import mse, outside, psnr, scored_frames, ssim
from tests.finished import finished_run

MODEL_SIZE = (36, 64)  # at which the edits are made: another size and another aspect ratio than the sources'
PAIR, VIDEO = "edit6-001-0002_girl-dog", VIDEOS[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The small benchmark."""
    return write_five(tmp_path_factory.mktemp("five"))


def overrides(root: Path) -> list[str]:
    """The protocol on it, by the embedded CLIP, for edits of 41 frames; no DINO."""
    nowhere = root / "nowhere"
    given = [f"dataset.root={root}", "dataset.num_frames=41", "clip=embedded", "device=cpu"]
    return ["+experiment=five", *given, f"metric.five_structure.metric.path={nowhere}"]


@pytest.fixture(scope="module")
def scores(root, tmp_path_factory):
    """What the protocol says of noisy edits that somebody made at the model's size, without DINO and LPIPS."""
    folder = tmp_path_factory.mktemp("edits")
    draw = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder / "no weights"))
        lpips_network.cache_clear()
        given = overrides(root)
        for pair in instantiate(composed(given).dataset, _convert_="all"):
            frames = pair.read(Canvas(41, *MODEL_SIZE)).frames
            edited = frames + 0.3 * torch.randn(frames.shape, generator=draw)
            write_video(folder / f"{pair.id}.mkv", to_bytes(edited), 24.0)
            write_frames(folder / "frames" / pair.id, to_bytes(edited))
        table = score(folder, given)
    return folder, table


def value(scores, metric: str, video: str = EDITED) -> float:
    """The one value of a metric."""
    rows = scores[1]
    named = rows.metric.str.contains(metric, regex=False) & (rows.pair == PAIR) & (rows.video == video)
    return rows[named].value.item()


def in_files(scores, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edit, source and masks of the pair as FiVE-Bench's code would read them."""
    folder = scores[0] / "frames" / PAIR
    edited = scored_frames(folder, (WIDTH, HEIGHT))
    return edited, scored_frames(root / "images" / VIDEO), scored_frames(root / "bmasks" / VIDEO)


@pytest.mark.parametrize(
    "metric, measure, scale",
    [("PSNR", psnr, 1), ("MSE", mse, 10_000), ("SSIM", ssim, 100)],
    ids=["psnr", "mse", "ssim"],
)
def test_preservation_is_the_formula(scores, root, metric, measure, scale):
    """Black inside the mask, the whole frame, the mean over 5 frames, on the published scale; the source is perfect."""
    expected = scale * outside(measure, *in_files(scores, root))
    assert value(scores, f"FiVE {metric} outside") == pytest.approx(expected, rel=2e-3)
    perfect = {"PSNR": 100, "MSE": 0, "SSIM": 100}[metric]
    assert value(scores, f"FiVE {metric} outside", "source") == pytest.approx(perfect, abs=1e-3)


def test_of_a_longer_video_the_first_frames_are_scored(root, tmp_path):
    """All 41 frames of an unedited video are its source, of which the first 24 are asked for."""
    given = ["dataset=five", f"dataset.root={root}", "dataset.num_frames=24", "dataset.limit=1", "device=cpu"]
    (pair,) = instantiate(composed(given).dataset, _convert_="all")
    unedited = pair.read(Canvas(41, HEIGHT, WIDTH)).frames
    write_frames(tmp_path / pair.id, to_bytes(unedited))
    rows = score(tmp_path, [*given, "metric=[psnr]"])
    edited = rows[(rows.video == EDITED) & rows.metric.str.startswith("PSNR (dB) to source, outside")]
    assert set(edited.value) == {IDENTICAL}


def test_clip_is_of_the_frame_and_of_the_object(scores, root):
    """100 times the cosine with the target prompt, at least 0; inside the mask, all else is black."""
    edited, _, masks = in_files(scores, root)
    cfg = composed(overrides(root))
    clip = instantiate(cfg.clip)
    prompt = clip.embed_prompts([instantiate(cfg.dataset, _convert_="all")[-1].prompts.target])
    for name, frames in {
        "FiVE CLIP score (": edited,
        "FiVE CLIP score inside": edited * (masks > 0)[..., None],
    }.items():
        pixels = rearrange(torch.from_numpy(frames / 127.5 - 1).float(), "n h w c -> n c h w")
        cosines = (clip.embed_frames(pixels) @ prompt.T).numpy()
        assert value(scores, name) == pytest.approx(100 * np.maximum(cosines, 0).mean(), abs=0.05)


def test_what_is_not_here_is_a_row_with_the_reason(scores):
    """Neither LPIPS nor DINO stops a run; each of their rows says what is missing."""
    rows = scores[1]
    for metric, reason in {"LPIPS": "needs torchvision's squeezenet", "structure": "DINO ViT-B/8 is not here"}.items():
        those = rows[rows.metric.str.contains(metric)]
        assert len(those) == 14 and those.value.isna().all()
        assert those.reason.str.contains(reason).all()


def pixels_of(frames: np.ndarray) -> torch.Tensor:
    """Bytes as pixels in [-1, 1]."""
    return rearrange(torch.from_numpy(frames / 127.5 - 1).float(), "n h w c -> n c h w")


def test_lpips_is_the_librarys(put_weights, root, scores):
    """By frames that are black inside the mask, as torchmetrics takes them in [-1, 1], times 1000."""
    lpips_network.cache_clear()
    torch.manual_seed(0)
    put_weights(squeezenet1_1(), SQUEEZENET)
    cfg = composed(overrides(root))
    pair = instantiate(cfg.dataset, _convert_="all")[-1]
    footage = pair.read(pair.canvas)
    edited, source, masks = in_files(scores, root)
    frames = footage.frames.clone()
    frames[0:40:8] = pixels_of(edited)
    video = plain_case(frames, footage.masks, footage.frames)
    network = LearnedPerceptualImagePatchSimilarity("squeeze")

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return network(*(rearrange(torch.from_numpy(2 * x - 1).float(), "h w c -> 1 c h w") for x in (a, b))).item()

    expected = 1000 * outside(distance, edited, source, masks)
    assert instantiate(cfg.metric.five_lpips)(video) == pytest.approx(expected, rel=1e-4)
    lpips_network.cache_clear()


def test_a_frame_without_the_part_does_not_count():
    """Of five frames, the object is in the first two alone: the mean of theirs; in none, no meaning."""

    class Brightness:
        name, better = "brightness", "higher"

        def __call__(self, case):
            return case.frames.max().item()

    mean = FiveMean("x", "higher", Brightness, "object", scale=10)
    frames = torch.linspace(-0.5, 0.5, 41)[:, None, None, None].expand(41, 3, 4, 4)
    masks = torch.zeros(41, 4, 4, dtype=torch.bool)
    masks[:10, 1] = True
    assert mean(plain_case(frames, masks)) == pytest.approx(10 * (frames[0, 0, 0, 0] + frames[8, 0, 0, 0]).item() / 2)
    masks = torch.roll(masks, 21, 0) & (torch.arange(41) == 25)[:, None, None]
    assert "in any of FiVE-Bench's frames" in no_meaning(mean, plain_case(frames, masks))


def keys(vit: ViTModel, picture: np.ndarray) -> np.ndarray:
    """What the one layer of a small network makes its keys of, in numpy; `picture` is 224 x 224 bytes."""
    weights = {name: parameter.detach().double().numpy() for name, parameter in vit.state_dict().items()}

    def only(*ends: str) -> np.ndarray:
        (found,) = [array for name, array in weights.items() if name.endswith(ends)]
        return found

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    patches = rearrange((picture - mean) / std, "(h a) (w b) c -> (h w) (c a b)", a=8, b=8)
    kernel, bias = only("projection.weight"), only("projection.bias")
    tokens = patches @ kernel.reshape(len(kernel), -1).T + bias
    tokens = np.concatenate([only("cls_token")[0], tokens]) + only("position_embeddings")[0]
    centred = tokens - tokens.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + vit.config.layer_norm_eps)
    normal = normal * only("layernorm_before.weight") + only("layernorm_before.bias")
    return normal @ only("key.weight", "k_proj.weight").T + only("key.bias", "k_proj.bias")


def test_structure_distance_is_the_formula(tmp_path):
    """Mean squared difference of the keys' cosines, of bytes less ImageNet's mean; 0 for the source, any shape."""
    torch.manual_seed(0)
    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    vit = ViTModel(ViTConfig(**size, image_size=224, patch_size=8), add_pooling_layer=False)
    for parameter in vit.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    vit.save_pretrained(tmp_path)
    bytes_ = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3))
    bytes_[1, 100:] = bytes_[0, 100:]

    def similarity(picture: np.ndarray) -> np.ndarray:
        k = keys(vit, picture)
        k /= np.linalg.norm(k, axis=1, keepdims=True)
        return k @ k.T

    expected = ((similarity(bytes_[0]) - similarity(bytes_[1])) ** 2).mean()
    distance = StructureDistance(str(tmp_path), "cpu")
    edited, source = pixels_of(bytes_).split(1)
    assert distance(plain_case(edited, of=source)) == pytest.approx(expected, rel=1e-3)
    wide = torch.rand(2, 3, 48, 100) * 2 - 1
    assert distance(plain_case(wide)) == 0
    assert distance(plain_case(wide.flip(-1), of=wide)) > 0


def run_of(folder: Path, by_pair: dict[str, float], metric: str = "m") -> Path:
    """A run directory with nothing but scores."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(pair, EDITED, metric, "higher", number) for pair, number in by_pair.items()]
    update_scores(folder, pd.DataFrame(rows, columns=COLUMNS))
    return folder


FIRST = {"edit1-001-a": 1.0, "edit1-002-b": 2.0, "edit1-003-c": 6.0, "edit2-001-a": 10.0, "edit5-001-a": 2.0}


def tables_of(monkeypatch, capsys, *arguments: str) -> str:
    """What the command prints."""
    monkeypatch.setattr(sys, "argv", ["five", *arguments])
    five.main()
    return capsys.readouterr().out


def test_the_macro_average_by_hand(tmp_path, monkeypatch, capsys):
    """((1 + 2 + 6) / 3 + 10 + 2) / 3 = 5 over edit types, where the mean over the five pairs is 4.2."""
    runs = [str(run_of(tmp_path / "x", FIRST)), str(run_of(tmp_path / "y", {pair: 4.0 for pair in FIRST}))]
    table = pd.read_csv(io.StringIO(tables_of(monkeypatch, capsys, "table", *runs, "--format", "csv")))
    macro = table[table.edit_type == "macro-average"].set_index("method")
    assert macro["mean"].to_dict() == pytest.approx({"x": 5.0, "y": 4.0})
    assert macro.pairs.to_dict() == {"x": 5, "y": 5}
    first = table[(table.edit_type == "1") & (table.method == "x")]
    assert (first["mean"].item(), first.pairs.item()) == (3.0, 3)
    text = tables_of(monkeypatch, capsys, "table", *runs)
    assert re.search(r"Macro-average over 3 edit types\n\n.*\n.*\n\| x +\| \*\*5\.000\*\* +\| +5 ", text)
    assert "No values for edit type 3 (colour alteration), 4 (material modification), 6 (object removal)" in text


def test_a_method_without_an_edit_type_has_no_macro_average(tmp_path):
    """What lacks the hard edit type would look better than it is; it keeps its means by type."""
    part = {pair: 9.0 for pair in FIRST if not pair.startswith("edit5")}
    runs = [run_of(tmp_path / "x", FIRST), run_of(tmp_path / "y", part)]
    summaries = five.by_edit_type(five.collect(runs))
    assert [*five.macro_average(summaries).method] == ["x"]
    assert [*summaries[2].method] == ["x", "y"]


def test_runs_without_any_value_are_refused(tmp_path, monkeypatch, capsys):
    """There is no mean of nothing: it is said that nothing was measured, and why."""
    nothing = [row(pair, EDITED, "m", "higher", reason="RuntimeError: no weights") for pair in FIRST]
    update_scores(tmp_path, pd.DataFrame(nothing, columns=COLUMNS))
    with pytest.raises(SystemExit, match=r"hold no value, .*no m for edit1-001-a, .*RuntimeError: no weights"):
        tables_of(monkeypatch, capsys, "table", str(tmp_path))


def test_pairs_of_another_dataset_are_refused(tmp_path):
    """Their edit types are not known."""
    with pytest.raises(InputError, match="01-cat is no pair of dataset=five"):
        five.by_edit_type(five.collect([run_of(tmp_path / "x", {"01-cat": 1.0})]))


@pytest.fixture(scope="module")
def turned_over(root, tmp_path_factory) -> Path:
    """A run of the first three pairs, of 41 frames, whose edits are the sources turned over."""
    given = ["dataset=five", f"dataset.root={root}", "dataset.num_frames=41"]
    return finished_run(tmp_path_factory.mktemp("finished") / "run", lambda known: -known.frames, 3, given)


@pytest.fixture
def run(turned_over, tmp_path) -> Path:
    """A copy of it, for a test that changes it."""
    return Path(shutil.copytree(turned_over, tmp_path / "run"))


def test_export_is_fives_layout(run, tmp_path, monkeypatch, capsys):
    """<video>/<save_dir>/ has the first 40 of 41 frames in order, to the bit; what is not finished is counted."""
    record = run / "edits" / "edit2-001-0001_bus" / "edit.json"
    record.write_text(record.read_text().replace('"finished"', '"failed"'))
    output = tmp_path / "Ours"
    assert "2 edits in" in (said := tables_of(monkeypatch, capsys, "export", str(run), "--output", str(output)))
    assert "1 are not finished" in said
    assert sorted(str(file.parent.relative_to(output)) for file in output.rglob("00000.png")) == [
        "0001_bus/1_edit", "0002_girl-dog/1_edit",
    ]  # fmt: skip
    files = sorted((output / "0001_bus" / "1_edit").iterdir())
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(40)]
    edited = read_video(run / "edits" / "edit1-001-0001_bus" / "edited.mkv", None).frames
    assert (np.stack([np.asarray(Image.open(file)) for file in files]) == edited[:40].numpy()).all()


def test_what_cannot_be_exported_is_said(run, root, tmp_path):
    """Frames that are there already, another version's manifests, and what is no run of FiVE-Bench."""
    five.export(run, tmp_path / "out")
    with pytest.raises(InputError, match="is there already"):
        five.export(run, tmp_path / "out")
    other = tmp_path / "other"
    for kind in (1, 2):
        write_manifest(other, kind, [])
    with pytest.raises(InputError, match="another version of FiVE-Bench's manifests"):
        five.export(run, tmp_path / "again", other)
    with pytest.raises(InputError, match="is no run directory"):
        five.export(root, tmp_path / "again")
    with pytest.raises(InputError, match="holds no edit of FiVE-Bench's pairs"):
        five.export(finished_run(tmp_path / "shapes", lambda known: known.truth, 1), tmp_path / "again")
