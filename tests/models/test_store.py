"""The models that a process holds."""

import pytest

from assd.models.store import ROOM, ModelStore


@pytest.fixture
def loads():
    """A store with room for two, and a function that asks it for a model by name and notes what was loaded."""
    store, loaded = ModelStore(room=2), []

    def get(name):
        def load():
            loaded.append((name, len(store)))
            return object()

        return store.get((name,), load)

    return store, get, loaded


def test_a_model_named_twice_is_loaded_once(loads):
    """The same key is the same object."""
    _, get, loaded = loads
    assert get("video") is get("video") is not get("image")
    assert [name for name, _ in loaded] == ["video", "image"]


def test_the_one_unused_for_longest_leaves(loads):
    """Used again, the first stays; the second makes room for the third, and is loaded anew when it is asked for."""
    store, get, loaded = loads
    video, _ = get("video"), get("image")
    assert get("video") is video
    get("control")
    assert get("video") is video
    get("image")
    assert [name for name, _ in loaded] == ["video", "image", "control", "image"]
    assert len(store) == 2


def test_room_is_made_before_a_model_is_loaded(loads):
    """While one is loaded no more than the others are held: memory never has one too many."""
    _, get, loaded = loads
    for name in ("video", "image", "control", "fourth"):
        get(name)
    assert [held for _, held in loaded] == [0, 1, 1, 1]


def test_a_model_that_fails_to_load_is_not_held(loads):
    """The next time it is tried again."""
    store, get, _ = loads
    get("video")

    def broken():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        store.get(("image",), broken)
    assert len(store) == 1
    assert get("image") is get("image")


def test_the_store_lets_go(loads):
    """Cleared, it holds nothing."""
    store, get, _ = loads
    first = get("video")
    store.clear()
    assert len(store) == 0
    assert get("video") is not first


def test_there_is_room_for_a_controlnet():
    """A video model, an image model, and two more fit at once."""
    assert ROOM >= 3
