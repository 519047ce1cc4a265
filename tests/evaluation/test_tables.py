"""Tables: means, intervals, paired differences, and what they look like in each format."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from assd.errors import InputError
from assd.runs.sweep import add_run
from evaluation import comparison, intervals, tables
from evaluation.scores import COLUMNS, NO_MEANING, row, scored_runs, update_scores

METRIC, CHANGE = "CLIP text (x, cosine)", "mean change_1 & more (of 255)"


def scores(values, metric=METRIC, better="higher", source=0.5):
    """Rows for pairs a, b, ...: the edited videos' values, and the same source everywhere."""
    rows = [row(pair, "edited", metric, better, value) for pair, value in zip("abcdefgh", values)]
    return [*rows, *(row(pair, "source", metric, better, source) for pair, _ in zip("abcdefgh", values))]


def run(folder, rows):
    """A run directory with nothing but scores."""
    folder.mkdir(parents=True)
    update_scores(folder, pd.DataFrame(rows, columns=COLUMNS))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two methods, one of them with two seeds; the second is 0.1 better on every pair, but both scatter widely."""
    low = np.array([0.1, 0.4, 0.6, 0.9])
    more = scores([9.0, 8, 7, 6], CHANGE, "lower", source=0.0)
    return [
        run(tmp_path / "ablation=full,seed=0", scores(low + 0.1) + more),
        run(tmp_path / "ablation=full,seed=1", scores(low + 0.1) + more),
        run(tmp_path / "ablation=video_dds,seed=0", scores(low) + scores([1.0, 2, 3, 4], CHANGE, "lower", source=0.0)),
    ]


def test_seeds_are_one_row(runs):
    """Four pairs, not eight: seeds are averaged pair by pair first; the unedited source comes first."""
    summary = comparison.summarize(comparison.collect(runs)).set_index(["method", "metric"])
    assert summary.loc[("full", METRIC), "pairs"] == 4
    assert summary.loc[("full", METRIC), "mean"] == pytest.approx(0.6)
    assert summary.index[0][0] == "source, unedited"


def test_best_is_best_on_the_shared_pairs(tmp_path):
    """A method that failed on the hard pair has the higher mean, 0.8 over 0.5, and is worse on the pair both have."""
    failed = [*scores([0.8]), row("b", "edited", reason="diverged")]
    runs = [run(tmp_path / "whole", scores([0.9, 0.1])), run(tmp_path / "failing", failed)]
    text = tables.render(comparison.summarize(comparison.collect(runs)), "md")
    assert re.search(r"\| whole +\| \*\*0\.500", text)
    assert re.search(r"\| failing +\| \*0\.800\*", text)


def test_paired_differences_see_what_means_hide(runs):
    """The means' intervals overlap; the difference is 0.1 on each pair, and its interval has no width."""
    summary = comparison.summarize(comparison.collect(runs), "video_dds").set_index(["method", "metric"])
    full, plain = summary.loc[("full", METRIC)], summary.loc[("video_dds", METRIC)]
    assert full.low < plain.high
    assert (full.difference, full.difference_low, full.difference_high) == pytest.approx((0.1, 0.1, 0.1))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Of 200 samples of 30 from a known distribution, the 95 % interval holds the true mean about 95 % of the times."""
    draw = np.random.default_rng(0)
    held = [m.low <= 1.0 <= m.high for m in (intervals.mean(draw.normal(1, 2, 30)) for _ in range(200))]
    assert 0.89 <= np.mean(held) <= 0.99


def test_the_interval_of_few_values_is_wide_enough():
    """Of 600 samples of 6 more than 91 % of the intervals hold the true mean; percentiles alone hold it in 87 %."""
    draw = np.random.default_rng(0)
    held = [m.low <= 1.0 <= m.high for m in (intervals.mean(draw.normal(1, 2, 6)) for _ in range(600))]
    assert 0.91 <= np.mean(held) <= 0.99


def test_pairs_on_one_clip_are_drawn_together():
    """Every value said twice, by two pairs of one clip: the interval is that of the single values."""
    single = pd.Series(np.random.default_rng(0).normal(size=8), index=list("abcdefgh"))
    double = pd.concat([single, single.rename(str.upper)])
    clips = {pair: pair.lower() for pair in double.index}
    assert intervals.mean(double, clips)[:3] == pytest.approx(intervals.mean(single)[:3])
    assert intervals.mean(double).low > intervals.mean(single).low
    assert np.isnan(intervals.mean(double, dict.fromkeys(double.index, "one")).low)


def test_few_values_have_no_interval():
    """One value has a mean alone; none has nothing; a missing value is not counted."""
    assert np.isnan(intervals.mean([3.0]).low)
    assert intervals.mean([]).count == 0
    assert intervals.mean([1.0, np.nan, 3.0])[::3] == (2.0, 2)


def test_best_and_second_best(runs):
    """Up is better for the one metric and down for the other; the unedited source takes no prize."""
    text = tables.render(comparison.summarize(comparison.collect(runs)), "md")
    full, plain = (next(line for line in text.splitlines() if f"| {name} " in line) for name in ("full", "video_dds"))
    assert "**0.600" in full
    assert re.search(r"(?<!\*)\*0\.500", plain)
    assert "**2.500" in plain
    assert "**" not in next(line for line in text.splitlines() if "unedited" in line)


def test_csv_is_the_tidy_table(runs, tmp_path):
    """Read back, it is the summary."""
    summary = comparison.summarize(comparison.collect(runs), "full")
    file = tmp_path / "table.csv"
    file.write_text(tables.render(summary, "csv"))
    pd.testing.assert_frame_equal(pd.read_csv(file), summary)


def test_the_published_rows_say_so(runs):
    """The paper's numbers stand in columns of their own and are called published."""
    published = comparison.published()
    assert published.method.str.contains("published, not measured here").all()
    assert not set(published.metric) & {METRIC}
    assert published[published.metric.str.startswith("CLIP text")]["mean"].tolist()[-1] == 0.2899
    text = tables.render(pd.concat([comparison.summarize(comparison.collect(runs)), published]), "md")
    assert "TokenFlow (published, not measured here)" in text


def test_a_failed_pair_is_named(tmp_path):
    """Below the table stands which pair of which method has no result; the mean counts the others."""
    folder = run(tmp_path / "ablation=full", [*scores([0.5, 0.7]), row("c", "edited", reason="it rained")])
    found = comparison.collect([folder])
    assert comparison.failures(found) == ["full: no result for c (it rained)"]
    assert comparison.summarize(found).pairs.max() == 2


def test_differences_count_the_pairs_that_both_have(tmp_path):
    """Three pairs, of which the reference failed on one: the difference is over two, and the table says so."""
    runs = [run(tmp_path / "more", scores([0.5, 0.7, 0.9])), run(tmp_path / "fewer", scores([0.4, 0.6]))]
    text = tables.render(comparison.summarize(comparison.collect(runs), "fewer"), "md", "fewer")
    below = text.partition("Paired difference")[2]
    assert re.search(r"\| more +\| 0\.100 \[0\.100, 0\.100\] +\| 2 +\|", below)


def test_a_method_that_failed_on_every_pair_keeps_its_row(tmp_path):
    """It disappeared, as if nobody had run it; it is ranked nowhere, and the others are."""
    nothing = [row(pair, "edited", reason="no weights") for pair in "ab"]
    folders = {"good": scores([0.5, 0.7]), "better": scores([0.6, 0.8]), "failing": nothing}
    found = comparison.collect([run(tmp_path / name, rows) for name, rows in folders.items()])
    text = tables.render(comparison.summarize(found), "md", notes=comparison.failures(found))
    assert re.search(r"\| failing +\| - +\| 0 +\|", text)
    assert "**0.700" in text
    assert "failing: no result for a, b (no weights)" in text


def test_reconstructions_are_no_methods(tmp_path):
    """They kept everything and would win every measure of preservation; through inversion they are another ceiling."""
    best = {
        "method=reconstruction": 0.9,
        "method=reconstruction,method.inversion=true": 0.8,
        "method=tokenflow": 0.7,
        "ablation=full": 0.6,
    }
    folders = [run(tmp_path / name, scores([value])) for name, value in best.items()]
    summary = comparison.summarize(comparison.collect(folders))
    ceiling = "source, through the autoencoder"
    unedited = ["source, unedited", ceiling, f"{ceiling}, DDIM inversion and back"]
    assert summary.method.tolist() == [*unedited, "tokenflow", "full"]
    assert tables.places(summary) == {"tokenflow": 1, "full": 2}


def test_reconstructions_of_several_sizes_are_rows_of_their_own(tmp_path):
    """As the sources are: the autoencoder keeps more of a larger picture."""
    folders = [run(tmp_path / str(size) / "method=reconstruction", scores([0.5])) for size in (8, 16)]
    for folder, size in zip(folders, (8, 16)):
        (folder / "config.yaml").write_text(f"dataset: {{num_frames: 2, width: {size}, height: {size}}}")
    names = comparison.ordered(comparison.collect(folders).method)
    assert [name for name in names if "8 x 8" in name] == [
        "source, unedited (2 frames of 8 x 8)",
        "source, through the autoencoder (2 frames of 8 x 8)",
    ]
    assert len(names) == 4


def test_a_metric_that_broke_is_named(tmp_path):
    """With its reason, once for all pairs; where a metric only has no meaning, nothing is said."""
    broke = [row(pair, "edited", METRIC, "higher", reason="RuntimeError: no memory") for pair in "ab"]
    senseless = [row("a", "edited", "flicker", "lower", reason=f"{NO_MEANING}a single frame")]
    folder = run(tmp_path / "ablation=full", [*broke, *senseless])
    said = comparison.failures(comparison.collect([folder]))
    assert said == [f"full: no {METRIC} for a, b (RuntimeError: no memory)"]


def test_the_sources_of_several_sizes_are_rows_of_their_own(tmp_path):
    """PSNR and the like depend on size and number of frames: they are never averaged over canvases of several."""
    for name, frames in (("model=modelscope", 16), ("model=zeroscope", 24)):
        folder = run(tmp_path / name, scores([0.5]))
        (folder / "config.yaml").write_text(f"dataset: {{num_frames: {frames}, width: 8, height: 4}}")
    found = comparison.collect(sorted(tmp_path.iterdir()))
    assert comparison.ordered(comparison.per_pair(found).method)[:2] == [
        "source, unedited (16 frames of 8 x 4)",
        "source, unedited (24 frames of 8 x 4)",
    ]


def test_a_run_says_by_what_it_is_told_apart(tmp_path):
    """Its overrides as they were typed, where the folder's name had to be cut or altered."""
    runs = [run(tmp_path / f"ablation={i}-0a1b2c", scores([0.5])) for i in range(2)]
    for folder, ablation in zip(runs, ("full", "no_waf")):
        said = [f"ablation={ablation}", "model.path=/models/ms", "seed=0"]
        (folder / "environment.json").write_text(json.dumps({"overrides": said}))
    assert comparison.row_names(runs) == ["full", "no_waf"]


def test_the_order_of_overrides_is_no_method(tmp_path):
    """The same setting typed in two orders, with two seeds: one row."""
    names = ("ablation=no_waf,steps.distillation=20,seed=0", "steps.distillation=20,ablation=no_waf,seed=1")
    runs = [run(tmp_path / name, scores([0.5])) for name in (*names, "ablation=full,steps.distillation=20")]
    assert comparison.row_names(runs) == ["no_waf", "no_waf", "full"]


def test_an_unknown_reference(runs):
    """The error lists the rows."""
    with pytest.raises(InputError, match="must be one of source, unedited, full, video_dds; got 'best'"):
        comparison.summarize(comparison.collect(runs), "best")


def test_an_unscored_run(tmp_path):
    """The error gives the command that scores it."""
    with pytest.raises(InputError, match=r"python -m evaluation\.run"):
        comparison.collect([tmp_path])


def test_what_holds_no_scores_is_left_out_by_name(runs, tmp_path, capsys):
    """`outputs/*` may hold a page and other folders; if nothing has scores, that is an error."""
    (tmp_path / "report.html").write_text("")
    (tmp_path / "pictures").mkdir()
    assert scored_runs([*runs, tmp_path / "report.html", tmp_path / "pictures"]) == runs
    said = capsys.readouterr().err
    assert "pictures" in said
    assert "report.html" not in said
    with pytest.raises(InputError, match=r"no scores\.csv"):
        scored_runs([tmp_path / "report.html"])


def test_a_sweeps_folder_stands_for_its_runs(runs, tmp_path):
    """sweep.json says which runs are its; others that lie beside them are not taken in."""
    for folder in runs[:2]:
        add_run(tmp_path, folder.name, [])
    assert scored_runs([tmp_path]) == sorted(runs[:2])


def test_runs_of_one_name_are_not_one_method(tmp_path):
    """Folders tell them apart."""
    same = [run(tmp_path / folder / "default", scores([0.5])) for folder in "ab"]
    assert comparison.row_names(same) == ["a/default", "b/default"]


def test_runs_of_one_name_in_folders_of_one_name_are_not_one_method(tmp_path):
    """They were averaged as if they were seeds. A copy beside a run is told apart by its own name."""
    places = [tmp_path / when / "outputs" / f"seed={seed}" for when in ("old", "new") for seed in (0, 1)]
    same = [run(place, scores([0.5])) for place in places]
    assert comparison.row_names(same) == ["old/outputs/default"] * 2 + ["new/outputs/default"] * 2
    beside = [run(tmp_path / "outputs" / name, scores([0.5])) for name in ("before", "after")]
    for folder in beside:
        (folder / "environment.json").write_text(json.dumps({"overrides": []}))
    assert comparison.row_names(beside) == ["outputs/before", "outputs/after"]


@pytest.mark.parametrize("form", tables.FORMATS)
def test_a_table_without_any_value(tmp_path, form):
    """Every pair failed: the table has no row, and the reasons are below it."""
    found = comparison.collect([run(tmp_path / "failing", [row("a", "edited", reason="no such file")])])
    summary = comparison.summarize(found, "failing")
    assert summary.columns.tolist() == comparison.MEANS + comparison.DIFFERENCES
    text = tables.render(summary, form, "failing", comparison.failures(found))
    assert "no such file" in text or form == "csv"
    assert text


@pytest.mark.end_to_end
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(runs, tmp_path):
    """With booktabs alone, also where a name holds characters that mean something in LaTeX."""
    summary = comparison.summarize(comparison.collect(runs), "video_dds")
    body = tables.render(summary, "latex", "video_dds", ["a_b: 100 % #1"])
    text = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + body + r"\end{document}"
    (tmp_path / "table.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:]


def test_latex_is_booktabs(runs):
    """Rules of booktabs, and no character left that LaTeX would take for its own."""
    text = tables.render(comparison.summarize(comparison.collect(runs)), "latex")
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"$\uparrow$", r"change\_1 \& more"))
