"""sweep.json: what a sweep has made, wherever its jobs ran and in whatever order they ended."""

import io
import json
import multiprocessing

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console

from assd.errors import InputError
from assd.run import job_errors, main
from assd.runs.sweep import add_run, begin_sweep, fail_run, read_sweep, reason_of, sweep_runs
from evaluation.report.sweep import SweepReport, print_sweep
from evaluation.scores import failure, update_scores


def add_many(folder, job):
    """One job's twenty entries."""
    for number in range(20):
        add_run(folder, f"job={job},{number}", [f"job={job}", f"number={number}"])


def test_runs_by_their_overrides(tmp_path):
    """Each run has its overrides; those of the command are the sweep's; a run that begins again stands once."""
    begin_sweep(tmp_path, ["+ablation=full,no_waf"])
    for name in ("no_waf", "full", "no_waf"):
        add_run(tmp_path, f"ablation={name}", [f"ablation={name}"])
    assert sweep_runs(tmp_path) == [tmp_path / "ablation=full", tmp_path / "ablation=no_waf"]
    sweep = read_sweep(tmp_path)
    assert sweep["overrides"] == ["+ablation=full,no_waf"]
    assert sweep["runs"]["ablation=full"] == ["ablation=full"]


def test_why_a_run_failed_is_known_until_it_begins_again(tmp_path):
    """A job that never opened its folder left no trace of its reason. An earlier version's sweep.json is read too."""
    (tmp_path / "sweep.json").write_text('{"overrides": [], "runs": {"a": []}}')
    fail_run(tmp_path, "a", "no weights")
    fail_run(tmp_path, "b", "out of memory")
    assert read_sweep(tmp_path)["failed"] == {"a": "no weights", "b": "out of memory"}
    add_run(tmp_path, "a", [])
    assert read_sweep(tmp_path)["failed"] == {"b": "out of memory"}


def test_a_job_that_fails_says_why(tmp_path):
    """Hydra hands its error to the callback; the sentence is the one that a person reads."""
    callback, ended = SweepReport(), JobReturn(status=JobStatus.FAILED)
    ended.return_value = InputError("no weights")
    callback.on_job_start(job(tmp_path, "method=control_video"))
    callback.on_job_end(job(tmp_path, "method=control_video"), ended)
    assert read_sweep(tmp_path)["failed"] == {"method=control_video": "no weights"}


def test_shards_of_a_run_keep_their_own_reasons(tmp_path):
    """One that begins does not make another one's failure forgotten, and forgets its own when it begins again."""
    first, second = (job(tmp_path, "ablation=full", shard) for shard in ("1/2", "2/2"))
    ended = JobReturn(status=JobStatus.FAILED)
    ended.return_value = InputError("no weights")
    callback = SweepReport()
    callback.on_job_start(first)
    callback.on_job_end(first, ended)
    callback.on_job_start(second)
    assert reason_of(read_sweep(tmp_path), "ablation=full") == "no weights"
    assert sweep_runs(tmp_path) == [tmp_path / "ablation=full"]
    callback.on_job_start(first)
    assert reason_of(read_sweep(tmp_path), "ablation=full") is None


def test_a_clusters_job_that_fails_says_why(tmp_path):
    """It ends its process, for Slurm to see it, and Hydra does not come to the callback: the sweep knows it anyway."""
    cfg = job(tmp_path, "method=flatten")
    SweepReport().on_job_start(cfg)
    (tmp_path / "method=flatten").mkdir()
    (tmp_path / "method=flatten" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(SystemExit, match="error: no weights"), job_errors(on_slurm(cfg), None):
        raise InputError("no weights")
    assert read_sweep(tmp_path)["failed"] == {"method=flatten": "no weights"}
    assert "method=flatten" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_damaged_sweep_hides_no_error(tmp_path, monkeypatch, capsys):
    """Neither that of a cluster's job nor that of the whole command: what is wrong with sweep.json is said besides."""
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(SystemExit, match="error: no weights"), job_errors(on_slurm(job(tmp_path, "a")), None):
        raise InputError("no weights")
    assert "sweep.json is damaged" in capsys.readouterr().err

    def app():
        SweepReport.begun.append(tmp_path)
        raise InputError("no weights")

    monkeypatch.setattr("assd.run.app", app)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit, match="error: no weights"):
        main()
    assert "sweep.json is damaged" in capsys.readouterr().err
    assert SweepReport.begun == []


def test_a_sweep_without_any_score_says_why(tmp_path):
    """There is no table then, and what went wrong stands in its place."""
    add_run(tmp_path, "a", [])
    (tmp_path / "a").mkdir()
    update_scores(tmp_path / "a", failure("01-car", "no weights"))
    SweepReport.begun.append(tmp_path)
    console = Console(file=io.StringIO(), width=200)
    print_sweep(console)
    assert "no result for 01-car (no weights)" in console.file.getvalue()


def test_a_new_sweep_forgets_the_last_one(tmp_path):
    """What an earlier command left in the folder belongs to another table."""
    add_run(tmp_path, "a", [])
    begin_sweep(tmp_path, [])
    assert sweep_runs(tmp_path) == []


def test_jobs_side_by_side_lose_nothing(tmp_path):
    """Three processes that add at once: every entry is there, the file whole."""
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=add_many, args=(tmp_path, job)) for job in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(sweep_runs(tmp_path)) == 60


def test_a_folder_that_is_no_sweep(tmp_path):
    """It has no runs; a damaged file is named, and a name that leads out of the folder is refused."""
    assert sweep_runs(tmp_path) == []
    for content in ("{", "[]", '{"overrides": []}', '{"runs": {"../elsewhere": []}}', '{"runs": 3}'):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(InputError, match=r"sweep\.json is damaged"):
            sweep_runs(tmp_path)


def job(folder, name, shard=None):
    """The configuration that Hydra hands to a callback for one job."""
    return OmegaConf.create(
        {
            "dataset": {"shard": shard},
            "hydra": {
                "mode": RunMode.MULTIRUN,
                "sweep": {"dir": str(folder)},
                "runtime": {"output_dir": str(folder / name)},
                "overrides": {"task": [f"+{name}", "device=cpu"]},
                "job": {"config": {"override_dirname": {"exclude_keys": ["device"]}}},
            },
        }
    )


def on_slurm(cfg):
    """Hydra's own part of a job's configuration, on a cluster."""
    return OmegaConf.merge(cfg, {"hydra": {"launcher": {"_target_": "hydra_plugins.submitit.SlurmLauncher"}}}).hydra


def test_jobs_that_end_out_of_order_are_one_report(tmp_path, finished_run):
    """Each job has a callback of its own, as on another machine; the second ends first, and the page gets both."""
    names = ["ablation=full", "ablation=video_dds"]
    SweepReport().on_multirun_start(job(tmp_path, "unused"))
    jobs = {name: SweepReport() for name in names}
    for name, callback in jobs.items():
        callback.on_job_start(job(tmp_path, name))
    page = tmp_path / "report.html"
    for ended, name in enumerate(reversed(names), start=1):
        finished_run(tmp_path / name, lambda known: known.truth, pairs=1, overrides=[f"+{name}"])
        jobs[name].on_job_end(job(tmp_path, name), None)
        text = page.read_text(encoding="utf-8")
        assert [f"{name}</" in text or f"{name}<" in text for name in names] == [ended == 2, True]
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"] == {name: [name] for name in names}
    SweepReport.begun.clear()
