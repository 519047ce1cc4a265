"""What a person types, and the videos that come with it: configurations, prompts, tables of prompts, videos."""

from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.making import (
    both,
    clip,
    cut,
    file,
    frames,
    picture,
    pipe,
    png_header,
    prompts,
    sound,
    two_sizes,
)

EDIT = "assd.run output={here}/out device=cpu tracking.mode=disabled metric=[clip_text] steps.distillation=1 "
SHAPES = EDIT + "dataset.limit=1 "
FOLDER = EDIT + "dataset=folder dataset.path={here}/videos "
TEXTS = "dataset.source_prompt='a red circle moving right over snow' dataset.target_prompt='a blue circle' "
VIDEO = EDIT + "dataset=video " + TEXTS
A_ROW = "clip.mp4,a red circle,a blue circle"
RECORD = ("out/*",)  # the new run's own record, which says why its pair failed


CONFIGURATIONS = {
    "a learning rate in words": BadInput(
        command=SHAPES + "optimizer.lr=fast", thing="'lr': 'fast'", remedy="conf/optimizer"
    ),
    "a negative learning rate": BadInput(command=SHAPES + "optimizer.lr=-1", thing="'lr': -1", remedy="conf/optimizer"),
    "a metric that is not there": BadInput(
        command=SHAPES + "metric=[nope]", thing="metric/nope", remedy="Config search path"
    ),
    "a shard beyond the last": BadInput(command=SHAPES + "dataset.shard=5/4", thing="dataset.shard", remedy="i/n"),
    "an objective that is not measured": BadInput(
        command=SHAPES + "objective=psnr", thing="objective", remedy="must be one of this run's metrics, clip_text"
    ),
    "no target at once": BadInput(
        command=SHAPES + "targets_together=0", thing="targets_together", remedy="must be >= 1", writes=RECORD
    ),
    "an override cut off": BadInput(command=SHAPES + "dataset.split=[", thing="dataset.split=[", remedy="in quotes"),
    "a value from nowhere": BadInput(command=SHAPES + "seed='${nowhere}'", thing="'nowhere'", remedy="not found"),
    "neither yes nor no": BadInput(
        command=SHAPES + "save_frames=perhaps", thing="save_frames", remedy="'perhaps' is not a valid bool"
    ),
    "no frames": BadInput(command=SHAPES + "model.num_frames=0", thing="0 frames of 64 x 64", remedy="must be >= 1"),
    "a negative height": BadInput(
        command=VIDEO + "dataset.path=a.mp4 dataset.height=-5", thing="8 frames of 64 x -5", remedy="must be >= 1"
    ),
    "a way to track that is not there": BadInput(
        command=SHAPES.replace("tracking.mode=disabled", "tracking.mode=sometimes"), thing="tracking", remedy="offline"
    ),
    "a launcher that is not there": BadInput(
        command=SHAPES + "hydra/launcher=nope", thing="hydra/launcher/nope", remedy="slurm"
    ),
    "an output below a file": BadInput(
        make=file("out", "in the way"), command=SHAPES, thing="{here}/out", remedy="Not a directory"
    ),
    "an experiment's file that is no YAML": BadInput(
        make=file("conf/experiment/mine.yaml", "# @package _global_\nseed: [1\n"),
        command=SHAPES.replace("assd.run", "assd.run --config-dir {here}/conf") + "+experiment=mine",
        thing="mine.yaml",
        remedy="line 2",
    ),
    "a prompt with a word the model lacks": BadInput(
        make=clip("clip.mp4"),
        command=VIDEO + "dataset.path={here}/clip.mp4 dataset.target_prompt='a red zebra'",
        thing="'zebra'",
        remedy="Its words are",
        writes=RECORD,
    ),
}

PROMPT_TABLES = {
    "no prompts.csv": BadInput(
        make=clip("videos/clip.mp4"), command=FOLDER, thing="{here}/videos/prompts.csv", remedy="the columns video"
    ),
    "prompts.csv is a folder": BadInput(
        make=clip("videos/prompts.csv/clip.mp4"), command=FOLDER, thing="prompts.csv", remedy="the columns video"
    ),
    "prompts.csv in Latin-1": BadInput(
        make=prompts(A_ROW, "clip.mp4,a château,a circle".encode("latin-1")),
        command=FOLDER,
        thing="prompts.csv, row 2",
        remedy="UTF-8",
    ),
    "prompts.csv in UTF-16": BadInput(
        make=file("videos/prompts.csv", "video,source_prompt,target_prompt\na.mp4,b,c\n".encode("utf-16")),
        command=FOLDER,
        thing="prompts.csv",
        remedy="UTF-8",
    ),
    "a name of 300 characters": BadInput(
        make=prompts(A_ROW, f"{'a' * 300}.mp4,a red circle,a blue circle"),
        command=FOLDER,
        thing="prompts.csv, row 2",
        remedy="shorter name",
    ),
    "NUL in a path": BadInput(
        make=prompts("cl\0ip.mp4,a red circle,a blue circle"), command=FOLDER, thing="row 1", remedy="NUL"
    ),
    "a row with more cells than columns": BadInput(
        make=prompts("clip.mp4,a red circle, a dot,a blue circle"),
        command=FOLDER,
        thing="prompts.csv, row 1",
        remedy="in quotes",
    ),
    "a quotation that never ends": BadInput(
        make=prompts('clip.mp4,"a red circle,a blue circle' + "\nclip.mp4,a,b" * 20_000),
        command=FOLDER,
        thing="prompts.csv",
        remedy="quote",
    ),
    "an empty prompt": BadInput(
        make=prompts("clip.mp4,a red circle,"),
        command=FOLDER,
        thing="prompts.csv, row 1",
        remedy="target_prompt is empty",
    ),
    "a row of one cell": BadInput(make=prompts("clip.mp4"), command=FOLDER, thing="row 1", remedy="missing"),
    "no row": BadInput(make=prompts(), command=FOLDER, thing="prompts.csv has no rows", remedy="one row an edit"),
    "an edit that changes nothing known": BadInput(
        make=file("videos/prompts.csv", "video,source_prompt,target_prompt,changes\nclip.mp4,a,b,sky\n"),
        command=FOLDER,
        thing="prompts.csv, row 1",
        remedy="object, background, everything",
    ),
    "a video that is not there": BadInput(
        make=prompts("lost.mp4,a red circle,a blue circle"),
        command=FOLDER,
        thing="videos/lost.mp4",
        remedy="does not exist",
        writes=RECORD,
    ),
}


def bad_video(thing: str, remedy: str, *makers, path: str = "clip.mp4") -> BadInput:
    """A video that can't be edited."""
    command = VIDEO + f"dataset.path={{here}}/{path}"
    return BadInput(make=both(*makers), command=command, thing=thing, remedy=remedy, writes=RECORD)


VIDEOS = {
    "text named .mp4": bad_video("clip.mp4", "Known are .mp4", file("clip.mp4", "these are words\n" * 50)),
    "an empty file": bad_video("clip.mp4", "empty", file("clip.mp4")),
    "a video cut off": bad_video("clip.mp4", "cut off", clip("clip.mp4", 16), cut("clip.mp4", 0.1)),
    "a playlist that names another computer": bad_video(
        "clip.mp4",
        "Known are .mp4",
        file("clip.mp4", "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n"),
    ),
    "sound without pictures": bad_video("sound.avi", "no video stream", sound, path="sound.avi"),
    "too few frames": bad_video("clip.mp4 has 5 frames", "smaller num_frames", clip("clip.mp4", 5)),
    "pictures that change their size": bad_video("clip.mp4", "differ in size", two_sizes),
    "a pipe": bad_video("clip.mp4", "neither a file nor a folder", pipe("clip.mp4")),
    "a folder without frames": bad_video("videos", ".png", file("videos/notes.txt", "none"), path="videos"),
    "frames of two sizes": bad_video(
        "frames", "one video per folder", frames(), picture("frames/00003.png", (12, 10)), path="frames"
    ),
    "a frame cut off": bad_video("00003.png", "can't be read", frames(), cut("frames/00003.png", 0.5), path="frames"),
    "a frame that is text": bad_video(
        "00003.png", "can't be read", frames(), file("frames/00003.png", "words"), path="frames"
    ),
    "a frame that claims 60000 x 60000 pixels": bad_video(
        "00003.png", "smaller", frames(), file("frames/00003.png", png_header(60_000, 60_000)), path="frames"
    ),
    "a frame that claims 11000 x 11000 pixels": bad_video(
        "00003.png", "smaller", frames(), file("frames/00003.png", png_header(11_000, 11_000)), path="frames"
    ),
}
