"""A small benchmark in FiVE-Bench's files: two videos drawn here, and edits of all six types."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from assd.shapes.corpus import clip_pairs

FRAMES, HEIGHT, WIDTH = 41, 48, 80
VIDEOS = ("0001_bus", "0002_girl-dog")
CAPTION = clip_pairs()[0].source.caption  # words that the embedded CLIP knows
EDITS = {1: VIDEOS, 2: VIDEOS[:1], 3: VIDEOS[:1], 4: VIDEOS[:1], 5: VIDEOS[:1], 6: VIDEOS[1:]}  # videos by edit type


def item(edit_type: int, video: str) -> dict:
    """One edit as the manifests say it."""
    first, _, rest = CAPTION.partition(" ")
    return {
        "video_name": video,
        "editing_type_id": str(edit_type),
        "source_prompt": f"{first} [{rest}]",
        "target_prompt": f"[{first}] {rest}",
        "save_dir": f"{edit_type}_edit",
        "multiple_choice_question": "What is it? \na) this \nb) that",
        "source_yes_no_question": "Is it this?",
        "target_yes_no_question": "Is it that?",
    }


def write_manifest(root: Path, edit_type: int, content: object) -> Path:
    """edit<type>_FiVE.json of any content; of text, as it stands."""
    file = root / "edit_prompt" / f"edit{edit_type}_FiVE.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def write_five(root: Path) -> Path:
    """The whole benchmark below `root`: a square on a gradient that darkens by 4 grey levels a frame."""
    for edit_type, videos in EDITS.items():
        write_manifest(root, edit_type, [item(edit_type, video) for video in videos])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for shift, video in enumerate(VIDEOS):
        for folder in ("images", "bmasks"):
            (root / folder / video).mkdir(parents=True)
        for i in range(FRAMES):
            mask = (abs(y - 24) < 10) & (abs(x - 20 - i - shift) < 12)
            brightness = 60 + x + 40 * (y > 20) - 0.5 * i
            picture = np.where(mask[..., None], [200, 40 + 20 * shift, 60], brightness[..., None])
            Image.fromarray(picture.astype(np.uint8)).save(root / "images" / video / f"{i + 1:05d}.jpg", quality=95)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / "bmasks" / video / f"{i + 1:05d}.jpg", quality=95)
    return root
