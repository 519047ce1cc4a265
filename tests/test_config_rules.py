"""What the schema refuses, and how runs are named."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from assd.config import NAME_LENGTH, checked, in_full, quoted, register, run_name, without
from assd.errors import InputError, sentence
from tests.compositions import CONF, configuration, plain


@pytest.fixture(autouse=True)
def configuration_folder() -> Iterator[None]:
    """Hydra looks into the project's folder."""
    register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


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


@pytest.mark.parametrize("overrides", [["+ablation=no_waf", "seed=2"], ["+loss.video.reference_guidance_scale=1.5"]])
def test_recorded_overrides_compose_again(overrides):
    """What a run keeps of its command, in full again, is the same configuration."""
    kept = in_full(without([*overrides, "device=cpu"], ["device"]))
    assert plain(kept, resolve=True) == plain(overrides, resolve=True)


@pytest.mark.parametrize("text", ["outputs", "a, b [c] {d}: e=f", "it's", "back\\slash", "'", "\\", "a\\'b\\"])
def test_a_quoted_text_comes_back(text):
    """Whatever stands in it, Hydra reads the text that was meant."""
    assert OverridesParser.create().parse_override(f"output={quoted(text)}").value() == text


def test_run_names_are_readable() -> None:
    """A short command is its own run directory's name; nothing changed is called default."""
    assert run_name([]) == "default"
    assert run_name(["seed=1", "+ablation=no_waf"]) == "ablation=no_waf,seed=1"
    assert run_name(["loss=[assd,joint_guidance]"]) == "loss=[assd,joint_guidance]"


@pytest.mark.parametrize(
    "override", ["clip.device=cpu", "metric.warp_error.flow=raft", "~metric.psnr", "metric=[psnr]", "tracking.every=1"]
)
def test_what_changes_no_result_is_no_part_of_a_run(override):
    """Neither is a key below such a one: the run directory is that of the command without it, and so is its record."""
    composition = compose("config", overrides=["seed=1", override], return_hydra_config=True)
    HydraConfig.instance().set_config(composition)
    hydra_cfg = composition.hydra
    assert (Path(hydra_cfg.run.dir).name, hydra_cfg.sweep.subdir) == ("seed=1", "seed=1")
    incidental = hydra_cfg.job.config.override_dirname.exclude_keys
    assert without(hydra_cfg.overrides.task, incidental) == ["seed=1"]


def test_what_only_looks_like_such_a_key_is_part_of_a_run():
    """One that begins alike, and one that stands within a value."""
    for override in ("clips=3", "model.clip.device=cpu", "dataset.target_prompt='a cat,clip.device=[cpu],b'"):
        assert run_name([override], ["clip"]) == run_name([override])
        assert without([override], ["clip"]) == [override]


def test_run_names_are_safe() -> None:
    """A run directory's name is one folder of limited length in bytes, whatever stands in the command."""
    commands = ["dataset.path=/a/b/../c d.mp4", "dataset.path='x:y*?'", "seed=1," * 200, "dataset.path=猫/é.mp4"]
    for command in [*commands, "猫" * NAME_LENGTH, "é" * 60 + ",seed=2"]:
        name = run_name([command])
        assert Path(name).name == name
        assert not set(name) & set(" /\\:*?'\"")
        assert len(name.encode()) <= NAME_LENGTH


def test_seeds_of_a_long_command_differ_in_the_seed_alone() -> None:
    """A hash stands for all but the seed, so that tables can tell that it is one method."""
    first, second = (run_name(["dataset.source_prompt='a cat'", f"seed={seed}"]) for seed in (1, 2))
    assert first.removesuffix(",seed=1") == second.removesuffix(",seed=2") != first


def test_run_names_tell_commands_apart() -> None:
    """Commands that look alike when cut or cleaned still get different names, and the same command the same one."""
    long = "dataset.target_prompt=" + "a very " * 30
    commands = ["path=a/b", "path=a_b", "path=a b", "path=a:b", long + "red cat", long + "blue cat"]
    names = [run_name([command]) for command in commands]
    assert len(set(names)) == len(commands)
    assert names == [run_name([command]) for command in commands]
