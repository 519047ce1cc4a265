"""The models that a process holds, so that one that is named twice is loaded once."""

import functools
from collections.abc import Callable
from typing import Any

ROOM = 4  # a video model, an image model, a ControlNet, and one that a method brings


class ModelStore:
    """Keeps the models that were asked for last, `room` of them; the one unused for longest makes room for a new one.

    Room is made before the new model is loaded, so that memory never holds one more.
    """

    def __init__(self, room: int = ROOM):
        self.room = room
        self._models: dict[tuple, Any] = {}  # the one used last stands last

    def get(self, key: tuple, load: Callable[[], Any]) -> Any:
        """The model of this key; `load` makes it where it is not held."""
        if key in self._models:
            model = self._models.pop(key)
        else:
            while len(self._models) >= self.room:
                self._models.pop(next(iter(self._models)))
            model = load()
        self._models[key] = model
        return model

    def clear(self) -> None:
        """Lets go of all of them."""
        self._models.clear()

    def __len__(self) -> int:
        return len(self._models)


STORE = ModelStore()


def held(loader: Callable) -> Callable:
    """A loader whose models the process's store holds: the same arguments give the same object."""

    @functools.wraps(loader)
    def load(*args: Any, **kwargs: Any) -> Any:
        key = (loader.__qualname__, args, tuple(sorted(kwargs.items())))
        return STORE.get(key, lambda: loader(*args, **kwargs))

    return load
