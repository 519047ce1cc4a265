"""Models without trained weights. `assd` is imported inside the fixtures: type checks hook into its first import."""

# ruff: noqa: PLC0415

import pytest
import torch
from jaxtyping import install_import_hook

# Shapes and types are checked at every call, an int being good enough where a float is written.
install_import_hook(["assd", "evaluation"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(scope="session")
def tiny_video_model():
    """The embedded world's text-to-video model with random weights."""
    from assd.shapes import networks

    return random_model(networks.video_unet, num_frames=8)


@pytest.fixture(scope="session")
def tiny_image_model():
    """The embedded world's text-to-image model with random weights."""
    from assd.shapes import networks

    return random_model(networks.image_unet, num_frames=1)


def random_model(make_unet, num_frames):
    """Random weights, none of them zero: temporal layers would otherwise start as the identity."""
    from diffusers import DDPMScheduler

    from assd.models import LatentDiffusion
    from assd.shapes import networks

    torch.manual_seed(0)
    networks_by_name = dict(unet=make_unet(), vae=networks.autoencoder(), text_encoder=networks.text_encoder())
    for module in networks_by_name.values():
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return LatentDiffusion(
        **networks_by_name,
        tokenizer=networks.tokenizer(),
        scheduler=DDPMScheduler.from_config(networks.scheduler().config),
        height=64,
        width=64,
        num_frames=num_frames,
    )


@pytest.fixture
def fake_model():
    """Makes a `LatentDiffusion` of the given members alone: `fake_model(embed=..., predict_noise=...)`."""
    from assd.models import LatentDiffusion

    def make(**members):
        model = object.__new__(LatentDiffusion)
        vars(model).update(members)
        return model

    return make


@pytest.fixture(scope="session")
def finished_run():
    """Makes a run directory as the editor leaves it, in which an edit is what `edit` makes of the pair's footage."""
    import json

    from omegaconf import OmegaConf

    from assd import pictures
    from assd.config import composed
    from assd.data import Prompts
    from assd.shapes.corpus import clip_pairs
    from assd.shapes.dataset import footage
    from assd.video import to_bytes, write_video

    def make(path, edit, pairs=2, overrides=()):
        path.mkdir(parents=True)
        cfg = composed([f"dataset.limit={pairs}", "device=cpu", *overrides])
        OmegaConf.save(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)), path / "config.yaml")
        (path / "environment.json").write_text(json.dumps({"command": ["assd", *overrides], "commit": None}))
        for pair in clip_pairs()[:pairs]:
            folder, known = path / "edits" / pair.id, footage(pair)
            folder.mkdir(parents=True)
            videos = {"source": known.frames, "truth": known.truth, "edited": edit(known)}
            bytes_of = {name: to_bytes(frames) for name, frames in videos.items()}
            bytes_of["difference"] = pictures.difference(bytes_of["edited"], bytes_of["source"])
            for name, frames in bytes_of.items():
                write_video(folder / f"{name}.mp4", frames, known.fps)
            write_video(folder / "edited.mkv", bytes_of["edited"], known.fps)
            write_video(folder / "reconstruction.mkv", bytes_of["source"], known.fps)
            prompts = Prompts(pair.source.caption, pair.target.caption)
            rows = {name: bytes_of[name] for name in ("source", "edited")}
            pictures.save(pictures.filmstrip(prompts, rows), folder / "filmstrip.png")
            record = {"id": pair.id, "source_prompt": prompts.source, "target_prompt": prompts.target}
            (folder / "edit.json").write_text(json.dumps(record | {"status": "finished", "seed": 0, "seconds": 1.0}))
            steps = [{"step": i, "t": 500, "gradient_norm": 9 - i, "video.mask_coverage": 0.1 * i} for i in range(5)]
            (folder / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
        return path

    return make


@pytest.fixture(scope="session")
def read_back():
    """Reads what W&B's offline files hold."""
    import json
    import subprocess
    import sys
    from pathlib import Path

    def read_back(directory):
        """The records of a run's offline files, in the order in which they were begun."""
        found: dict = {"history": [], "summary": {}, "exit": None, "run": None, "ids": []}
        wandb = Path(sys.executable).with_name("wandb")
        for file in sorted(directory.glob("wandb/offline-run-*/run-*.wandb")):
            command = [wandb, "leet", "inspect", "--json", file]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            for record in map(json.loads, lines):
                if record["type"] == "history":
                    found["history"].append(record["history"]["item"])
                elif record["type"] == "summary":
                    found["summary"] |= record["summary"]["update"]
                elif record["type"] == "run":
                    found["run"] = record["run"]
                    found["ids"].append(record["run"]["run_id"])
                elif record["type"] == "exit":
                    found["exit"] = record["exit"].get("exit_code", 0)
        return found

    return read_back
