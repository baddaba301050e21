"""The contract of studies: which are listed, wrong flags, and runs of older code that a report finds again."""

import dataclasses
import json

import pytest
from arm_runs import made, wanted

from bench.records.run import load_runs
from bench.studies.gradient_combination import GradientCombination
from bench.studies.study import STUDIES, run_of
from run_bench import main


def test_studies_are_listed(capsys):
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in STUDIES.names())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--study", "cots"], "unknown study 'cots'. Did you mean 'cost'? Accepted: cost, "),
        (["--study", "cost", "--protocol", "quick"], "a study has settings of its own"),
        (["--study", "cost", "--vary", "inner_steps"], "accepted: setting=A,B,C"),
        (["--vary", "inner_steps=1"], "add --study NAME"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(flags, words, tmp_path, capsys):
    assert main([*flags, "--out", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_a_report_finds_runs_of_older_code_with_the_same_settings_and_no_others(tmp_path):
    (config,) = GradientCombination().configs(wanted(vary={"arm": ["g2"]}))
    runs = made([config], tmp_path)
    assert run_of(config, runs) is runs[config.run_id]
    folder = (tmp_path / "runs" / config.run_id).rename(tmp_path / "runs" / "of-old")
    record = json.loads((folder / "run.json").read_text()) | {"schema": 1}  # which had no seal

    def found(**changes):
        then = dataclasses.asdict(config) | {"code": "older"} | changes
        del then["adaptation_tasks"]  # a setting of later days
        record["config"], record["row"]["run_id"] = then, "of-old"
        (folder / "run.json").write_text(json.dumps(record))
        return run_of(config, {run.row.run_id: run for run in load_runs(tmp_path)})

    assert found().row.run_id == "of-old"
    older = {name: value for name, value in config.hyperparameters.items() if name != "replacement"}  # of later days
    assert found(hyperparameters=older).row.run_id == "of-old"
    assert found(threads=config.threads + 1).row.run_id == "of-old"
    assert found(hyperparameters={"inner_steps": 2}) is None, "tail has not its default"
    assert found(meta_lr=0.5) is None
    assert found(hyperparameters={"inner_steps": 3}) is None
    assert found(algo="reptile") is None
    assert found(seed=1) is None
