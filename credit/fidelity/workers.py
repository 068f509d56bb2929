"""Worker processes side by side, each with its share of the cores. They end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Yield the results of a function as they come.

    Processes are spawned, not forked: threads and GPU contexts do not survive a fork. The first error cancels the items
    that have not begun, and is raised.

    Args:
        function: called with each item in one of the processes; must be picklable.
        items: arguments, one for each call.
        workers: processes at a time, at least 1.
    """
    count = min(workers, len(items))
    if not count:
        return
    threads = max(1, (os.cpu_count() or 1) // count)
    context = multiprocessing.get_context("spawn")
    # The function goes to each process once, not with each item: it may carry all the training data.
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(threads, function))
    try:
        for future in as_completed([pool.submit(_call, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[[Any], Any] | None = None
"""Function of this worker process."""


def _call(item: Any) -> Any:
    if _function is None:
        raise RuntimeError("a worker was called before it was started")
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it died before the watching thread had its turn
        os._exit(1)
    return _function(item)


def _start(threads: int, function: Callable[[Any], Any]) -> None:
    global _function  # noqa: PLW0603  # a process of a pool has no other place for it
    _function = function
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, for whatever reason.

    Otherwise a worker would wait for work for ever, or train on into a folder that the next run takes for its own.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
