"""Runs on the nodes of a Ray cluster: an actor for each, which the command looks at and fetches files from.

The actors are detached and named after the run: a command that was killed finds them again when it is given anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.api import BenchError
from bench.runs.job import Job
from bench.runs.launchers import node, shipping
from bench.runs.launchers.delivered import name_of_data
from bench.runs.launchers.launcher import Launcher, Say
from bench.runs.launchers.left import left_over, name_of
from bench.runs.launchers.nodes import Nodes, Share
from bench.runs.launchers.options import Options
from bench.runs.launchers.remote import Remote
from bench.runs.signals import Forwarding, Worker, ending
from bench.system.machine import git_commit
from bench.system.start import STOPPING
from bench.system.text import counted, shortened

NAMESPACE = "meta-bench"
ANSWER_S = 30.0  # for an actor that an earlier command has left
LEAVE_S = 10.0  # for actors at the end
# Of a cluster that we begin: runs would give way to all other work, which shows in their times, and Ray report its use.
_OF_OUR_OWN = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}

log = logging.getLogger("bench")


def make(options: Options) -> Launcher:
    """Return the launcher of a cluster, which is not connected yet."""
    return Ray(options)


class Ray(Launcher):
    """Keeps as many runs under way as the cluster has room for."""

    here = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self.say: Say = log.info
        self.workers: list[Remote] = []
        self._nodes: Nodes | None = None
        self._gpu = False
        self._adopted: dict[str, tuple[Any, node.Look]] = {}
        self._leaving: list[tuple[Any, Any]] = []
        self._joined = self._prepared = self._full = False
        self._references: dict[object, tuple[str, Any]] = {}
        self._code: tuple[list[str], Any] | None = None
        self._roots: list[str] = []

    def open(self, say: Say, out: Path, roots: Sequence[Path]) -> None:
        """Join the cluster, or begin one of our own on this machine.

        Raises:
            BenchError: there is none.
        """
        self.say, self._roots, address = say, [str(root) for root in roots], self.options.address
        if ray.is_initialized():
            raise BenchError("--launcher ray: this process is in a Ray cluster already; call ray.shutdown() first")
        if address.startswith("ray://"):
            raise BenchError(
                f"--ray-address {address!r} is a Ray Client's; accepted: auto, local, or HOST:PORT of the cluster that"
                " this machine is a node of"
            )
        for name, value in _OF_OUR_OWN.items():
            os.environ.setdefault(name, value)
        ours = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.getsignal(number) for number in STOPPING} if ours else {}
        try:
            found = ray.init(
                address=address, namespace=NAMESPACE, runtime_env=shipping.harness(), log_to_driver=False,
                logging_level=logging.ERROR,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
            remedy = "`ray start --head` begins one here, --ray-address local one for this command alone"
            words = "" if address == "auto" else f" ({shortened(' '.join(str(error).split()), 200)})"
            raise BenchError(f"--ray-address {address}: no Ray cluster answers there{words}; {remedy}") from error
        finally:
            for number, handler in handlers.items():  # Ray has one of its own for SIGTERM
                signal.signal(number, handler)
        self._joined, self.commit = True, git_commit()  # of what has just been sent
        if url := getattr(found, "dashboard_url", None):
            say(f"Ray's dashboard: http://{url}")
        self._gpu = self.options.gpus != 0 and self.options.device != "cpu" and _gpus() > 0
        if self.options.gpus and not self._gpu:
            raise BenchError(f"--gpus-per-run {self.options.gpus:g}: no node of the cluster has a GPU; leave it out")
        for actor in left_over(out):
            self.let_go(actor)

    @property
    def gpu(self) -> bool:
        """Say whether runs can have a GPU."""
        return self._gpu

    @property
    def threads(self) -> int:
        """Return how many threads a run gets where nobody says: its CPUs."""
        return max(1, int(self.options.cpus))

    def prepare(self, on_gpu: bool = False) -> None:
        """Look whether the nodes can make runs.

        Raises:
            BenchError: a node has other versions, or none has what a run needs.
        """
        self._made().wait()
        for ident in self._made().with_room:
            self._data(ident)  # what is too much is refused now
        self._prepared = True
        count = len(self._made().with_room)
        own = f", each with a {'GPU' if self._gpu else 'node'} for itself" if self.options.exclusive else ""
        self.say(f"{counted(self.room, 'run')} at a time on {counted(count, 'node')} of the Ray cluster{own}")

    def _made(self) -> Nodes:
        if self._nodes is None:
            exclusive = self.options.exclusive
            gpus = (1.0 if self.options.gpus is None or exclusive else self.options.gpus) if self._gpu else 0.0
            share = Share(self.options.cpus, gpus, exclusive and not self._gpu)
            self._nodes = Nodes(share, self._roots, node.versions(), self.say)
        return self._nodes

    @property
    def room(self) -> int:
        """Return how many runs the cluster has room for, as far as its nodes have answered."""
        if not self._prepared:  # all have been made
            return 1
        self._made().look()
        room = self._made().room
        if self._full != (room == 0):
            self._full = not room
            self.say("the cluster has room for runs again" if room else "no node can make runs: waiting for one")
        return room

    def called(self, ident: str) -> str:
        """Return the name of a node."""
        return self._made().known[ident].name if ident in self._made().known else ident[:12]

    def adopt(self, job: Job, module: str) -> Job:
        """Return the job as an earlier command has begun it, where its actor is there still."""
        try:
            actor = ray.get_actor(name_of(job, module))
        except ValueError:
            return job
        look: Any = None
        with contextlib.suppress(RayError, TimeoutError):
            look = ray.get(actor.look.remote({}), timeout=ANSWER_S)
        if look is None or not look.started_at or self.options.fresh:
            ray.kill(actor)
            return job
        self._adopted[name_of(job, module)] = actor, look
        self.say(f"{job.told}: goes on on {look.host}, where an earlier command has begun it")
        return dataclasses.replace(job, started_at=look.started_at)

    def start(self, signals: Forwarding, module: str, job: Job, files: Sequence[int]) -> Worker:
        """Have a job run on a node; what it leaves is fetched from there."""
        worker = Remote(self, job, module)
        self.workers.append(worker)
        if (adopted := self._adopted.pop(name_of(job, module), None)) is not None:
            worker.go_on(*adopted)
        signals.add(worker)
        return worker

    def place(self, worker: Remote) -> tuple[Any, str] | None:
        """Return an actor for a worker and the node it is bound to; None where there is no room."""
        nodes = self._made()
        nodes.look()
        taken = [other.node for other in self.workers if other is not worker and other.node is not None]
        if (where := nodes.freest(taken, worker.avoid)) is None:
            worker.avoid.clear()
            return None
        try:
            self._data(where)
        except BenchError as error:
            nodes.refuse(where, str(error))
            return None
        bound = self.options.exclusive and not self._gpu
        actor = ray.remote(node.NodeRun).options(
            name=name_of(worker.job, worker.module), lifetime="detached", num_gpus=nodes.share.gpus,
            num_cpus=nodes.usable[where]["CPU"] if bound else nodes.share.cpus, max_restarts=0, max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(where, soft=False), runtime_env=nodes.environment,
        )  # fmt: skip
        try:
            return actor.remote(), where
        except ValueError:  # the one before has not quite gone
            return None

    def parcel(self, job: Job, module: str, attempts: Sequence[Mapping[str, Any]], where: str | None) -> node.Parcel:
        """Return what a run is sent with: its folder as it is here, and references to what is sent once."""
        if self._code is None:
            names, files = shipping.plugins(job.plugins)
            self._code = names, ray.put(files)
        names, code = self._code
        data, cache = self._data(where), ("", None)
        with contextlib.suppress(BenchError):  # too much to send: the node prepares it itself
            cache = self._sent({"cache": job.cache}, "the nodes")
        text = dataclasses.replace(job, attempts=(*job.attempts, *attempts)).to_json()
        held = {
            str(path.relative_to(job.folder)): path.read_bytes()
            for path in sorted(job.folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        run_id, versions = job.config.run_id, node.versions()
        return node.Parcel(text, run_id, module, held, names, versions, code, data, cache, node.IDLE_S)

    def _data(self, where: str | None) -> tuple[str, Any]:
        """Return name and reference of the data for a node; an empty name if it has all."""
        if where in self._made().known and all(self._made().known[where].has):
            return "", None
        train, test = map(Path, self._roots)
        folders = {"data_root": train, "test_data_root": None if test == train else test}
        return self._sent(folders, self.called(where or "a node"))

    def _sent(self, folders: Mapping[str, Path | None], where: str) -> tuple[str, Any]:
        """Return name and reference of what folders hold, sent once; an empty name for nothing."""
        key = str(folders)
        if key not in self._references:
            found = shipping.content(folders, where)
            self._references[key] = (name_of_data(found), ray.put(found)) if found else ("", None)
        return self._references[key]

    def ending(self, worker: Worker, code: int) -> tuple[str, str]:
        """Return status and error of a run that left no record, and the node it was on."""
        assert isinstance(worker, Remote)
        if worker.why is not None:
            return worker.why
        status, error = ending(code)
        return status, f"{error} (on {worker.host})" if worker.host else error

    def known(self, worker: Worker) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the host of a run that left no record, and its attempts."""
        assert isinstance(worker, Remote)
        attempts = [{"ended": "left no record", **attempt} for attempt in worker.attempts]
        return {"host": worker.host or None}, {"attempts": attempts}

    def put(self, worker: Worker, name: str, content: bytes) -> None:
        """Write a file into the folder of a run, where it is."""
        assert isinstance(worker, Remote)
        worker.put(name, content)

    def said(self, host: str, line: str, warning: bool) -> None:
        """Pass on a line of a run: on the terminal and in the log, with the name of its node in front."""
        if warning:
            if line.strip("!").strip():  # the rules around a warning are the terminal's
                log.warning("%s: %s", host, line)
        else:
            self.say(f"{host}: {line}")

    def let_go(self, actor: Any) -> None:
        """Have an actor leave, whatever it is doing."""
        self._leaving = [one for one in self._leaving if not ray.wait([one[1]], timeout=0)[0]]
        self._leaving.append((actor, actor.leave.remote()))

    def close(self) -> None:
        """End what is left of runs, and leave the cluster."""
        if not self._joined:
            return
        for worker in self.workers:
            worker.drop()
        end = time.monotonic() + LEAVE_S
        for actor, left in self._leaving:
            if not ray.wait([left], timeout=max(0.0, end - time.monotonic()))[0]:
                ray.kill(actor)
        self.workers, self._leaving, self._nodes = [], [], None
        self._joined = self._prepared = False
        ray.shutdown()


def _gpus() -> float:
    return sum(n["Resources"].get("GPU", 0.0) for n in ray.nodes() if n["Alive"])
