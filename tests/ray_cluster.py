"""A Ray cluster on this machine, whose nodes can be killed."""

import contextlib
import os
import signal
import unittest.mock
from pathlib import Path

import ray
from commands import uncounted
from ray.cluster_utils import Cluster

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


class Nodes:
    """The cluster, and what is on it."""

    def __init__(self, count=3):
        self.cluster = Cluster()
        for _ in range(count):
            self.add()

    @property
    def address(self):
        return self.cluster.address

    def add(self):
        """Add a node, from the main thread: Ray sets handlers of signals.

        On a busy machine Ray gives up on one after half a minute, and the next try finds it warm. Workers would give
        way to all other work, and tests take minutes on a busy machine.
        """
        for last in (False, False, True):
            try:
                with unittest.mock.patch.dict(os.environ, uncounted(RAY_worker_niceness="0"), clear=True):
                    self.cluster.add_node(**SMALL)
                return
            except Exception:  # of several kinds
                if last:
                    raise

    def kill_one_with_a_run(self):
        """SIGKILL all of a node that a run is on, not the head, and add another."""
        for one in self.cluster.worker_nodes:
            raylet = one.all_processes["raylet"][0].process.pid
            below = list(descendants(raylet))
            if any("far_run" in _command(pid) for pid in below):
                for pid in [*below, raylet]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.cluster.remove_node(one, allow_graceful=False)
                self.add()
                return True
        return False

    def actors(self):
        """Return the names of the actors of runs that are there."""
        ray.init(address=self.address, namespace="meta-bench", log_to_driver=False, logging_level="ERROR")
        try:
            return ray.util.list_named_actors()
        finally:
            ray.shutdown()


def descendants(pid):
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield from descendants(child)
            yield child


def _command(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
