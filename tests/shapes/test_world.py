"""The embedded world: its clips, its pairs, and its judge."""

import random

import pytest
import torch

from assd.shapes.corpus import clip, clip_pairs, directed_clips, held_out_captions
from assd.shapes.judge import judge, judge_motion, judge_shape
from assd.shapes.world import ATTRIBUTES, Clip, draw_clip, render, visible

CLIP = Clip("red", "star", "left", "sand", radius=0.33, x=0.0, y=0.1, travel=0.7, texture=3)


def test_a_colour_edit_changes_only_the_object():
    """The true edit keeps texture, size, position and speed: outside the object's soft rim no pixel changes."""
    source, mask = render(CLIP)
    target, target_mask = render(CLIP.edited(colour="blue"))
    near = torch.nn.functional.max_pool2d(mask[:, None].float(), 9, 1, 4)[:, 0] > 0
    changed = (source != target).any(1)
    assert torch.equal(mask, target_mask)
    assert not (changed & ~near).any()
    assert changed[mask].all()


def test_a_background_edit_keeps_the_object():
    """Well inside the object the true edit of a background changes nothing."""
    source, mask = render(CLIP)
    target, _ = render(CLIP.edited(background="snow"))
    inside = -torch.nn.functional.max_pool2d(-mask[:, None].float(), 5, 1, 2)[:, 0] > 0
    assert inside.any()
    assert torch.equal(source.movedim(1, -1)[inside], target.movedim(1, -1)[inside])


@pytest.mark.parametrize("motion", ATTRIBUTES["motion"])
@pytest.mark.parametrize("shape", ATTRIBUTES["shape"])
def test_masks_show_shape_and_motion(shape, motion):
    """The object goes where the caption says, in the shape that it says, within the frame."""
    _, masks = render(CLIP.edited(shape=shape, motion=motion))
    assert judge_motion(masks.float()) == motion
    assert judge_shape(masks.float()) == shape
    border = torch.ones_like(masks)
    border[:, 1:-1, 1:-1] = False
    assert not (masks & border).any()


def test_drawn_objects_stay_in_the_frame():
    """Whatever is drawn, at most a corner's rim touches the border."""
    rng = random.Random("frame")
    for _ in range(100):
        _, masks = render(draw_clip(rng))
        assert masks[:, [0, -1]].sum() + masks[:, :, [0, -1]].sum() <= masks.sum() * 0.01


def test_captions():
    """The article agrees, and an unknown attribute names the known ones."""
    assert CLIP.caption == "a red star moving left over sand"
    assert CLIP.edited(colour="orange").caption.startswith("an orange star")
    with pytest.raises(ValueError, match="shape must be one of circle, square, triangle, star; got 'cube'"):
        CLIP.edited(shape="cube")


def test_the_thirty_pairs():
    """Thirty, each once; source and target differ in just the attributes that the edit names, and can be seen."""
    pairs = clip_pairs()
    assert len(pairs) == len({pair.id for pair in pairs}) == 30
    for pair in pairs:
        before, after = pair.source.record(), pair.target.record()
        assert {name for name in before if before[name] != after[name]} == set(pair.edit.split("+"))
        assert visible(pair.source.colour, pair.source.background)
        assert visible(pair.target.colour, pair.target.background)


def test_pairs_are_held_out_of_training():
    """No training or validation clip has the caption of a pair's source or target."""
    drawn = {clip(split, index).caption for split in ("train", "validation") for index in range(2000)}
    assert len(drawn) > 500
    assert not drawn & held_out_captions()


def test_the_judge_reads_rendered_clips():
    """The judge of generated clips is right about clips whose attributes are known, also blurred and noisy ones."""
    torch.manual_seed(0)
    for index in range(24):
        c = clip("validation", index)
        frames, _ = render(c)
        blurred = torch.nn.functional.avg_pool2d(frames, 3, 1, 1) + 0.05 * torch.randn_like(frames)
        expected = {attribute: getattr(c, attribute) for attribute in ATTRIBUTES}
        assert judge(frames) == expected
        assert judge(blurred) == expected


def test_training_clips_come_in_every_direction():
    """Fours that differ in motion, and in place at most; the object stays inside; another replaces what is held out."""
    clips = directed_clips("train", 200)
    assert len(clips) == 200
    for group in zip(*[iter(clips)] * 4, strict=True):
        every = {group[0].edited(motion=motion).caption: motion for motion in ATTRIBUTES["motion"]}
        assert {c.motion for c in group} == {every[caption] for caption in every.keys() - held_out_captions()}
        assert len({c.edited(motion="up").caption + str((c.texture, c.travel)) for c in group}) == 1
        for c in group:
            mask = render(c)[1]
            assert mask[:, [0, -1]].sum() + mask[:, :, [0, -1]].sum() <= mask.sum() * 0.01
    assert not {c.caption for c in clips} & held_out_captions()
