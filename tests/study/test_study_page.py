"""The page: it tells no method, and a whole session can be answered in a real browser."""

import json
import shutil
import threading

import av
import pytest

from assd.data.video import read_video, write_video
from assd.errors import InputError
from evaluation.study.__main__ import main
from evaluation.study.answers import read_sessions
from evaluation.study.edits import comparable, named_runs
from evaluation.study.key import read_key
from evaluation.study.server import make_server

pytestmark = pytest.mark.end_to_end

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = ("ArrowLeft", "ArrowDown", "ArrowRight")
CHOICES = (0, None, 1)
METHODS = ("tokenflow", "fatezero", "video_dds")  # of the runs that conftest.py makes


@pytest.fixture(scope="module")
def study(make_study, tmp_path_factory):
    """A study's folder and its key."""
    return make_study(tmp_path_factory.mktemp("page"))


def names_in(text):
    """What a rater must not read: methods, folders, pairs' ids, a clip's role."""
    return [name for name in (*METHODS, "sweep", "pair-0", "edited.mp4", '"kind"') if name in text.lower()]


def test_nothing_served_names_a_method(study):
    """Neither a file's name nor a byte of any file."""
    folder, key = study
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) == 1 + len(key.clips) + len(key.pairs)
    assert key.secret not in (folder / "index.html").read_text()
    for file in files:
        assert not names_in(f"{file.relative_to(folder)} {file.read_bytes().decode('latin-1')}")


def test_nothing_is_fetched_from_elsewhere(study):
    """The page works from disk: no address is in it."""
    assert "http" not in (study[0] / "index.html").read_text().replace('startsWith("http")', "")


def test_prompts_are_text(study):
    """A prompt that is markup is shown as it is written."""
    assert "<b>red" not in (study[0] / "index.html").read_text()


def test_clips_of_a_pair_are_alike(make_runs, tmp_path):
    """An edit of another size and rate gets the source's size and length; no clip carries metadata of its own."""
    sweep = make_runs(tmp_path / "sweep")
    edited = sweep / METHODS[0] / "edits/pair-0/edited.mp4"
    write_video(edited, read_video(edited, None).frames[::2, :64, :64], 30.0)
    main(["page", str(sweep), "--output", str(tmp_path / "study"), "--raters", "2"])
    seen = set()
    for file in (tmp_path / "study/clips").iterdir():
        with av.open(str(file)) as clip:
            stream = clip.streams.video[0]
            seen.add((stream.width, stream.height, stream.codec.name, round(clip.duration / 1e6, 2)))
            assert {*clip.metadata} <= {"major_brand", "minor_version", "compatible_brands", "encoder"}
    assert seen == {(96, 96, "h264", 1.0)}


def test_a_study_is_not_overwritten(study, tmp_path):
    """Answers to it may be under way."""
    with pytest.raises(SystemExit, match="is there already"):
        main(["page", str(study[0].parent / "sweep"), "--output", str(study[0])])


def test_the_key_comes_back(study):
    """The file beside the folder is the key, and only its owner can read it."""
    folder, key = study
    assert read_key(folder.with_name("study-key.json")) == key
    assert folder.with_name("study-key.json").stat().st_mode & 0o077 == 0


def test_runs_get_names(make_runs, tmp_path):
    """A sweep's folder is its runs; NAME=RUN names one, and a folder called a=b keeps its name."""
    sweep = make_runs(tmp_path / "sweep", methods=("ablation=full", "fatezero"))
    assert {*named_runs([str(sweep)])} == {"ablation=full", "fatezero"}
    assert {*named_runs([f"ours={sweep / 'fatezero'}", str(sweep / "ablation=full")])} == {"ours", "ablation=full"}
    seeds = make_runs(tmp_path / "seeds", methods=("ablation=full,seed=0", "ablation=full,seed=1"))
    with pytest.raises(InputError, match="differ in their seed alone are one method; name one"):
        named_runs([str(seeds)])
    assert {*named_runs([f"ours={seeds / 'ablation=full,seed=1'}"])} == {"ours"}
    with pytest.raises(InputError, match="two runs are called"):
        named_runs([str(sweep / "fatezero"), f"fatezero={sweep / 'ablation=full'}"])
    with pytest.raises(InputError, match="holds no run"):
        named_runs([str(tmp_path)])


def test_failed_edits_are_passed_over(make_runs, tmp_path):
    """Best-of needs every method's edit of a pair, pairwise two of them."""
    runs = named_runs([str(make_runs(tmp_path / "sweep"))])
    record = tmp_path / "sweep" / METHODS[0] / "edits/pair-1/edit.json"
    record.write_text(record.read_text().replace("finished", "failed"))
    assert {*comparable(runs, complete=True)} == {"pair-0", "pair-2", "pair-3"}
    assert {*comparable(runs, complete=False)["pair-1"]} == {*METHODS[1:]}


# ---- In a browser.


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


def opened(context, address):
    """The page, and the errors that its script makes. A busy machine gets its time."""
    context.set_default_timeout(60_000)
    window = context.new_page()
    errors = []
    window.on("pageerror", lambda error: errors.append(str(error)))
    window.goto(address, wait_until="domcontentloaded")
    return window, errors


def answer(window, offset, keys=KEYS, questions=3):
    """Answers so many questions of a trial, the first by key number `offset`, each next one by the next key."""
    window.wait_for_function("ready()")
    for question in range(questions):
        window.keyboard.press(keys[(offset + question) % len(keys)])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_session_by_keyboard(browser, study, width, scheme, tmp_path):
    """Every trial answered, reloaded in the middle; the download has each answer, under the trial it was given to."""
    folder, key = study
    size = {"width": width, "height": 844}
    context = browser.new_context(viewport=size, color_scheme=scheme, accept_downloads=True)
    address = f"{(folder / 'index.html').as_uri()}?rater=3"
    window, errors = opened(context, address)
    window.wait_for_selector("#begin:focus")
    window.keyboard.press("Enter")
    trials = len(key.sheets[2])
    for trial in range(trials):
        answer(window, trial, questions=1 if trial == 3 else 3)
        if trial == 3:  # what is answered of a trial is kept as well
            window.reload(wait_until="domcontentloaded")
            answer(window, trial + 1, questions=2)
        assert window.locator("#count").inner_text() == f"{trial + 1} of {trials}"
        assert window.evaluate("document.documentElement.scrollWidth") <= width
        assert not names_in(window.content())
        window.keyboard.press("Enter")
    with window.expect_download() as download:
        window.locator("#download").click()
    download.value.save_as(tmp_path / "answers.json")
    written = json.loads((tmp_path / "answers.json").read_text())
    assert (written["seed"], written["sheet"], written["rater"]) == (3, 2, "3")
    (session,), refused = read_sessions([tmp_path / "answers.json"], key)
    assert not refused and not session.simulated
    for place, trial in enumerate(key.sheets[2]):
        given = [*session.answers[trial.id]["choices"].values()]
        assert given == [CHOICES[(place + question) % 3] for question in range(3)]
    red = int(window.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert (red < 64) == (scheme == "dark")
    assert not errors
    context.close()


def test_the_clips_play_in_step(browser, study):
    """Source and both edits run, in most moments within a frame of each other; space stops them."""
    context = browser.new_context()
    window, errors = opened(context, (study[0] / "index.html").as_uri())
    window.locator("#begin").click()
    window.wait_for_function("videos.every(video => video.currentTime > 0)")
    gaps = []
    for _ in range(9):
        window.wait_for_timeout(200)
        source, *edits = window.evaluate("videos.map(video => video.currentTime)")
        apart = [abs(time - source) for time in edits]
        gaps.append(max(min(gap, 1 - gap) for gap in apart))  # clips last a second and start again
    assert len(edits) == 2
    assert sorted(gaps)[4] < 0.125
    window.keyboard.press("Space")
    window.wait_for_function("videos.every(video => video.paused)")
    assert window.evaluate("view.loops") >= 1
    assert not errors
    context.close()


def test_by_touch(browser, study):
    """Tapped answers count, can be changed, and Next waits for all three; without ?rater a sheet is drawn."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    window, errors = opened(context, (study[0] / "index.html").as_uri())
    window.locator("#begin").tap(force=True)
    window.wait_for_function("ready()")
    for question, value in (("alignment", "0"), ("consistency", "none"), ("alignment", "1")):
        window.locator(f"label:has(input[name={question}][value='{value}'])").tap(force=True)
    assert window.locator("#next").is_disabled()
    window.locator("label:has(input[name=preservation][value='0'])").tap(force=True)
    window.locator("#next").tap(force=True)
    assert window.evaluate("session.answers[0].choices") == {"alignment": 1, "consistency": None, "preservation": 0}
    assert window.evaluate("session.rater").startswith("anonymous-")
    assert not errors
    context.close()


def test_answers_reach_the_server(browser, study, tmp_path):
    """The server gives the sheet, and gets every answer as it is given; those that the network lost come later."""
    folder, key = study
    server = make_server(folder, folder.with_name("study-key.json"), tmp_path / "answers.jsonl", "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    server.RequestHandlerClass.keywords["answers"].assign("earlier")
    context = browser.new_context()
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    window, errors = opened(context, f"http://127.0.0.1:{server.server_address[1]}/?rater=kim")
    window.wait_for_selector("#begin:focus")
    window.keyboard.press("Enter")
    window.route("**/answers", lambda route: route.abort())
    for place in range(len(key.sheets[1])):
        if place == 3:
            window.unroute("**/answers")
        answer(window, place)
        window.keyboard.press("Enter")
    window.wait_for_function("document.getElementById('delivery').textContent.startsWith('All your answers')")
    sessions, refused = read_sessions([tmp_path / "answers.jsonl"], key)
    assert [(session.rater, session.sheet, len(session.answers)) for session in sessions] == [("kim", 1, 7)]
    assert not refused and not errors and not names_in(" ".join(asked))
    context.close()
    server.shutdown()
    server.server_close()


def test_a_clip_that_is_missing_is_said(browser, study, tmp_path):
    """No answer can be given to what did not load."""
    shutil.copytree(study[0], tmp_path / "study")
    for clip in (tmp_path / "study/clips").iterdir():
        clip.unlink()
    context = browser.new_context()
    window, _ = opened(context, (tmp_path / "study/index.html").as_uri())
    window.locator("#begin").click()
    window.wait_for_selector("#trouble:visible")
    for key in (*KEYS, "Enter"):
        window.keyboard.press(key)
    assert window.evaluate("session.answers.length") == 0
    context.close()


def test_best_of(browser, make_study, tmp_path):
    """The paper's design: all edits at once, the best of them chosen by number; there is no 'no difference'."""
    folder, key = make_study(tmp_path, design="best_of")
    context = browser.new_context(accept_downloads=True)
    window, errors = opened(context, f"{(folder / 'index.html').as_uri()}?rater=1")
    window.wait_for_selector("#begin:focus")
    window.keyboard.press("Enter")
    for _ in key.sheets[0]:
        answer(window, 0, keys="123")
        window.keyboard.press("Enter")
    with window.expect_download() as download:
        window.locator("#download").click()
    download.value.save_as(tmp_path / "answers.json")
    (session,), refused = read_sessions([tmp_path / "answers.json"], key)
    assert not refused and len(session.answers) == len(key.sheets[0])
    assert {tuple(given["choices"].values()) for given in session.answers.values()} == {(0, 1, 2)}
    assert not errors
    context.close()
