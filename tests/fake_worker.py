"""Stands in for ``bench.runs.worker`` without torch: ``fake_worker.py JOB RECORD RUN_ID``; ``algo`` says what it does.

It notes when it begins and ends in ``OUT/log``; of the record that it leaves it changes what is its own.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

job = json.loads(sys.argv[1])
config, out = job["config"], Path(job["out"])
folder = out / "runs" / sys.argv[3]


def note(what):
    log = os.open(out / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{what} {config['algo']} {config['seed']}\n".encode())
    os.close(log)


def leave(status, code, error=None):
    record = json.loads(sys.argv[2])
    record["row"].update(status=status, error=error, started_at=job["started_at"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json.new").write_text(json.dumps(record))
    (folder / "run.json.new").replace(folder / "run.json")
    note("end")
    sys.exit(code)


def stopped(number, frame):
    (folder / "checkpoint.pt").write_text("saved")
    leave("interrupted", 130, "stopped by a signal")


deaf = config["algo"] == "deaf"
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN if deaf else stopped)
folder.mkdir(parents=True, exist_ok=True)
note("begin")
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
match config["algo"]:
    case "quick":
        time.sleep(0.2)
    case "long" | "deaf":
        time.sleep(60)
    case "crashes":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    case "fails":
        leave("failed", 1, "boom")
    case "leaves":
        os._exit(130)
    case "unwritable":
        sys.exit(74)
    case "usurps":
        (out / "runs").rename(out / "elsewhere")
        (out / "runs").write_text("a file where the folder was")
        sys.exit(74)
leave("ok", 0)
