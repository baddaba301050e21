"""Data that was sent to a node: kept there once, under a name made of what it holds."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from bench.system.files import write_atomic


def kept(name: str, reference: Any) -> Path:
    """Return the folder of this user that holds the data of that name, made once on each node."""
    home = Path(tempfile.gettempdir()) / f"meta-bench-data-{getpass.getuser()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise RuntimeError(f"{home} on {socket.gethostname()} belongs to somebody else")
    folder = home / name
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            content: Mapping[str, bytes] = ray.get(reference)
            making = Path(tempfile.mkdtemp(dir=home, prefix=f"{name}-"))
            for path, data in content.items():
                write_atomic(making / path, data)
            making.rename(folder)
    return folder


def name_of_data(content: Mapping[str, bytes]) -> str:
    """Return a name made of what data holds."""
    digest = hashlib.sha256()
    for path in sorted(content):
        digest.update(f"{path} {len(content[path])} {hashlib.sha256(content[path]).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
