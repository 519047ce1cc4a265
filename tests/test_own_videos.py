"""One's own videos."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assd.data.pairs import Footage
from assd.methods.method import Request
from assd.methods.reconstruction import Reconstruction
from tests.commands import SOURCE, TARGET, Outcome, contents, edit_folders, own_video, record, write_clip

pytestmark = pytest.mark.end_to_end


def test_ones_own_video_is_edited(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """dataset=video edits a file; frames are kept where asked for, and play as long as the source did."""
    path = write_clip(tmp_path / "snow.mp4")
    outcome = assd(f"output={tmp_path / 'out'}", *own_video(path), "steps.distillation=1", "save_frames=true")
    assert outcome.code == 0, outcome.text
    (folder,) = edit_folders(tmp_path / "out")
    assert folder.name == "snow"
    edit = record(folder)
    assert (edit["status"], edit["source_prompt"], edit["target_prompt"]) == ("finished", SOURCE, TARGET)
    assert edit["fps"] == pytest.approx(8 * 7 / 11)
    for name in ("source", "edited"):
        assert [path.name for path in sorted((folder / name).iterdir())] == [f"{i:05d}.png" for i in range(8)]


def test_an_edit_that_asks_for_something_else_is_refused(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """dataset=folder: another target, options or video under the same id and the same command is no silent old result.

    The pair is named with what has changed, its files are untouched, and the pair beside it is edited.
    """
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_clip(videos / "a.mp4")
    write_clip(videos / "b.mp4")
    command = [f"output={out}", "dataset=folder", f"dataset.path={videos}", "steps.distillation=1"]

    def table(first: str, word: str = "circle") -> None:
        rows = [f"a.mp4,{SOURCE},{first},{word}", f"b.mp4,{SOURCE},{TARGET},circle"]
        (videos / "prompts.csv").write_text("\n".join(["video,source_prompt,target_prompt,blend_words", *rows]) + "\n")

    table(TARGET)
    assert assd(*command, "dataset.limit=1").code == 0
    (folder,) = edit_folders(out)
    before = contents(folder)
    other = "a green circle moving right over snow"
    for first, word, colour, said in (
        (other, "circle", "red", ["target_prompt", other]),
        (TARGET, "disc", "red", ["options", "disc"]),
        (TARGET, "circle", "green", ["video:"]),
    ):
        table(first, word)
        write_clip(videos / "a.mp4", colour)
        outcome = assd(*command)
        assert outcome.code != 0
        assert outcome.says("01-a", "was made from something else", *said), outcome.text
        assert contents(folder) == before
    assert record(folder)["target_prompt"] == TARGET
    assert record(out.joinpath(*folder.parts[len(out.parts) : -1], "02-b"))["status"] == "finished"
    table(TARGET)
    write_clip(videos / "a.mp4")
    assert assd(*command).code == 0


def test_options_reach_the_method(
    tmp_path: Path, assd: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of prompts.csv that the loader does not know is handed to the method, edit by edit."""
    seen, edit = [], Reconstruction.__call__

    def watch(method: Reconstruction, footage: Footage, source: str, requests: list[Request], *rest, **more) -> list:
        seen.extend(request.options for request in requests)
        return edit(method, footage, source, requests, *rest, **more)

    monkeypatch.setattr(Reconstruction, "__call__", watch)
    write_clip(tmp_path / "a.mp4")
    rows = [f"a.mp4,{SOURCE},{TARGET},circle", f"a.mp4,{SOURCE},{TARGET},"]
    (tmp_path / "prompts.csv").write_text("\n".join(["video,source_prompt,target_prompt,blend_words", *rows]) + "\n")
    outcome = assd(f"output={tmp_path / 'out'}", "method=reconstruction", "dataset=folder", f"dataset.path={tmp_path}")
    assert outcome.code == 0, outcome.text
    assert seen == [{"blend_words": "circle"}, {}]
