"""A trial elsewhere asks whether it goes on, and is answered, by files."""

import threading

import pytest

from bench.runs.signals import Interrupted
from bench.studies.tuning.asking import ANSWER_FILE, SCORES_FILE, Asked, ByFiles


class Judge:
    """Lets a trial go on until it has three validations."""

    def __init__(self):
        self.seen = []

    def goes_on(self, number, points):
        self.seen.append((number, points))
        return len(points) < 3


def test_every_question_is_answered_with_the_numbers_that_were_asked_about(tmp_path):
    judge, found = Judge(), []
    asking = ByFiles(tmp_path, lambda: None)
    asked = Asked(tmp_path, lambda name, content: (tmp_path / name).write_bytes(content))

    def trial():
        for count in (1, 2, 3):
            found.append(asking.goes_on(7, [0.5, 0.25, float("nan")][:count]))

    thread = threading.Thread(target=trial)
    thread.start()
    while thread.is_alive():
        asked.look(judge, 7)
    assert found == [True, True, False]
    assert [(number, len(points)) for number, points in judge.seen] == [(7, 1), (7, 2), (7, 3)]
    assert judge.seen[1][1] == [0.5, 0.25]
    asking.close()
    assert not list(tmp_path.iterdir())


def test_a_trial_that_was_begun_anew_elsewhere_gets_its_answer_again(tmp_path):
    judge, sent = Judge(), []
    asked = Asked(tmp_path, lambda name, content: sent.append(name))
    for _ in range(2):
        (tmp_path / SCORES_FILE).unlink(missing_ok=True)
        (tmp_path / SCORES_FILE).write_text("[0.5]")
        asked.look(judge, 1)
        asked.look(judge, 1)
    assert sent == [ANSWER_FILE] * 2
    asked.close()
    assert not list(tmp_path.iterdir())


def test_a_trial_that_is_stopped_while_it_waits_stops(tmp_path):
    def stop():
        raise Interrupted

    with pytest.raises(Interrupted):
        ByFiles(tmp_path, stop).goes_on(0, [0.5])
