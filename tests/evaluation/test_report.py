"""The report: self-contained, escaped, and in a real browser playing and sorting."""

import json
import re
import shlex
import shutil
import sys

import pytest

from assd.errors import InputError
from assd.runs.reader import FinishedEdit
from evaluation.report import write_report
from evaluation.report.__main__ import main
from evaluation.report.page import curves, read_run
from evaluation.run import score

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<script>document.title = 'owned'</script> & \"quotes\""


@pytest.fixture(scope="module")
def sweep(finished_run, tmp_path_factory):
    """Two scored runs, one of perfect edits and one that changed nothing, and a prompt that is a script."""
    folder = tmp_path_factory.mktemp("sweep")
    edits = {"ablation=full": lambda known: known.truth, "ablation=video_dds": lambda known: known.frames}
    runs = [finished_run(folder / name, edit, overrides=[f"+{name}"]) for name, edit in edits.items()]
    record = next((runs[0] / "edits").glob("*/edit.json"))
    text = record.read_text()
    record.write_text(text.replace(re.search(r'"target_prompt": "(.*?)"', text)[1], EVIL.replace('"', '\\"')))
    for run in runs:
        score(run, ["metric=[clip_text,edit_success,contamination]"])
    return runs


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    """The report of both runs."""
    return write_report(sweep, tmp_path_factory.mktemp("report") / "report.html")


def test_nothing_is_fetched(page):
    """Every source is inside the page, and no address outside is named."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in re.sub(r"data:[^\"']*", "", text)


def test_prompts_are_text(page):
    """A prompt that is a script shows as text."""
    text = page.read_text(encoding="utf-8")
    assert "<script>document" not in text
    assert "&lt;script&gt;document" in text


def test_curves_of_several_phases(tmp_path):
    """Each number is drawn over the steps that measured it, whatever another phase measured; no point is missing."""
    tuning = [{"step": step, "t": 1, "loss": 0.5, "seconds": 0.1} for step in range(20)]
    sampling = [{"step": step, "t": 1, "latent_norm": 3.0, "seconds": 0.1} for step in range(20, 30)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(point) + "\n" for point in tuning + sampling))
    drawn = {curve.label: curve for curve in curves(FinishedEdit(tmp_path), "")}
    assert {"loss", "latent norm"} <= drawn.keys()
    assert [len(drawn[name].thin.split()) for name in ("loss", "latent norm")] == [20, 10]
    assert not any("nan" in text for curve in drawn.values() for text in (curve.thin, curve.bold))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"command": ["/tmp/.submitit/%j"], "overrides": ["ablation=full", "loss.video.weight=2", "seed=1"]},
            ["+ablation=full", "++loss.video.weight=2", "seed=1", "dataset.limit=4", "dataset.root='my data'"],
        ),
        ({"command": ["assd", "+ablation=full", "dataset.shard=1/4"], "overrides": ["ablation=full"]},
         ["+ablation=full", "dataset.limit=4", "dataset.root='my data'"]),
        ({"command": ["assd", "seed=1"]}, ["seed=1"]),
    ],
)  # fmt: skip
def test_the_command_that_repeats_a_run(tmp_path, said, words):
    """Of what launched it, and of one of its shards, there is nothing in it; of an older run it is what started it."""
    (tmp_path / "config.yaml").write_text("dataset: {limit: 4, root: my data, shard: 1/4}\n")
    (tmp_path / "environment.json").write_text(json.dumps(said))
    assert shlex.split(read_run(tmp_path).command) == ["python", "-m", "assd.run", *words]


def test_the_command_line(sweep, tmp_path, monkeypatch):
    """It writes where it is told, and refuses a folder that is no run."""
    monkeypatch.setattr(sys, "argv", ["report", str(sweep[0]), "--output", str(tmp_path / "one.html")])
    main()
    assert (tmp_path / "one.html").stat().st_size > 10_000
    with pytest.raises(InputError, match="no run directory"):
        write_report([tmp_path], tmp_path / "two.html")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, the system's."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser, page, **options):
    """The page in a window of its own, and the errors that its script makes."""
    window = browser.new_page(**options)
    window.set_default_timeout(120_000)  # a machine with other work
    errors = []
    window.on("pageerror", lambda error: errors.append(str(error)))
    window.goto(page.as_uri())
    return window, errors


@pytest.mark.end_to_end
def test_videos_play_in_step(browser, page):
    """All videos of the first pair run, none further than two frames from the first; pausing stops them all."""
    window, errors = opened(browser, page)
    times = "[...document.querySelector('.pair').querySelectorAll('video')].map(v => v.currentTime)"
    window.locator(".pair").first.scroll_into_view_if_needed()
    window.wait_for_function(f"{times}.every(t => t > 0)", timeout=60_000)
    for _ in range(3):
        window.wait_for_timeout(300)
        now = window.evaluate(times)
        gaps = [abs(t - now[0]) for t in now]
        assert max(min(gap, 1 - gap) for gap in gaps) < 0.25  # clips last a second and start again
    window.locator(".play").first.focus()
    window.keyboard.press("Enter")
    paused = "[...document.querySelector('.pair').querySelectorAll('video')].every(v => v.paused)"
    window.wait_for_function(paused, timeout=5_000)
    assert len(window.evaluate(times)) == 6  # source, two edits, true edit, two differences
    assert not errors
    assert window.title() != "owned"


@pytest.mark.end_to_end
def test_the_table_sorts(browser, page):
    """A heading pressed by keyboard sorts by number, downwards first, then upwards."""
    window, errors = opened(browser, page)
    heading = window.locator("section >> nth=0 >> thead button", has_text="CLIP text")
    column = heading.evaluate("button => button.closest('th').cellIndex")
    cells = f"[...document.querySelector('table').tBodies[0].rows].map(r => +r.cells[{column}].dataset.value)"
    heading.focus()
    window.keyboard.press("Enter")
    down = window.evaluate(cells)
    window.keyboard.press("Enter")
    up = window.evaluate(cells)
    assert down == sorted(down, reverse=True) != up == sorted(up)
    assert not errors


@pytest.mark.end_to_end
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_does_not_scroll_sideways(browser, page, scheme):
    """At the width of a telephone only tables scroll; in dark mode the paper is dark."""
    window, _ = opened(browser, page, viewport={"width": 360, "height": 640}, color_scheme=scheme)
    assert window.evaluate("document.documentElement.scrollWidth") <= 360
    red = window.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 64) == (scheme == "dark")
