"""Signals are handed on to all workers, each once, however they come."""

import os
import signal
import threading
import time

from bench.runs.signals import forwarding_signals


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
    workers = [FakeWorker(), FakeWorker()]
    try:
        with forwarding_signals() as forwarding:
            forwarding.add(workers[0])
            with forwarding.held():
                os.kill(os.getpid(), signal.SIGINT)
                while not forwarding.stopped:
                    time.sleep(0.01)
                assert [w.got for w in workers] == [[signal.SIGINT], []]
                forwarding.add(workers[1])
                assert [w.got for w in workers] == [[signal.SIGINT], [signal.SIGINT]]
            forwarding.on_signal(signal.SIGTERM)
            assert [w.got for w in workers] == [[signal.SIGINT, signal.SIGKILL]] * 2
    finally:
        done.set()
        thread.join()


def test_the_second_of_two_signals_before_a_worker_is_there_kills_it():
    worker = FakeWorker()
    with forwarding_signals() as forwarding:
        forwarding.on_signal(signal.SIGINT)
        forwarding.on_signal(signal.SIGINT)
        forwarding.add(worker)
    assert worker.got == [signal.SIGINT, signal.SIGKILL]


def test_a_worker_that_has_ended_is_sent_nothing():
    worker = FakeWorker()
    with forwarding_signals() as forwarding:
        forwarding.add(worker)
        forwarding.remove(worker)
        forwarding.on_signal(signal.SIGINT)
    assert worker.got == []
