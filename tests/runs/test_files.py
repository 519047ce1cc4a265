"""Files that are whole or not there."""

import json

import pytest

from assd.files import aside, remove_partial, write_json, write_text


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    """Until the block ends the old one stands; afterwards nothing but the new one."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    with aside(file) as partial:
        partial.write_text("new")
        assert partial.suffix == ".txt"
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_leaves_the_old_one(tmp_path):
    """And nothing half written; also where nothing was written at all."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    for write in (lambda partial: partial.write_text("half"), lambda partial: None):
        with pytest.raises(KeyboardInterrupt), aside(file) as partial:
            write(partial)
            raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_do_not_meet(tmp_path):
    """Each has a name of its own: the last one to end is what stands, whole."""
    with aside(tmp_path / "a") as first, aside(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"


def test_a_link_is_replaced_and_not_followed(tmp_path):
    """A run directory that came from elsewhere cannot make the editor write outside of it."""
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "a").symlink_to(tmp_path / "outside")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "outside").read_text() == "untouched"
    assert not (tmp_path / "a").is_symlink()


def test_what_a_killed_program_left_is_removed(tmp_path):
    """Half-written files go; others, also hidden ones, stay."""
    write_json(tmp_path / "a.json", {"name": "Zoë"})
    (tmp_path / ".a-12345678.partial.json").write_text("{")
    (tmp_path / ".hidden").write_text("")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.json"]
    assert "Zoë" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Zoë"}
