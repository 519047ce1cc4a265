"""The embedded pairs as a dataset."""

import pytest

from assd.data.pairs import Canvas
from assd.errors import InputError
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import TUNING_PAIRS, shapes
from assd.shapes.world import render

SIZE = dict(num_frames=8, height=64, width=64)


def test_the_dataset_is_the_thirty_pairs():
    """In their order, under their ids, on the world's canvas; `limit` takes the first."""
    pairs = shapes(**SIZE)
    assert [pair.id for pair in pairs] == [pair.id for pair in clip_pairs()]
    assert {pair.canvas for pair in pairs} == {Canvas(8, 64, 64)}
    assert [pair.id for pair in shapes(**SIZE, limit=2)] == [pair.id for pair in pairs[:2]]


def test_footage_knows_what_was_asked():
    """Frames, the true edit, the object in both, and the attributes that get a new value."""
    for pair, known in zip(shapes(**SIZE), clip_pairs()):
        footage = pair.read(pair.canvas)
        source, target = render(known.source), render(known.target)
        assert footage.frames.equal(source.frames)
        assert footage.truth.equal(target.frames)
        assert footage.masks.equal(source.masks | target.masks)
        assert footage.asked == {name: getattr(known.target, name) for name in known.edit.split("+")}
        assert pair.prompts == (known.source.caption, known.target.caption)


def test_footage_has_the_bystander():
    """Its mask where there is one, away from the object's, and the same in the true edit."""
    for pair, known in zip(shapes(**SIZE), clip_pairs()):
        footage = pair.read(pair.canvas)
        assert (footage.bystander is not None) == (known.source.kind == "bystander")
        if footage.bystander is not None:
            assert footage.bystander.equal(render(known.target).bystander)
            assert not (footage.bystander & footage.masks).any()


def test_what_changes_follows_from_the_edit():
    """The object, the background, or both."""
    kinds = {known.edit: pair.read(pair.canvas).changes for pair, known in zip(shapes(**SIZE), clip_pairs())}
    assert kinds["colour"] == kinds["shape"] == "object"
    assert kinds["background"] == "background"
    several = {changes for edit, changes in kinds.items() if "+" in edit and "background" in edit}
    assert several == {"everything"}


def test_tuning_pairs_are_others():
    """Parameters are chosen on none of the thirty."""
    tuning = shapes(**SIZE, split="tuning")
    assert len(tuning) == TUNING_PAIRS
    assert not {pair.prompts for pair in tuning} & {pair.prompts for pair in shapes(**SIZE)}


@pytest.mark.parametrize("change", [{"num_frames": 16}, {"height": 32}, {"split": "test"}, {"limit": 0}])
def test_what_the_world_does_not_have(change):
    """Another size, split or no pair at all is refused, by name; so is another canvas when a pair is read."""
    with pytest.raises(InputError, match=r"8 frames of 64 x 64|split|limit"):
        shapes(**SIZE | change)
    (pair,) = shapes(**SIZE, limit=1)
    with pytest.raises(InputError, match="16 frames of 64 x 64"):
        pair.read(Canvas(16, 64, 64))


def test_shards_share_the_pairs_out():
    """Three jobs together edit each of the first ten pairs once, none of them two; `limit` counts before."""
    shards = [[pair.id for pair in shapes(**SIZE, limit=10, shard=f"{i}/3")] for i in (1, 2, 3)]
    assert sorted(name for shard in shards for name in shard) == [pair.id for pair in shapes(**SIZE, limit=10)]
    assert [len(shard) for shard in shards] == [4, 3, 3]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3"])
def test_a_shard_that_is_none_is_refused(shard):
    """By name, with its form."""
    with pytest.raises(InputError, match=r"dataset\.shard must be i/n"):
        shapes(**SIZE, shard=shard)
