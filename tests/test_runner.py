"""Signals on their way from the comparison to the run that it is waiting for."""

import os
import signal
import threading
import time

from bench.runner import _forwarding_signals


class FakeWorker:
    def __init__(self):
        self.got = []

    def send_signal(self, number):
        self.got.append(number)


def test_a_signal_that_another_thread_takes_while_this_one_blocks_it_is_handed_on():
    """Blocking concerns one thread; a library's pool has others, which the system then chooses."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    worker = FakeWorker()
    try:
        with _forwarding_signals() as forwarding:
            os.kill(os.getpid(), signal.SIGINT)
            while not forwarding.stopped:
                time.sleep(0.01)
            assert worker.got == []
            forwarding.to(worker)
            assert worker.got == [signal.SIGINT]
            forwarding.on_signal(signal.SIGTERM, None)
            assert worker.got == [signal.SIGINT, signal.SIGKILL]
    finally:
        done.set()
        thread.join()


def test_the_second_of_two_signals_before_the_worker_is_there_kills_it():
    worker = FakeWorker()
    with _forwarding_signals() as forwarding:
        forwarding.on_signal(signal.SIGINT, None)
        forwarding.on_signal(signal.SIGINT, None)
        forwarding.to(worker)
    assert worker.got == [signal.SIGINT, signal.SIGKILL]
