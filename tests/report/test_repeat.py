"""The command that makes a run again."""

import dataclasses
import shlex

import pytest
from made_runs import make_row

from bench.cli import flags, plan
from bench.records.run import Run
from bench.report.repeat import repeat_command
from bench.runs.runner import Place
from bench.settings import sources
from bench.settings.config import RunConfig


@pytest.mark.parametrize("protocol", ["quick", "matched", "paper"])
def test_the_command_of_a_run_makes_that_run(tmp_path, protocol, monkeypatch, toy_images):
    monkeypatch.setattr(sources, "load_data", lambda *_: toy_images)
    given = ["--algos", "reptile,maml", "--dataset", "toy", "--protocol", protocol, "--n-way", "3", "--seeds", "3"]
    given += ["--meta-steps", "7", "--set", "maml.inner_lr=0.25", "--threads", "1", "--device", "cpu"]
    given += ["--test-n-way", "2", "--test-corruption", "blur:3:query", "--data-root", str(tmp_path / "a b")]
    command = shlex.join(["python", "run_bench.py", *given])

    def planned(words):
        place = Place(tmp_path, tmp_path, (), "", False, 1, None)
        return plan.plan(flags.parser().parse_args(words), place)[1]

    for config in planned(given):
        run = Run(make_row(seed=config.seed), {"config": dataclasses.asdict(config), "command": command}, tmp_path)
        words = shlex.split(repeat_command(run))
        assert words[:2] == ["python", "run_bench.py"]
        assert words[-2:] == ["--data-root", str(tmp_path / "a b")]
        assert [one.run_id for one in planned(words[2:])] == [config.run_id]
        again = dataclasses.replace(config, seed=1)
        both = repeat_command(run, Run(make_row(seed=1), {}, tmp_path))
        assert [one.run_id for one in planned(shlex.split(both)[2:])] == [again.run_id, config.run_id]


def test_a_command_that_is_not_known_is_not_made_up(tmp_path):
    assert repeat_command(Run(make_row(), {"config": {"seed": 1}}, tmp_path)) is None
    config = dataclasses.asdict(RunConfig(algo="maml", protocol="study-cost"))
    assert repeat_command(Run(make_row(), {"config": config}, tmp_path)) is None
