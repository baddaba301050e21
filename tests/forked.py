"""Processes forked from this one, in place of fresh ones."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time


class Forked:
    """A process forked from this one, with what the runner uses of ``subprocess.Popen``."""

    def __init__(self, work, log=None):
        self.returncode = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 70
        multiprocessing.process._parent_process = None  # whoever had us forked has not had this one
        try:
            os.setsid()
            if log is not None:
                file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.dup2(file, 1)
                os.dup2(file, 2)
            status = work()
        except SystemExit as end:
            status = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (600 if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked", timeout)
            time.sleep(0.002)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def fork_worker(signals, module, argument, files=(), environment=None):
    """Stands in for ``bench.runs.launchers.local.start_process``: the same worker, forked and not begun anew."""

    def work():
        sys.argv = [module, argument]
        return importlib.import_module(module).main(argument)

    with signals.held():
        worker = Forked(work)
        signals.add(worker)
    return worker
