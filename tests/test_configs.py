"""Every configuration file composes, names what exists, and changes only what it says."""

import copy
from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from assd.config import checked, register
from tests.compositions import ABLATIONS, CONF, FILES, GROUPS, METHODS, choosing, configuration, plain, problem, targets


@pytest.fixture(autouse=True)
def configuration_folder() -> Iterator[None]:
    """Hydra looks into the project's folder."""
    register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def test_files_are_found() -> None:
    """The tests below see the folder: the main file and the groups it chooses from."""
    assert "config" in FILES
    assert {"ablation", "attention", "dataset", "loss", "method", "model"} <= {file.split("/")[0] for file in GROUPS}


@pytest.mark.parametrize("file", FILES)
def test_every_file_composes(file: str) -> None:
    """The main file composes with this file chosen, and what it says arrives."""
    overrides = choosing(file)
    cfg = configuration(*overrides)
    assert OmegaConf.to_yaml(cfg)
    if len(overrides) == 1 and not overrides[0].startswith(("+", "hydra/")) and "[" not in overrides[0]:
        group, _, _ = file.partition("/")
        text = (CONF / f"{file}.yaml").read_text()
        if file == "dataset/benchmark_extended":  # one value of another file's is changed
            assert cfg.dataset == configuration("dataset=benchmark", "dataset.split=extended").dataset
            return
        assert f"_target_: {cfg[group]._target_}" in text
        assert group not in ("model", "image_model") or f"path: {cfg[group].path}" in text


@pytest.mark.parametrize("file", FILES)
def test_every_default_is_a_file(file: str) -> None:
    """What must be given (`???`) aside, every interpolation of this choice resolves."""
    cfg = copy.deepcopy(configuration(*choosing(file)))
    missing = OmegaConf.missing_keys(cfg)
    for name in missing:
        OmegaConf.update(cfg, name, "given")
    OmegaConf.to_container(checked(cfg), resolve=True, throw_on_missing=True)
    assert all(name.startswith("dataset.") for name in missing)


def test_every_target_takes_its_arguments() -> None:
    """Whatever `_target_` names can be imported and called with the arguments beside it, in every composition."""
    problems: dict[str, set[str]] = {}
    seen = set()
    for file in FILES:
        for name, node in targets(plain(choosing(file), resolve=False)):
            seen.add(node["_target_"])
            if reason := problem(node):
                problems.setdefault(f"{name}: {reason}", set()).add(file)
    assert "assd.methods.score_distillation.ScoreDistillation" in seen
    report = [f"{text} (with {', '.join(sorted(files))})" for text, files in problems.items()]
    assert not problems, "\n".join(report)


def test_a_wrong_argument_is_seen() -> None:
    """The check above is one: an unknown argument, a missing one and an unknown target are problems."""
    right = {"_target_": "assd.methods.score_distillation.rules.ASSD", "gamma": 0.5, "tau": 0.1}
    assert problem(right) is None
    assert problem(right | {"sigma": 1}) is not None
    assert problem({"_target_": "assd.methods.score_distillation.rules.ASSD", "gamma": 0.5}) is not None
    assert problem({"_target_": "assd.methods.score_distillation.rules.ASSD", "_partial_": True, "gamma": 0.5}) is None
    assert problem({"_target_": "assd.methods.score_distillation.rules.NotThere"}) is not None


def test_full_is_the_default() -> None:
    """The ablation `full` is the whole method: the same configuration as no choice at all."""
    assert plain(["+ablation=full"], resolve=True) == plain([], resolve=True)


def test_ablations_differ_from_full_and_each_other() -> None:
    """Every ablation is another configuration than `full`, and than every other ablation."""
    configurations = {name: plain([f"+ablation={name}"], resolve=True) for name in ABLATIONS}
    assert "full" in configurations
    same = [(a, b) for a in ABLATIONS for b in ABLATIONS if a < b and configurations[a] == configurations[b]]
    assert not same


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_change_only_loss_and_attention(name: str) -> None:
    """An ablation leaves model, data, optimizer, steps and seed alone."""
    bare, ablated = plain([], resolve=False), plain([f"+ablation={name}"], resolve=False)
    assert bare.keys() == ablated.keys()
    assert {key for key in bare if bare[key] != ablated[key]} <= {"loss", "attention"}


def test_ablations_remove_what_they_name() -> None:
    """no_waf lacks fusion, no_joint_guidance the image model; no_smoothing has gamma 1, no_mask tau -inf; bare ones
    their rule alone."""
    bare = {"assd_only", "sds", "video_dds"}
    parts = {name: configuration(f"+ablation={name}") for name in ABLATIONS}
    fusion = "assd.methods.score_distillation.fusion.WeightedAttentionFusion"
    assert {name for name, cfg in parts.items() if cfg.attention._target_ != fusion} == {"no_waf", *bare}
    assert {name for name, cfg in parts.items() if "joint_guidance" not in cfg.loss} == {"no_joint_guidance", *bare}
    assert parts["no_smoothing"].loss.video.rule.gamma == 1.0
    assert parts["no_mask"].loss.video.rule.tau == float("-inf")
    assert parts["sds"].loss.video.rule._target_ == "assd.methods.score_distillation.rules.SDS"
    assert parts["video_dds"].loss.video.rule._target_ == "assd.methods.score_distillation.rules.VideoDDS"


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_ablation_of_every_experiment(experiment, ablation):
    """An experiment's own values leave no component behind that an ablation took away: all can be built."""
    cfg = plain([f"+experiment={experiment}", f"+ablation={ablation}"], resolve=False)
    assert all("_target_" in loss for loss in cfg["loss"].values())


@pytest.mark.parametrize("loss", ["assd", "sds", "video_dds", "joint_guidance"])
def test_guidance_scale_reaches_every_component(loss):
    """One setting is w everywhere, also of an image model without its own: else ablations would compare two things."""
    (component,) = plain(["model=modelscope", "dataset=shapes", f"loss=[{loss}]", "guidance_scale=3.5"], resolve=True)[
        "loss"
    ].values()
    assert component["guidance_scale"] == 3.5


@pytest.mark.parametrize("experiment", [[], ["+experiment=paper"]])
def test_a_model_brings_what_goes_with_it(experiment):
    """Zeroscope with nothing else typed has Stable Diffusion, w 7.5, 200 steps, four key frames of 24, and a CLIP that
    knows words; what is typed wins."""
    cfg = plain(["model=zeroscope", *experiment], resolve=True)
    assert cfg["image_model"]["path"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert (cfg["guidance_scale"], cfg["method"]["num_steps"], cfg["key_frame_stride"]) == (7.5, 200, 6)
    assert cfg["clip"]["name"].startswith("ViT-L-14")
    typed = ["image_model=shapes", "guidance_scale=5", "steps.distillation=9", "key_frame_stride=3", "clip=embedded"]
    cfg = plain(["model=zeroscope", *experiment, *typed], resolve=True)
    assert cfg["image_model"]["path"] == "pkg://assd.shapes/weights"
    assert (cfg["guidance_scale"], cfg["method"]["num_steps"], cfg["key_frame_stride"]) == (5, 9, 3)
    assert not cfg["clip"]["name"].startswith("ViT-L-14")


@pytest.mark.parametrize("num_frames, stride", [(24, 6), (16, 4), (8, 2), (3, 1)])
def test_key_frames_are_four(num_frames, stride):
    """The stride follows the number of frames, and is never 0."""
    typed = ["model=modelscope", "dataset=shapes", f"model.num_frames={num_frames}"]
    assert plain(typed, resolve=True)["key_frame_stride"] == stride


def test_the_embedded_models_joint_guidance_is_on_every_frame():
    """Between key frames its edits would flicker; and its image model has a scale of its own."""
    guidance = plain([], resolve=True)["loss"]["joint_guidance"]
    assert (guidance["stride"], guidance["guidance_scale"]) == (1, 2.0)


def test_the_papers_setting():
    """ModelScopeT2V and Stable Diffusion on the benchmark, 200 steps of SGD at 0.1, gamma 0.67, lambda 0.8."""
    cfg = plain(["+experiment=paper"], resolve=True)
    assert (cfg["model"]["path"], cfg["model"]["num_frames"]) == ("ali-vilab/text-to-video-ms-1.7b", 16)
    assert cfg["image_model"]["path"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert (cfg["method"]["num_steps"], cfg["optimizer"]["lr"]) == (200, 0.1)
    assert (cfg["loss"]["video"]["rule"]["gamma"], cfg["attention"]["lam"], cfg["guidance_scale"]) == (0.67, 0.8, 7.5)
    assert len(range(0, 16, cfg["loss"]["joint_guidance"]["stride"])) == 4
    assert (cfg["dataset"]["split"], cfg["dataset"]["height"], cfg["dataset"]["num_frames"]) == ("core", 256, 16)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_brings_its_own_groups_and_no_others(method):
    """What score distillation is made of is nowhere in another method's configuration, nor the other way round."""
    cfg = plain([f"method={method}"], resolve=True)
    is_distillation = method == "score_distillation"
    assert [cfg[key] is not None for key in ("loss", "attention", "optimizer")] == [is_distillation] * 3
    assert (cfg.get("control_net") is not None) == (method == "control_video")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("settings/")])
def test_settings_change_the_method_alone(file):
    """What a method needs with one model is not a way to another model, dataset or metric."""
    model, method = choosing(file)
    found = plain([model, method], resolve=False)
    stated = OmegaConf.load(CONF / f"{file}.yaml")
    assert set(stated) <= {"method", "key_frame_stride"}
    assert found["key_frame_stride"] == stated.get("key_frame_stride")
    for key, value in OmegaConf.to_container(stated, resolve=False).get("method", {}).items():
        assert found["method"][key] == value or isinstance(value, dict)


def test_steps_belong_to_families_of_methods():
    """A model brings as many for optimisation as for sampling; each method reads its own."""
    distilled = plain(["steps.distillation=7", "steps.sampling=8"], resolve=True)
    inverted = plain(["method=reconstruction", "steps.distillation=7", "steps.sampling=8"], resolve=True)
    assert distilled["method"]["num_steps"] == 7
    assert inverted["method"]["sampling_steps"] == 8


def test_the_image_models_guidance_is_the_videos_unless_it_is_said():
    """One number for both, or one for each."""
    scales = [
        plain(["model=modelscope", "dataset=shapes", *typed], resolve=True)["loss"]["joint_guidance"]["guidance_scale"]
        for typed in (["guidance_scale=5"], ["guidance_scale=5", "image_guidance_scale=2"])
    ]
    assert scales == [5, 2]
