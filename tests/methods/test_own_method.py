"""A method of one's own: thirty lines here and five of YAML, and it is edited with, scored, tabulated and shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from assd.data.pairs import Canvas, Footage
from assd.data.video import read_video, to_bytes
from assd.methods.method import Advance, Edit, Method, Request, ignore_progress
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import footage
from evaluation import tables
from evaluation.comparison import collect, summarize
from evaluation.run import score
from evaluation.scores import read_scores, values
from tests.commands import Outcome, edit_folders, record, steps


@dataclass(frozen=True)
class Mirror:
    """Turns the video over, row by row: no model, no noise, one checkpoint in the middle."""

    width: int
    height: int
    num_frames: int

    @property
    def num_steps(self) -> int:
        """One a row."""
        return self.height

    @property
    def canvas(self) -> Canvas:
        """Its own."""
        return Canvas(self.num_frames, self.height, self.width)

    def __call__(
        self, footage: Footage, source: str, requests: Sequence[Request], clip: str, advance: Advance = ignore_progress
    ) -> list[Edit]:
        """Both halves of the rows, with a checkpoint between."""
        edits = []
        for request in requests:
            frames = request.resume["frames"].clone() if request.resume else footage.frames.clone()
            for step in range(request.begin, self.num_steps):
                frames[:, :, step] = footage.frames[:, :, -1 - step]
                if step + 1 in (self.num_steps // 2, self.num_steps):
                    curves = [{"step": step, "turned": 1.0}]
                    request.checkpoint({"step": step + 1, "frames": frames}, curves)
                advance(step + 1)
            edits.append(Edit(frames, latents={"frames": frames}))
        return edits


YAML = f"""# @package _global_
method:
  _target_: {__name__}.Mirror
  width: ${{model.width}}
  height: ${{model.height}}
  num_frames: ${{model.num_frames}}
"""


def test_it_is_a_method():
    """The contract is a protocol: nothing is inherited and nothing registered."""
    assert isinstance(Mirror(64, 64, 4), Method)


@pytest.fixture
def mirror(tmp_path: Path) -> list[str]:
    """The overrides that choose it, from a configuration folder of its own."""
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "mirror.yaml").write_text(YAML)
    return [f"hydra.searchpath=[file://{tmp_path / 'mine'}]", "method=mirror"]


@pytest.mark.end_to_end
def test_a_method_of_ones_own_goes_all_the_way(mirror: list[str], tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """assd.run, evaluation.run, which needs nothing of the method, a table and the report, and no other file."""
    outcome = assd(*mirror, f"output={tmp_path / 'out'}", "dataset.limit=1", "metric=[psnr]")
    assert outcome.code == 0, outcome.text
    (folder,) = edit_folders(tmp_path / "out")
    run = folder.parent.parent
    assert record(folder)["status"] == "finished"
    assert steps(folder) == [31, 63]
    source = to_bytes(footage(clip_pairs()[0]).frames)
    assert torch.equal(read_video(folder / "edited.mkv", None).frames, source.flip(1))

    scores = score(run, ["metric=[clip_text]"])
    assert set(scores.video) == {"source", "edited"}  # it has no autoencoder
    assert values(read_scores(run)).metric.str.startswith(("PSNR", "CLIP text")).all()
    assert "mirror" in tables.render(summarize(collect([run])), "md")
    assert "turned" in (run / "report.html").read_text(encoding="utf-8")
