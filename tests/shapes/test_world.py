"""The embedded world: its clips, its pairs and its judge."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from assd.shapes.corpus import clip, clip_pairs, directed_clips, held_out_captions, tuning_pair
from assd.shapes.dataset import TUNING_PAIRS
from assd.shapes.judge import judge, judge_motion, judge_shape
from assd.shapes.world import ATTRIBUTES, KINDS, SIZE, Bystander, Clip, draw_clip, in_every_direction, render, visible

CLIP = Clip("red", "star", "left", "sand", radius=0.33, x=0.0, y=0.1, travel=0.7, texture=3)
THERE = Bystander("black", "square", radius=0.16, x=-0.6, y=-0.6)


def grown(mask, pixels):
    """The mask and everything within so many pixels."""
    return torch.nn.functional.max_pool2d(mask[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0] > 0


@pytest.mark.parametrize("extras", [{}, {"bystander": THERE}, {"pan": (0.2, -0.3)}], ids=KINDS)
@pytest.mark.parametrize("edit", [{"colour": "blue"}, {"shape": "circle"}])
def test_an_edit_changes_only_the_object_and_its_shadow(extras, edit):
    """The true edit keeps texture, size, place, speed, camera and bystander: far from the object no pixel changes."""
    source = render(replace(CLIP, **extras))
    target = render(replace(CLIP, **extras, **edit))
    near = grown(source.masks | target.masks, 11)  # as far as the shadow of a tip reaches
    changed = (source.frames != target.frames).any(1)
    assert not (changed & ~near).any()
    assert changed.any()
    assert torch.equal(source.bystander, target.bystander)
    if "colour" in edit:
        assert torch.equal(source.masks, target.masks)
        assert changed[source.masks].all()
        assert not (changed & ~grown(source.masks, 4)).any()  # the shadow stays as well


def test_a_background_edit_keeps_the_objects():
    """Well inside the object and the bystander the true edit of a background changes nothing."""
    source = render(replace(CLIP, bystander=THERE))
    target = render(replace(CLIP, bystander=THERE, background="snow"))
    for mask in (source.masks, source.bystander):
        inside = ~grown(~mask, 2)
        assert inside.any(0).any(0).any()
        assert torch.equal(source.frames.movedim(1, -1)[inside], target.frames.movedim(1, -1)[inside])


def test_the_shadow_lies_below():
    """Just below the object its background is darker than without it, above it is not."""
    empty = render(replace(CLIP, x=9.0)).frames
    c = replace(CLIP, shape="square", x=0.0, y=0.0, travel=0.0, radius=0.3)
    darker = (empty - render(c).frames).mean(1)[0]
    below, above = round((0.3 * 0.88 + 1) * SIZE / 2) + 2, round((-0.3 * 0.88 + 1) * SIZE / 2) - 3
    assert darker[below, SIZE // 2] > 0.1
    assert darker[above, SIZE // 2].abs() < 1e-6


def test_the_camera_pans_by_the_stated_amount():
    """The background moves by `pan`, here by whole pixels a frame, and the object not with it."""
    pixels = 7 * 2 / SIZE  # over seven steps, one a frame
    still, panned = render(CLIP), render(replace(CLIP, pan=(pixels, -pixels)))
    assert torch.equal(still.masks, panned.masks)
    first, last = panned.frames[0], panned.frames[-1]
    free = ~(grown(panned.masks, 8)[0, 7:, :-7] | grown(panned.masks, 8)[-1, :-7, 7:])
    assert (first[:, 7:, :-7] - last[:, :-7, 7:]).abs().amax(0)[free].max() < 1e-5
    assert (still.frames[0] == still.frames[-1]).all(0)[~grown(still.masks, 8)[[0, -1]].any(0)].all()


def test_bystanders_stay_clear_of_the_object():
    """Smaller, of another colour, visible, inside the frame, and never where the object or its shadow passes."""
    rng = random.Random("bystander")
    for _ in range(40):
        c = draw_clip(rng, "bystander")
        assert c.bystander.colour != c.colour
        assert visible(c.bystander.colour, c.background)
        for variant in in_every_direction(c):
            rendering = render(variant)
            assert not (grown(rendering.masks, 1) & rendering.bystander).any()
            assert rendering.bystander.sum() < 0.7 * rendering.masks.sum()
            border = torch.ones_like(rendering.bystander)
            border[:, 1:-1, 1:-1] = False
            assert not (rendering.bystander & border).any()


def test_kinds_are_drawn_in_thirds_and_exclude_one_another():
    """A bystander and a moving camera never come together."""
    drawn = [clip("train", index) for index in range(600)]
    for kind in KINDS:
        assert 150 < sum(c.kind == kind for c in drawn) < 250
    assert not any(c.bystander and any(c.pan) for c in drawn)


@pytest.mark.parametrize("motion", ATTRIBUTES["motion"])
@pytest.mark.parametrize("shape", ATTRIBUTES["shape"])
def test_masks_show_shape_and_motion(shape, motion):
    """The object goes where the caption says, in the shape that it says, within the frame."""
    masks = render(CLIP.edited(shape=shape, motion=motion)).masks
    assert judge_motion(masks.float()) == motion
    assert judge_shape(masks.float()) == shape
    border = torch.ones_like(masks)
    border[:, 1:-1, 1:-1] = False
    assert not (masks & border).any()


def test_drawn_objects_stay_in_the_frame():
    """Whatever is drawn, at most a corner's rim touches the border."""
    rng = random.Random("frame")
    for _ in range(100):
        masks = render(draw_clip(rng)).masks
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


def test_the_pairs_have_three_kinds():
    """Ten of each kind, in every kind of edit alike; a bystander can be told from both objects on both backgrounds."""
    for kind in KINDS:
        edits = ["two" if "+" in pair.edit else pair.edit for pair in clip_pairs() if pair.source.kind == kind]
        assert Counter(edits) == {"colour": 3, "shape": 3, "background": 2, "two": 2}
    for pair in (*clip_pairs(), *(tuning_pair(index) for index in range(TUNING_PAIRS))):
        if there := pair.source.bystander:
            assert there.colour not in {pair.source.colour, pair.target.colour}
            assert visible(there.colour, pair.source.background)
            assert visible(there.colour, pair.target.background)


def test_tuning_pairs_have_every_edit_in_every_kind():
    """Twelve neighbours, twelve combinations; none has a caption of the thirty."""
    pairs = [tuning_pair(index) for index in range(12)]
    assert len({(pair.edit, pair.source.kind) for pair in pairs}) == 12
    assert not {c.caption for pair in pairs for c in (pair.source, pair.target)} & held_out_captions()


def test_pairs_are_held_out_of_training():
    """No training or validation clip has the caption of a pair's source or target."""
    drawn = {clip(split, index).caption for split in ("train", "validation") for index in range(2000)}
    assert len(drawn) > 500
    assert not drawn & held_out_captions()


def test_the_judge_reads_rendered_clips():
    """The judge of generated clips is right about clips whose attributes are known, also blurred and noisy ones."""
    torch.manual_seed(0)
    for index in range(30):
        c = clip("validation", index)
        frames = render(c).frames
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
            mask = render(c).masks
            assert mask[:, [0, -1]].sum() + mask[:, :, [0, -1]].sum() <= mask.sum() * 0.01
    assert not {c.caption for c in clips} & held_out_captions()
