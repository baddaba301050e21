"""Stands in for ``bench.runs.worker`` on a node, without torch: its steps are a chain of hashes, which shows whether a
run that went on elsewhere took each step once. ``algo`` says what else it does: ``waits`` stays in the middle until
there is a file ``go`` in the folder of the data.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

STEP_S = 0.05
EVERY = 4  # steps, for a checkpoint
COLUMNS = (
    "algo", "dataset", "protocol", "n_way", "k_shot", "k_query", "seed", "backbone", "device", "device_name",
    "meta_batch", "meta_steps", "inner_steps", "inner_lr", "inner_optimizer", "eval_inner_steps", "meta_optimizer",
    "meta_lr", "tasks_seen", "images_seen", "stream_sha256", "test_tasks", "test_acc", "test_acc_ci95",
    "test_acc_transductive", "test_acc_transductive_ci95", "train_s", "eval_s", "setup_s", "step_ms_median",
    "step_ms_p95", "tasks_per_s", "peak_mem_mib", "peak_mem_reserved_mib", "status", "error", "run_id", "torch_version",
    "git_commit", "started_at", "eval_k_query", "train_rotation", "test_rotation", "acc_before_adaptation", "threads",
    "data_sha256", "data_pipeline", "task_chunk", "resumed", "precision", "step_mode", "oom_retries", "kernels", "host",
)  # fmt: skip


def put(path, text):
    path.with_name(f".{path.name}.tmp").write_text(text)
    path.with_name(f".{path.name}.tmp").replace(path)


def chain(seed, steps):
    """What an unbroken run of so many steps ends with."""
    value = str(seed)
    for _ in range(steps):
        value = hashlib.sha256(value.encode()).hexdigest()
    return value


def main(text):
    job = json.loads(text)
    config = job["config"]
    if (folder := next(Path(job["out"], job["within"], "runs").glob(f"*-s{config['seed']}-*"), None)) is None:
        from bench.runs.job import Job  # on this machine, where runs make their folders

        folder = Job.from_json(text).folder
        folder.mkdir(parents=True)
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    parent = os.getppid()
    checkpoint = folder / "checkpoint.pt"
    step, value, parts = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, str(config["seed"]), 0)
    print(f"step {step} of {config['meta_steps']}", flush=True)

    def leave(status, code, error=None):
        row = dict.fromkeys(COLUMNS) | {name: config[name] for name in COLUMNS if name in config}
        row |= {"run_id": folder.name, "started_at": job["started_at"], "status": status, "error": error}
        row |= {"test_acc": 0.5, "test_acc_transductive": 0.5, "train_s": 1.0, "step_ms_median": 1.0, "resumed": parts}
        record = {"schema": 1, "row": row, "result": value, "attempts": job["attempts"]}
        put(folder / "curve.csv", f"{value}\n")
        put(folder / "run.json", json.dumps(record))
        sys.exit(code)

    gate = Path(job["data_root"], "go") if config["algo"] == "waits" else None
    while step < config["meta_steps"]:
        time.sleep(STEP_S)
        if gate is None or step < config["meta_steps"] // 2 or gate.exists():
            value, step = hashlib.sha256(value.encode()).hexdigest(), step + 1
        if stopped or step % EVERY == 0 or os.getppid() != parent:
            put(checkpoint, json.dumps([step, value, parts + 1]))
        if stopped or os.getppid() != parent:
            leave("interrupted", 130, "stopped by a signal")
        if config["algo"] == "fails" and step == 6:
            leave("failed", 1, "boom")
        if config["algo"] == "crashes" and step == 6:
            os.kill(os.getpid(), signal.SIGSEGV)
    leave("ok", 0)
