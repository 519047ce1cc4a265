"""The tests, in rooms that mirror the packages'; what they share lies in `conftest`, `fakes` and `commands`."""
