"""A Ray cluster of several nodes on this machine, none of which listens beyond 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Self

import psutil

# Read when ray is imported. Without the second one, Ray takes 127.0.0.1 for the machine's address in its network.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20, "include_dashboard": False}


class Nodes:
    """Nodes of one core each; the first is the head."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=_NODE)
        self.address: str = self._cluster.address
        self._below_head = _below(self._cluster.head_node)

    def add(self) -> Any:
        """Add a node, and wait for it."""
        return self._cluster.add_node(**_NODE)

    def remove(self, node: Any) -> None:
        """Kill a node with everything on it, and wait until it is gone."""
        below = _below(node)
        self._cluster.remove_node(node, allow_graceful=False)
        _end(below)

    def kill_head(self) -> None:
        """Kill the head's server, which knows the cluster."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()
        _end(self._below_head)


def _below(node: Any) -> list[psutil.Process]:
    """Return the processes that a node has started: agents, and workers."""
    return [
        child
        for info in node.all_processes.get("raylet", [])
        for child in psutil.Process(info.process.pid).children(recursive=True)
    ]


def _end(processes: list[psutil.Process]) -> None:
    """Kill processes that outlive their node, as some of Ray's agents do for minutes."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes)
