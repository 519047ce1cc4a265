"""The installed package is whole: configuration files, embedded weights and the command, away from the clone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parent.parent
WEIGHTS = Path("assd/shapes/weights")


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    """What a command prints; the test ends where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PYTHONPATH", None)
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_the_project(folder: Path) -> Path:
    """Source files as they stand, and the embedded weights, without whatever else lies about."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:
        names = [Path(name) for name in tracked.stdout.split("\0") if name]
    else:  # unpacked from an archive
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.suffix in (".py", ".toml", ".md", ".yaml")]
        names += [Path("LICENSE"), Path("assd/shapes/pairs.csv")]
    names += [path.relative_to(ROOT) for path in (ROOT / WEIGHTS).rglob("*")]
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy."""
    pytest.importorskip("setuptools")
    source = copy_of_the_project(tmp_path_factory.mktemp("source"))
    dist = tmp_path_factory.mktemp("dist")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(dist)]
    run(sys.executable, "-m", "pip", "wheel", *options, str(source), cwd=source)
    (file,) = dist.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel is installed, alone."""
    target = tmp_path_factory.mktemp("target")
    run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel),
        cwd=target,
    )  # fmt: skip
    return target


def test_the_wheel_holds_every_data_file(wheel: Path) -> None:
    """YAML files, weights, both lists of pairs and the published sizes are in the wheel, byte for byte."""
    expected = {f"assd/{path.relative_to(ROOT).as_posix()}": path for path in (ROOT / "conf").rglob("*.yaml")}
    expected |= {path.relative_to(ROOT).as_posix(): path for path in (ROOT / WEIGHTS).rglob("*") if path.is_file()}
    data = (
        ROOT / "assd/shapes/pairs.csv",
        ROOT / "assd/data/benchmark/manifest.csv",
        *(ROOT / "assd/models/published").rglob("*.json"),
    )
    expected |= {path.relative_to(ROOT).as_posix(): path for path in data}
    assert len(expected) > 20
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert not expected.keys() - names
        different = [name for name, path in expected.items() if archive.read(name) != path.read_bytes()]
    assert not different


def test_the_wheel_holds_no_more_than_the_project(wheel: Path) -> None:
    """Nothing lands in a name that is not this project's: no top-level tests, conf or weights."""
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"assd", "evaluation"}


def test_the_installed_package_finds_its_files(installed: Path, tmp_path: Path) -> None:
    """Away from the clone the configuration composes from the package, an ablation too, and the weights are there."""
    code = """
import json
import hydra
from assd import config, models
config.register()
with hydra.initialize_config_module(config_module="assd.conf", version_base="1.3"):
    cfg = config.checked(hydra.compose("config", overrides=["+ablation=no_waf"]))
print(json.dumps([config.__file__, config.CONFIG_PATH, cfg.attention._target_, models.resolve_folder(cfg.model.path)]))
"""
    output = run(sys.executable, "-c", code, cwd=tmp_path, path=installed)
    file, config_path, attention, weights = json.loads(output.splitlines()[-1])
    assert Path(file).is_relative_to(installed)
    assert config_path == "pkg://assd.conf"
    assert attention == "assd.methods.score_distillation.fusion.unmodified"
    assert Path(weights) == installed / WEIGHTS
    assert (Path(weights) / "video_unet" / "config.json").is_file()


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    """`python -m assd.run` away from the clone composes its configuration and shows it."""
    shown = run(
        sys.executable, "-m", "assd.run", "--cfg", "job", "+ablation=no_smoothing", "seed=5",
        cwd=tmp_path, path=installed,
    )  # fmt: skip
    assert "seed: 5" in shown
    assert "gamma: 1.0" in shown
    assert "path: pkg://assd.shapes/weights" in shown


def test_the_wheel_declares_the_command(wheel: Path) -> None:
    """Installing makes `assd` the same command."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "assd = assd.run:main" in archive.read(name).decode()
