"""The analysis: known answers are found, chance is not taken for an effect, and simulated raters are called so."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from assd.errors import InputError
from evaluation.study.__main__ import main
from evaluation.study.analysis import analyse, analyse_files
from evaluation.study.answers import caught, read_sessions
from evaluation.study.intervals import exact, holm, krippendorff_alpha, resample
from evaluation.study.key import write_key
from evaluation.study.proof import STRENGTHS, Size, run_studies
from evaluation.study.render import SIMULATED, table, write_all
from evaluation.study.simulate import Raters, random_clicker
from evaluation.study.strengths import chosen_best, davidson, shares

pytestmark = pytest.mark.end_to_end

DUELS = [(0, 1), (0, 2), (1, 2)]


@pytest.fixture(scope="module")
def key():
    """A study of six methods without clips."""
    return Size(pairs=12).key(methods=6, seed=0)


@pytest.fixture(scope="module")
def best_key():
    """The same in the paper's design."""
    return Size(pairs=12, design="best_of").key(methods=6, seed=0)


def test_davidson_is_the_maximum_of_its_likelihood():
    """scipy's minimiser, given the model as it is written, finds the same strengths."""
    counts = np.array([[30, 6, 12], [25, 10, 9], [14, 9, 16]], float)

    def less_likely(x):
        theta, nu = np.append(x[:2], -x[:2].sum()), np.exp(x[2])
        weights = np.array(
            [[np.exp(theta[i]), nu * np.exp((theta[i] + theta[j]) / 2), np.exp(theta[j])] for i, j in DUELS]
        )
        return -(counts * np.log(weights / weights.sum(1, keepdims=True))).sum()

    best = optimize.minimize(less_likely, np.zeros(3), tol=1e-10).x
    theta, log_nu = davidson(counts, DUELS, 3)
    np.testing.assert_allclose([*theta[:2], log_nu], best, atol=2e-3)  # as far as the ridge moves it


def test_two_methods_by_hand():
    """W wins and L losses give theta_1 - theta_2 = log(W / L), whatever the ties: log(40 / 10) = 1.386."""
    theta, log_nu = davidson(np.array([[[40, 20, 10]], [[40, 0, 10]]], float), [(0, 1)], 2)
    np.testing.assert_allclose(theta[:, 0] - theta[:, 1], np.log(4), atol=5e-3)
    assert log_nu[0] == pytest.approx(np.log(20 / np.sqrt(40 * 10)), abs=5e-3)


def test_a_method_that_always_loses_has_a_strength():
    """A number, low, not minus infinity; also where nothing was counted."""
    theta, _ = davidson(np.array([[[40, 0, 0]], [[0, 0, 0]]], float), [(0, 1)], 2)
    assert np.isfinite(theta).all()
    assert theta[0, 0] - theta[0, 1] > 4
    assert (theta[1] == 0).all()


def test_shares_of_choices():
    """Best-of: the shares are those of the choices, but for half a choice each."""
    np.testing.assert_allclose(shares(chosen_best(np.array([10.0, 30, 0]))), np.array([10.5, 30.5, 0.5]) / 41.5)


def test_krippendorff_example():
    """Krippendorff's own example with missing values (2011, "Computing Krippendorff's alpha-reliability"): 0.691."""
    raters = [
        ["*", "*", "*", "*", "*", "3", "4", "1", "2", "1", "1", "3", "3", "*", "3"],
        ["1", "*", "2", "1", "3", "3", "4", "3", "*", "*", "*", "*", "*", "*", "*"],
        ["*", "*", "2", "1", "3", "4", "4", "*", "2", "1", "1", "3", "3", "*", "4"],
    ]
    said = [(unit, value) for values in raters for unit, value in enumerate(values) if value != "*"]
    units, values = map(pd.Series, zip(*said))
    assert krippendorff_alpha(units, values) == pytest.approx(0.691, abs=5e-4)
    assert np.isnan(krippendorff_alpha(pd.Series([1, 2]), pd.Series([0, 0])))


def test_holm_by_hand():
    """p = 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_exact_interval():
    """Clopper and Pearson's for 0 of 10 ends at 1 - 0.025^(1/10)."""
    assert exact(0, 10) == (0, pytest.approx(1 - 0.025**0.1))
    assert exact(0, 0) == (0, 1)


def test_crossed_error_follows_the_clusters():
    """If all of a rater's judgements are the same, the error is that of as many judgements as there are raters.

    20 raters, half of whom always say 0: the share's variance is that of a mean of 20 values, 0.25 / 19.
    """
    rows = [(f"r{r}", f"p{p}", "q", r % 2) for r in range(20) for p in range(30)]
    judged = pd.DataFrame(rows, columns=["rater", "pair", "question", "cell"])
    share = resample(judged, 2, ["q"], 4000).map(lambda counts: counts[..., 0] / counts.sum(-1)).crossed()
    assert share.error[0] ** 2 == pytest.approx(0.25 / 19, rel=0.1)
    loose = judged.assign(cell=np.random.default_rng(0).integers(2, size=len(judged)))
    share = resample(loose, 2, ["q"], 4000).map(lambda counts: counts[..., 0] / counts.sum(-1)).crossed()
    assert share.error[0] ** 2 == pytest.approx(0.25 / 600, rel=0.6)


def test_known_strengths_are_recovered():
    """Twelve studies of 40 raters: nine in ten of their 95 % intervals hold the truth. The proof runs a hundred."""
    found = run_studies(Raters(strengths=STRENGTHS, rater_spread=0.4, video_spread=0.4), 12, Size(pairs=20))
    assert found.held.mean() >= 0.9
    assert found.together.sum() >= 10
    assert found.significant.all()


def test_no_effect_is_not_significant():
    """Of twelve studies of equal methods, with tastes that differ, at most two are called significant."""
    equal = Raters(strengths=np.zeros_like(STRENGTHS), rater_spread=0.4, video_spread=0.4)
    assert run_studies(equal, 12, Size(pairs=20)).significant.sum() <= 2


def test_best_of_finds_the_shares_chosen(best_key):
    """The paper's share of choices, by a count of one's own; in a best-of study there are no ties."""
    sessions = Raters(strengths=STRENGTHS).sessions(best_key, np.random.default_rng(0))
    analysis = analyse(sessions, [], best_key, resamples=50)
    chosen = [
        str(best_key.clips[trial.clips[session.answers[trial.id]["choices"]["alignment"]]])
        for session in sessions
        for trial in best_key.sheets[session.sheet]
        if trial.kind == "judged" and session.rater not in analysis.excluded
    ]
    rows = analysis.methods[analysis.methods.question == "alignment"].set_index("method")
    for method in best_key.methods:
        assert rows.share[method] == pytest.approx(chosen.count(method) / len(chosen))
        assert rows.share_low[method] <= rows.share[method] <= rows.share_high[method]
    assert rows.share.sum() == pytest.approx(1)


@pytest.mark.parametrize("design", ["pairwise", "best_of"])
def test_random_clickers_are_thrown_out(key, best_key, design):
    """Of a hundred who click at random at most two pass, and of forty who are attentive at most three fail."""
    the_key, rng = {"pairwise": key, "best_of": best_key}[design], np.random.default_rng(0)
    clickers = [random_clicker(the_key, sheet, rng, with_ties=sheet % 2 == 0) for sheet in [*range(40)] * 3][:100]
    assert sum(not caught(clicker, the_key) for clicker in clickers) <= 2
    attentive = Raters(strengths=STRENGTHS).sessions(the_key, rng)
    assert sum(bool(caught(session, the_key)) for session in attentive) <= 3


def test_other_reasons_to_exclude(key):
    """An unfinished session, one in no time, and one that always takes the left side."""
    raters = Raters(strengths=STRENGTHS)
    one, two, left = raters.sessions(key, np.random.default_rng(0))[:3]
    one.answers.popitem()
    assert caught(one, key) == ["unfinished: 1 of 29 trials not answered"]
    for answer in two.answers.values():
        answer["seconds"] = 0.8
    assert "took 0.8 s a trial, less than 3 s" in caught(two, key)
    for answer in left.answers.values():
        answer["choices"] = dict.fromkeys(key.questions, 0)
    assert "preferred the other edit in 6 of 6 repeated answers" in caught(left, key)


@pytest.fixture
def written(key, tmp_path):
    """A file of the server's answers with its key beside it, and the sessions in it."""
    sessions = Raters(strengths=STRENGTHS).sessions(key, np.random.default_rng(0))
    write_key(key, tmp_path / "study-key.json")
    lines = [json.dumps(answer) for session in sessions for answer in session.answers.values()]
    (tmp_path / "study-answers.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path, sessions


def test_sent_and_downloaded_answers_are_one(written, key):
    """A rater's download beside the server's file adds nothing; what was changed in it is refused and said."""
    folder, sessions = written
    session = sessions[3]
    told = ("study", "rater", "sheet", "signature")
    answers = [dict(answer) for answer in session.answers.values()]
    download = {name: answers[0][name] for name in told} | {"answers": answers}
    (folder / "download.json").write_text(json.dumps(download))
    found, refused = read_sessions([folder / "study-answers.jsonl", folder / "download.json"], key)
    assert ([asdict(s) for s in found], refused) == ([asdict(s) for s in sessions], [])
    answers[0] = answers[0] | {"clips": answers[0]["clips"][::-1]}
    answers[1] = answers[1] | {"choices": dict.fromkeys(key.questions, (answers[1]["choices"]["alignment"] or 0) ^ 1)}
    (folder / "download.json").write_text(json.dumps(download))
    analysis = analyse_files([folder])
    assert [("in their order" in reason, "otherwise" in reason) for reason in analysis.refused] in (
        [(True, False), (False, True)],
        [(False, True), (True, False)],
    )
    assert len(sessions) == analysis.sessions


def test_the_command_line_writes_all_and_says_simulated(written, capsys):
    """Every file that simulated raters led to says so."""
    folder, _ = written
    main(["analyse", str(folder / "study-answers.jsonl"), "--output", str(folder / "out")])
    assert SIMULATED in capsys.readouterr().out
    names = {"study.md", "study.tex", "study.csv", "duels.csv", "excluded.csv", "study.png"}
    assert {file.name for file in (folder / "out").iterdir()} == names
    for name in ("study.md", "study.tex"):
        assert SIMULATED in (folder / "out" / name).read_text()
    for name in ("study.csv", "duels.csv"):
        assert pd.read_csv(folder / "out" / name).simulated.all()


def test_people_are_not_called_simulated(key, tmp_path):
    """Without the mark nothing says so; the table has a row per method and question, with share and interval."""
    sessions = Raters(strengths=STRENGTHS).sessions(key, np.random.default_rng(0))
    for session in sessions:
        for answer in session.answers.values():
            del answer["simulated"]
    analysis = analyse(sessions, [], key, resamples=50)
    assert "SIMULATED" not in write_all(analysis, tmp_path) + (tmp_path / "study.tex").read_text()
    rows = table(analysis)
    assert len(rows) == 18 and not rows.simulated.any()
    assert ((rows.share_low <= rows.share) & (rows.share <= rows.share_high)).all()
    assert rows.groupby("question").share.sum().to_numpy() == pytest.approx(1)


def test_too_little_is_said(key, tmp_path):
    """One rater is no study, and answers without their key are none either."""
    with pytest.raises(InputError, match="needs two of each"):
        analyse(Raters(strengths=STRENGTHS).sessions(key, np.random.default_rng(0))[:1], [], key)
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="0 keys lie beside"):
        analyse_files([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        analyse_files([tmp_path / "nothing"])


def test_the_key_holds_the_rule(key):
    """A rule fixed beforehand, and kept with the study: a stricter one excludes more."""
    sessions = Raters(strengths=STRENGTHS).sessions(key, np.random.default_rng(0))
    strict = replace(key, rule=replace(key.rule, seconds=60.0))
    assert all(caught(session, strict) for session in sessions)
