from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from credit.errors import LockHeldError
from credit.storage import (
    create_file,
    is_exposed,
    is_left_over,
    make_folder,
    name_beside,
    only_one,
    parse_object,
    write_whole,
)


def test_a_second_one_is_refused_at_once_and_let_in_when_the_first_has_left(tmp_path):
    lock = tmp_path / "lock"
    with only_one(lock, "held"), pytest.raises(LockHeldError, match="held"), only_one(lock, "held"):
        pass
    with only_one(tmp_path / "lock", "held"):
        pass


def test_it_is_left_also_by_an_exception(tmp_path):
    with pytest.raises(KeyError), only_one(tmp_path / "lock", "held"):
        raise KeyError
    with only_one(tmp_path / "lock", "held"):
        pass


def test_another_lock_that_is_waited_for_in_vain_inside_is_not_taken_for_this_one(tmp_path):
    inside = tmp_path / "inside"
    with FileLock(inside), pytest.raises(Timeout), only_one(tmp_path / "lock", "held"), FileLock(inside, timeout=0):
        pass


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_files_folders_and_locks_are_their_owner_s_alone_whatever_the_umask(tmp_path):
    make_folder(tmp_path / "a" / "b")
    write_whole(tmp_path / "a" / "b" / "file", b"")
    with only_one(tmp_path / "lock", "held"):
        assert mode(tmp_path / "lock") == 0o600
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/file")] == [0o700, 0o700, 0o600]


def test_a_file_that_others_can_read_is_replaced_by_one_that_they_cannot(tmp_path):
    (tmp_path / "iban.csv").touch()
    (tmp_path / "iban.csv").chmod(0o666)
    write_whole(tmp_path / "iban.csv", b"DE02")
    assert mode(tmp_path / "iban.csv") == 0o600


def test_a_folder_that_is_there_keeps_its_mode_and_a_file_is_no_folder(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o755)
    make_folder(tmp_path / "there")
    assert mode(tmp_path / "there") == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "below")


def test_links_planted_for_a_temporary_file_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".out.{os.getpid()}.tmp").symlink_to(victim)
    (tmp_path / "out").symlink_to(victim)
    write_whole(tmp_path / "out", b"new")
    assert (victim.read_text(), (tmp_path / "out").read_text()) == ("precious", "new")
    assert not (tmp_path / "out").is_symlink()


def test_a_file_is_created_anew_or_not_at_all(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(FileExistsError):
            create_file(tmp_path / name)
    assert not (tmp_path / "victim").exists()


def test_names_of_temporary_files_cannot_be_guessed_and_are_known_again(tmp_path):
    names = {name_beside(tmp_path / "file").name for _ in range(9)}
    assert len(names) == 9
    assert all(re.fullmatch(r"\.file\.credit-[0-9a-f]{16}\.tmp", name) and is_left_over(name) for name in names)
    assert not any(map(is_left_over, (".file.tmp", ".file.4711.tmp", "file.credit-0123456789abcdef.tmp")))


def test_what_others_can_reach_and_read_is_exposed():
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name)
        (outer / "inner").mkdir()
        (outer / "inner" / "file").touch()
        for opened in (outer, outer / "inner", outer / "inner" / "file"):
            opened.chmod(0o755)
        assert is_exposed(outer / "inner")
        assert is_exposed(outer / "inner" / "file")
        (outer / "inner" / "file").chmod(0o600)
        assert not is_exposed(outer / "inner" / "file")
        outer.chmod(0o700)
        assert not is_exposed(outer / "inner")


def test_only_a_json_object_is_parsed_and_depth_is_an_error_like_others():
    assert parse_object(b'{"a": 1}') == {"a": 1}
    for content in ("[" * 100_000, "[1]", "null", "{", b"\xff", ""):
        with pytest.raises(ValueError, match=r"\A(its JSON|it is not) .*\Z"):
            parse_object(content)
