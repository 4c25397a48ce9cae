"""The API server that a benchmark talks to: $KUBECONFIG, or an embedded one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def api_server() -> Iterator[Path]:
    """The kubeconfig of a server that may be filled with rubbish."""
    if "KUBECONFIG" in os.environ:
        yield Path(os.environ["KUBECONFIG"])
        return
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        command = [
            sys.executable,
            "-m",
            "embedded",
            "--only-api",
            "--data",
            f"{folder}/data",
            "--kubeconfig",
            str(kubeconfig),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline().startswith(b"ready ")
                yield kubeconfig
            finally:
                server.terminate()
