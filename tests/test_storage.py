from __future__ import annotations

import pytest
from filelock import FileLock, Timeout

from credit.errors import LockHeldError
from credit.storage import only_one


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
