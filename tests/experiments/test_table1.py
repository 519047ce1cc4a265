"""Table 1 and figure 3: whose row is where, what the paragraph may say, and what a study adds."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assd.runs.sweep import add_run, begin_sweep, fail_run, read_sweep
from evaluation.comparison import failures, summarize
from evaluation.scores import COLUMNS, row, update_scores
from evaluation.study.blind import Blind
from evaluation.study.key import write_key
from evaluation.study.plan import Plan
from evaluation.study.simulate import Raters
from experiments import common, table1
from experiments.findings import FEWEST, metric_verdicts, paragraph
from experiments.study import labels, right_half
from experiments.table1 import MEMORY, METHODS, OURS, TIME, first_runs, in_order, machine, measured

PAIRS = [f"pair-{number}" for number in range(6)]
TEXT, CHANGE = "CLIP text", "contamination"


def run(sweep, name, scores, seconds=(2.0, 4.0, 2.0, 4.0, 2.0, 4.0)):
    """A run with nothing but scores by metric, one a pair, and what its edits cost."""
    folder = sweep / name
    rows = []
    for metric, values in scores.items():
        better = "lower" if metric == CHANGE else "higher"
        for pair, value in zip(PAIRS, values):
            rows += [row(pair, "source", metric, better, 0.0), row(pair, "edited", metric, better, value)]
    folder.mkdir(parents=True)
    update_scores(folder, pd.DataFrame(rows, columns=COLUMNS))
    for pair, took in zip(PAIRS, seconds):
        record = {"status": "finished", "source_prompt": "a", "target_prompt": "b", "seconds": took}
        (folder / "edits" / pair).mkdir(parents=True)
        (folder / "edits" / pair / "edit.json").write_text(json.dumps(record | {"peak_memory_gib": took / 4}))
    add_run(sweep, name, [name])


@pytest.fixture
def sweep(tmp_path):
    """In an order that is not the paper's; ControlVideo never began, FateZero failed on each pair."""
    begin_sweep(tmp_path, [])
    run(tmp_path, "ablation=video_dds", {TEXT: [0.1] * 6})
    run(tmp_path, "method=tune_a_video", {TEXT: [0.9] * 6})
    run(tmp_path, "method=score_distillation", {TEXT: [0.5] * 6})
    run(tmp_path, "method=fatezero", {}, seconds=())
    nothing = [row(pair, "edited", reason="no blend words") for pair in PAIRS]
    update_scores(tmp_path / "method=fatezero", pd.DataFrame(nothing, columns=COLUMNS))
    fail_run(tmp_path, "method=fatezero", "6 of 6 pairs could not be edited")
    add_run(tmp_path, "method=control_video", ["method=control_video"])
    fail_run(tmp_path, "method=control_video", "there are\nno weights")
    return tmp_path


def test_rows_stand_in_the_papers_order_with_what_failed(sweep):
    """The sweep's order is by folder; a row that failed stays, and the note has its own reason."""
    scores = measured(sweep, PAIRS)
    summary = summarize(scores, OURS)
    found = list(dict.fromkeys(scores.method))
    assert found == ["source, unedited", "Tune-A-Video", "FateZero", "ControlVideo", "ASSD", "Video-DDS"]
    assert list(dict.fromkeys(in_order(summary).method)) == found
    everywhere = ", ".join(PAIRS)
    assert failures(scores) == [
        f"FateZero: no result for {everywhere} (no blend words)",
        f"ControlVideo: no result for {everywhere} (there are no weights)",
    ]
    assert list(first_runs(sweep)) == found[1:]


def test_what_an_edit_cost_is_a_column(sweep):
    """Means over pairs of 2 and 4 s, and of 0.5 and 1 GiB; the source cost nothing and has no such cell."""
    summary = summarize(measured(sweep, PAIRS)).set_index(["method", "metric"])["mean"]
    assert (summary["ASSD", TIME], summary["ASSD", MEMORY]) == (3.0, 0.75)
    assert ("source, unedited", TIME) not in summary.index


def test_costs_of_several_machines_are_not_compared_in_silence(sweep):
    """The edits' own records say where they were made; the environment is that of whoever came last."""
    record = {"status": "finished", "source_prompt": "a", "target_prompt": "b", "seconds": 1.0}
    for name, device in (("method=tune_a_video", "cuda h100"), ("ablation=video_dds", "cpu x86_64")):
        (sweep / name / "edits" / PAIRS[0] / "edit.json").write_text(json.dumps(record | {"device": device}))
    assert "on cpu x86_64:" in machine([only(sweep, "ablation=video_dds")])
    said = machine([only(sweep, name) for name in ("method=tune_a_video", "ablation=video_dds")])
    assert "NOT on one device, but on cpu x86_64, cuda h100" in said


def only(sweep, name):
    """A run with its first edit alone."""
    for pair in PAIRS[1:]:
        shutil.rmtree(sweep / name / "edits" / pair, ignore_errors=True)
    return sweep / name


def test_only_the_pairs_asked_for_count(sweep):
    """An earlier command edited six; a table of two is of these two, their costs as well."""
    scores = measured(sweep, PAIRS[:2])
    assert set(scores.pair) == set(PAIRS[:2])
    assert summarize(scores).pairs.max() == 2


def test_scores_of_an_earlier_command_do_not_stand_for_a_run_that_was_refused(sweep):
    """Its folder holds another configuration's results, all of them whole: the reason stands, and not they."""
    fail_run(sweep, "method=tune_a_video", "it was made with another configuration")
    scores = measured(sweep, PAIRS)
    assert scores[(scores.method == "Tune-A-Video") & scores.value.notna()].empty
    assert any("another configuration" in said for said in failures(scores))


def compared(values, ours, metric=TEXT):
    """The verdict on a method with these values, beside those of our method."""
    better = "lower" if metric == CHANGE else "higher"
    rows = [
        row(pair, "edited", metric, better, value) | {"method": method}
        for method, numbers in (("FLATTEN", values), (OURS, ours))
        for pair, value in zip(PAIRS, numbers)
    ]
    return metric_verdicts(summarize(pd.DataFrame(rows), OURS))


@pytest.mark.parametrize(
    ("metric", "values", "verdict"),
    [
        (TEXT, [0.6, 0.7, 0.6, 0.7, 0.6, 0.7], "better"),
        (TEXT, [0.4, 0.3, 0.4, 0.3, 0.4, 0.3], "worse"),
        (CHANGE, [0.6, 0.7, 0.6, 0.7, 0.6, 0.7], "worse"),
        (CHANGE, [0.4, 0.3, 0.4, 0.3, 0.4, 0.3], "better"),
        (TEXT, [0.9, 0.1, 0.9, 0.1, 0.9, 0.2], "undecided"),
        (TEXT, [0.5] * 6, "equal on every pair"),
        (TEXT, [0.6, 0.7, 0.6, 0.7, 0.6], "undecided"),  # five pairs, all of them higher
        (TEXT, [0.6, 0.7, 0.6, 0.7, 0.6, 0.5], "undecided"),  # six, of which five differ
    ],
)
def test_a_verdict_is_the_intervals(metric, values, verdict):
    """Lower is better where the metric says so; nothing is certain from an interval with 0 in it, or from few pairs."""
    found = compared(values, [0.5] * 6, metric)
    assert found.verdict.tolist() == [verdict]
    said = paragraph(found, found[:0], OURS)
    assert (f"certainly {verdict} FLATTEN" in said) == (verdict in ("better", "worse"))
    few = len(set(values) - {0.5}) and sum(value != 0.5 for value in values) < FEWEST
    assert (f"fewer than {FEWEST} pairs differ nothing is called certain: {metric} (FLATTEN)" in said) == bool(few)


def test_the_papers_orders_are_counted():
    """The paper has FLATTEN's CLIP text above ASSD's: the same here, the other way round, and undecided."""
    for values, said in (
        ([0.6, 0.7] * 3, "1 certainly hold here, 0 certainly do not, and 0 are undecided"),
        ([0.4, 0.3] * 3, "0 certainly hold here, 1 certainly do not (FLATTEN by CLIP text), and 0 are undecided"),
        ([0.5] * 6, "0 certainly hold here, 0 certainly do not, and 1 are undecided"),
    ):
        found = compared(values, [0.5] * 6)
        assert said in paragraph(found, found[:0], OURS)
    assert "orders" not in paragraph(compared([0.6] * 6, [0.5] * 6, CHANGE), found[:0], OURS)


def test_nothing_to_compare_with(sweep):
    """Our own method failed: the others have their rows, and the paragraph says that there is nothing to say."""
    fail_run(sweep, "method=score_distillation", "out of memory")
    summary = summarize(measured(sweep, PAIRS), OURS)
    assert {"ASSD", "Tune-A-Video"} <= set(summary.method)
    nothing = metric_verdicts(summary)
    assert paragraph(nothing, nothing, OURS) == "There is nothing to compare ASSD with."


def test_a_studys_names_are_rows():
    """Of run folders, of methods as the command knows them, and as the paper does; another method is no row."""
    names = {
        "method=flatten,seed=0": "FLATTEN",
        "ablation=video_dds": "Video-DDS",
        "tokenflow": "TokenFlow",
        "ControlVideo": "ControlVideo",
    }
    assert labels([*names, "mine"], METHODS) == names


@pytest.fixture
def answers(tmp_path):
    """Answers to a study of three methods, ours by far the best, and one that is no row of the table."""
    names = ["method=score_distillation", "method=flatten", "mine"]
    plan = Plan(design="pairwise", sheets=20, trials=12, broken=2, repeats=1, seed=0)
    key = Blind(f"{1:064x}", {pair: names for pair in PAIRS}).key(plan)
    theta = [[2.0 if "score" in name else -1.0 for name in key.methods]] * len(key.questions)
    sessions = Raters(strengths=np.array(theta)).sessions(key, np.random.default_rng(0))
    write_key(key, tmp_path / "study-key.json")

    def write(simulated):
        lines = [json.dumps(answer | {"simulated": simulated}) for s in sessions for answer in s.answers.values()]
        (tmp_path / "study-answers.jsonl").write_text("\n".join(lines) + "\n")
        return [tmp_path / "study-answers.jsonl"]

    return write


def test_a_study_fills_the_right_half(answers):
    """The method that raters preferred has the larger share, in percent, and the verdict is about the other one."""
    right = right_half(answers(simulated=False), METHODS, OURS)
    alignment = right.rows[right.rows.metric == "user study: alignment (%)"].set_index("method")["mean"]
    assert set(alignment.index) == {"ASSD", "FLATTEN"}
    assert alignment["ASSD"] > 80
    assert alignment["FLATTEN"] < 20
    assert set(zip(right.verdicts.method, right.verdicts.verdict)) == {("FLATTEN", "worse")}
    assert any("mine is no row" in note for note in right.notes)
    assert "3 certainly hold here" in paragraph(right.verdicts[:0], right.verdicts, OURS)


def test_simulated_raters_are_called_so(answers):
    """In the head of each column, in the notes, in the paragraph; and the paper's people are not compared with them."""
    right = right_half(answers(simulated=True), METHODS, OURS)
    assert right.rows.metric.str.endswith("SIMULATED RATERS").all()
    assert "SIMULATED" in right.notes[0]
    said = paragraph(right.verdicts[:0], right.verdicts, OURS)
    assert "SIMULATED RATERS" in said
    assert "orders" not in said


def test_sweeps_in_one_folder_are_one_sweep(tmp_path, monkeypatch):
    """The second of them forgot the runs of the first, and the report and the study were of the second alone."""

    def one(output, pairs, choices, overrides):
        begin_sweep(output, choices)
        for choice in choices:
            add_run(output, choice, [choice])
            if "control" in choice:
                fail_run(output, choice, "no weights")

    monkeypatch.setattr(common, "run_sweep", one)
    common.sweep_parts(tmp_path, 1, [["method=control_video", "method=flatten"], ["ablation=video_dds"]], ["seed=1"])
    assert read_sweep(tmp_path) == {
        "overrides": ["seed=1"],
        "runs": {name: [name] for name in ("method=control_video", "method=flatten", "ablation=video_dds")},
        "failed": {"method=control_video": "no weights"},
    }


@pytest.mark.end_to_end
def test_table1(tmp_path, monkeypatch):
    """The whole command with two methods of one step, and one whose weights are nowhere: its row has the reason."""
    broken = ["method=control_video", "control_net.network.path=/nowhere"]
    monkeypatch.setattr(table1, "PARTS", (["method=score_distillation"], ["+ablation=video_dds"], broken))
    light = ["steps.distillation=1", "metric=[psnr,truth_psnr]", "tracking.mode=disabled", "device=cpu"]
    monkeypatch.setattr(sys, "argv", ["table1", "--output", str(tmp_path), "--pairs", "1", *light])
    table1.main()
    table = pd.read_csv(tmp_path / "table1.csv").set_index(["method", "metric"])
    assert table.loc[("ASSD", TIME), "mean"] > 0
    assert table.loc[("Video-DDS", MEMORY), "mean"] > 0.05
    assert table.loc[("source, unedited", "PSNR (dB) to true edit, everywhere"), "pairs"] == 1
    assert "source, through the autoencoder" in table.index
    text = (tmp_path / "table1.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert rows[4:7] == ["ControlVideo", "ASSD", "Video-DDS"]
    assert "truth PSNR (dB)" in text
    assert "/nowhere" in text.partition("ControlVideo: no result")[2]
    assert "pairs differ nothing is called certain" in text
    assert r"\toprule" in (tmp_path / "table1.tex").read_text()
    assert Image.open(tmp_path / "figure3.png").height > 200
    report = (tmp_path / "report.html").read_text()
    assert "score_distillation" in report
    assert "video_dds" in report
