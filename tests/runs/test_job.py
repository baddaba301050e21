"""A job goes to another process as text."""

from pathlib import Path

from bench.network.model import Way
from bench.runs.job import Job
from bench.settings.config import RunConfig


def test_a_job_is_read_back_as_it_was(tmp_path):
    config = RunConfig(algo="maml", device="cpu")
    job = Job(
        config, tmp_path, tmp_path, (Path("a.py"),), "the command", "2026-01-01T00:00:00.000+00:00", 0.0, "name", False,
        commit="abc+", ways={"a network": Way("loop", True, "slow", "once")},
    )  # fmt: skip
    assert Job.from_json(job.to_json()) == job
