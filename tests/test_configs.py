"""Every configuration file composes, names what exists, and changes only what it says."""

import copy
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from assd.config import NAME_LENGTH, checked, in_full, register, run_name, without
from assd.errors import InputError, sentence

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
GROUPS = [file for file in FILES if "/" in file]
ABLATIONS = sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
LISTS = ("loss", "metric")  # groups of which several files are chosen at once


@pytest.fixture(autouse=True)
def configuration_folder() -> Iterator[None]:
    """Hydra looks into the project's folder."""
    register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


@functools.cache  # a second each, and most tests read the same ones
def configuration(*overrides: str) -> DictConfig:
    """The main file composed under these overrides."""
    return compose("config", overrides=list(overrides))


@functools.cache
def choices() -> dict:
    """The groups that the defaults choose from."""
    return dict(compose("config", return_hydra_config=True).hydra.runtime.choices)


def choosing(file: str) -> list[str]:
    """The command line that takes a group's file."""
    if "/" not in file:
        return []
    group, _, name = file.rpartition("/")
    if group == "settings":  # what config.yaml takes by itself for a model with a method
        model = max((model for model in MODELS if name.startswith(f"{model}_")), key=len)
        return [f"model={model}", f"method={name.removeprefix(f'{model}_')}"]
    if group == "control_net":
        return ["method=control_video", f"control_net={name}"]
    if group in LISTS:
        return [f"{group}=[{name}]"]
    return [f"{group}={name}" if group in choices() or group.startswith("hydra/") else f"+{group}={name}"]


def plain(overrides: list[str], resolve: bool) -> dict:
    """The composed configuration as dictionaries."""
    container = OmegaConf.to_container(configuration(*overrides), resolve=resolve)
    assert isinstance(container, dict)
    return container


def targets(node: object, name: str = "") -> Iterator[tuple[str, dict]]:
    """Every node with a `_target_`, under its full name."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield name, node
        for key, value in node.items():
            yield from targets(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, f"{name}[{i}]")


def problem(node: dict) -> str | None:
    """Why this node could not be called, or None."""
    arguments = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    try:
        signature = inspect.signature(get_method(node["_target_"]))
        (signature.bind_partial if node.get("_partial_") else signature.bind)(**arguments)
    except (TypeError, ValueError, ImportError, AttributeError, HydraException) as error:
        return f"{node['_target_']}({', '.join(arguments)}): {error}"
    return None


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


def test_the_default_is_checked_without_complaint() -> None:
    """The default configuration passes its own schema, and comes out as it went in."""
    cfg = configuration()
    assert OmegaConf.to_container(checked(cfg)) == OmegaConf.to_container(cfg)


@pytest.mark.parametrize("override", ["+foo=1", "+foo.bar=1", "++foo=1"])
def test_an_added_key_is_refused(override: str) -> None:
    """A key that the schema does not know is refused by name, also where `+` insists on it."""
    with pytest.raises(OmegaConfBaseException, match="foo") as caught:
        checked(compose("config", overrides=[override]))
    assert isinstance(caught.value, ConfigKeyError)


def test_an_unknown_key_is_refused() -> None:
    """A key that does not exist is refused by name."""
    with pytest.raises(HydraException, match="foo"):
        compose("config", overrides=["foo=1"])


@pytest.mark.parametrize(("key", "value"), [("seed", "many"), ("save_frames", "perhaps")])
def test_a_value_of_another_type_is_refused(key: str, value: str) -> None:
    """The seed is a whole number, save_frames true or false; the message names the key."""
    with pytest.raises((HydraException, OmegaConfBaseException), match=key):
        checked(compose("config", overrides=[f"{key}={value}"]))


def test_what_must_be_given_is_asked_for() -> None:
    """One's own video without its path is refused, naming the key."""
    with pytest.raises(MissingMandatoryValue, match=r"dataset\.path|path"):
        checked(compose("config", overrides=["dataset=video"]))


def test_run_names_are_readable() -> None:
    """A short command is its own run directory's name; nothing changed is called default."""
    assert run_name("") == "default"
    assert run_name("+ablation=no_waf,seed=1") == "ablation=no_waf,seed=1"
    assert run_name("loss=[assd,joint_guidance]") == "loss=[assd,joint_guidance]"


def test_run_names_are_safe() -> None:
    """A run directory's name is one folder of limited length, whatever stands in the command."""
    for overrides in ("dataset.path=/a/b/../c d.mp4", "dataset.path='x:y*?'", "seed=1," * 200, "dataset.path=猫/é.mp4"):
        name = run_name(overrides)
        assert Path(name).name == name
        assert not set(name) & set(" /\\:*?'\"")
        assert len(name) <= NAME_LENGTH + 10


def test_seeds_of_a_long_command_differ_in_the_seed_alone() -> None:
    """A hash stands for all but the seed, so that tables can tell that it is one method."""
    first, second = (run_name(f"dataset.source_prompt='a cat',seed={seed}") for seed in (1, 2))
    assert first.removesuffix(",seed=1") == second.removesuffix(",seed=2") != first


def test_run_names_tell_commands_apart() -> None:
    """Commands that look alike when cut or cleaned still get different names, and the same command the same one."""
    long = "dataset.target_prompt=" + "a very " * 30
    commands = ["path=a/b", "path=a_b", "path=a b", "path=a:b", long + "red cat", long + "blue cat"]
    names = [run_name(command) for command in commands]
    assert len(set(names)) == len(commands)
    assert names == [run_name(command) for command in commands]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_ablation_of_every_experiment(experiment, ablation):
    """An experiment's own values leave no component behind that an ablation took away: all can be built."""
    cfg = plain([f"+experiment={experiment}", f"+ablation={ablation}"], resolve=False)
    assert all("_target_" in loss for loss in cfg["loss"].values())


@pytest.mark.parametrize("loss", ["assd", "sds", "video_dds", "joint_guidance"])
def test_guidance_scale_reaches_every_component(loss):
    """One setting is w everywhere: a number of its own in one file would make ablations compare two things."""
    (component,) = plain([f"loss=[{loss}]", "guidance_scale=3.5"], resolve=True)["loss"].values()
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
    assert plain([f"model.num_frames={num_frames}"], resolve=True)["key_frame_stride"] == stride


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
    assert list(stated) == ["method"]
    for key, value in OmegaConf.to_container(stated, resolve=False)["method"].items():
        assert found["method"][key] == value or isinstance(value, dict)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=reconstruction", "key_frame_stride=2"], "key_frame_stride has no meaning"),
        (["method=reconstruction", "guidance_scale=5"], "guidance_scale has no meaning"),
        (["method=reconstruction", "+loss.video.weight=2"], "loss has no meaning"),
        (["+control_net=canny"], "control_net has no meaning"),
    ],
)
def test_what_a_method_never_reads_is_refused(overrides, said):
    """A setting that would change nothing is a mistake: it is named with the method."""
    with pytest.raises(InputError, match=f"{said} for this run's method, (Reconstruction|ScoreDistillation)"):
        checked(compose("config", overrides=overrides), overrides)


def test_an_ablation_of_another_method_is_refused():
    """Hydra's words are turned into one sentence that says what to do."""
    with pytest.raises(HydraException) as error:
        compose("config", overrides=["method=reconstruction", "+ablation=no_waf"])
    assert sentence(error.value) == (
        "ablation=no_waf changes attention, which this run's method does not have: ablations belong to "
        "method=score_distillation. Leave +ablation=no_waf or method=... out"
    )


def test_steps_belong_to_families_of_methods():
    """A model brings as many for optimisation as for sampling; each method reads its own."""
    distilled = plain(["steps.distillation=7", "steps.sampling=8"], resolve=True)
    inverted = plain(["method=reconstruction", "steps.distillation=7", "steps.sampling=8"], resolve=True)
    assert distilled["method"]["num_steps"] == 7
    assert inverted["method"]["sampling_steps"] == 8


def test_the_image_models_guidance_is_the_videos_unless_it_is_said():
    """One number for both, or one for each."""
    scales = [
        plain(typed, resolve=True)["loss"]["joint_guidance"]["guidance_scale"]
        for typed in (["guidance_scale=5"], ["guidance_scale=5", "image_guidance_scale=2"])
    ]
    assert scales == [5, 2]


@pytest.mark.parametrize("overrides", [["+ablation=no_waf", "seed=2"], ["+loss.video.reference_guidance_scale=1.5"]])
def test_recorded_overrides_compose_again(overrides):
    """What a run keeps of its command, in full again, is the same configuration."""
    kept = in_full(without([*overrides, "device=cpu"], ["device"]))
    assert plain(kept, resolve=True) == plain(overrides, resolve=True)
