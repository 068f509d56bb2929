"""Processes that work side by side, each with its part of the cores, and that do not outlive who started them."""

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
    """Yield the results of a function that can be pickled, in the order in which they come.

    Processes are started anew rather than forked: threads and GPU contexts do not survive a fork. When an item fails,
    those that were not begun are left out and the error is raised.

    Args:
        function: called with each item in one of the processes.
        items: what to work on.
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
"""What this process was started to call."""


def _call(item: Any) -> Any:
    if _function is None:
        raise RuntimeError("a worker was called before it was started")
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # died before the thread that waits for it had its turn
        os._exit(1)
    return _function(item)


def _start(threads: int, function: Callable[[Any], Any]) -> None:
    global _function  # noqa: PLW0603  # a process of a pool has no other place for what it was started with
    _function = function
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, however that ended.

    A worker would wait for work for ever, or go on training into a folder that the next run takes for its own.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
