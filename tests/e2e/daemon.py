"""A daemon of the installed command, the repository that it follows, and what it says of itself."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from tests.e2e.data_plane import Repository
from tests.e2e.harness import Plane


class Specs(Repository):
    """The repository of the specs; they are in the folder `specs`. `plane`: where their environments are."""

    def __init__(self, folder: Path, plane: Plane | None = None) -> None:
        super().__init__(folder)
        self.placed = plane.placed if plane is not None else str

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def write(self, **files: str | None) -> str:
        """Commits spec files by their names without ending; None takes one away."""
        for name in [name for name, text in files.items() if text is None]:
            (self.folder / "specs" / f"{name}.yaml").unlink()
        given = {name: self.placed(text) for name, text in files.items() if text is not None}
        return self.commit({f"specs/{name}.yaml": text for name, text in given.items()})

    def rewind(self, commit: str) -> None:
        self._git("reset", "--quiet", "--hard", commit)

    def hide(self) -> None:
        """The server of the repository is away."""
        self.folder.rename(self.folder.with_suffix(".away"))

    def show(self) -> None:
        self.folder.with_suffix(".away").rename(self.folder)


@dataclass
class Daemon:
    """`reconcile run` as a process. Its log is JSON, one event a line."""

    plane: Plane
    arguments: list[str]
    name: str = "daemon"
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.plane.folder / f"{self.name}.log"

    def start(self, **environment: str) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.plane.command, "run", "--address", "127.0.0.1:0", "--log-format", "json", *self.arguments],
                cwd=self.plane.folder,
                env=self.plane.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged until now."""
        text = self.log.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be half written
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, sentence: str, **fields: Any) -> list[dict[str, Any]]:
        """Its events with this sentence and these fields."""
        return [
            event
            for event in self.events
            if event["msg"] == sentence and all(event.get(key) == value for key, value in fields.items())
        ]

    @property
    def port(self) -> int:
        begun = self.said("begins")
        return int(begun[-1]["ports"][0])

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def push(self, secret: bytes) -> int:
        """As a Git server tells of a push, signed with this. The status of the answer."""
        body = b'{"ref": "refs/heads/main"}'
        signature = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
        connection = HTTPConnection("127.0.0.1", int(self.said("begins")[-1]["ports"][1]), timeout=10)
        try:
            connection.request("POST", "/webhook", body, {"X-Signature": signature})
            return connection.getresponse().status
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels."""
        _, text = self.get("/metrics")
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def code(self) -> int | None:
        """What it ended with; None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def stop(self) -> int:
        """Tells it to end, as Kubernetes does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def assert_sound(self) -> None:
        """Nothing went wrong in the program itself."""
        text = self.log.read_text()
        assert "Traceback" not in text, text[-4000:]


@contextmanager
def running(plane: Plane, specs: Specs, *more: str, name: str = "daemon", **environment: str) -> Iterator[Daemon]:
    """A daemon that follows the specs, polls every second, and is ended after the test."""
    given = ["--git", specs.url, "--path", "specs", "--interval", "1", *more]
    daemon = Daemon(plane, given, name).start(**environment)
    try:
        until(lambda: daemon.said("begins"))
        yield daemon
        daemon.assert_sound()
    finally:
        daemon.kill()


def until(look: Any, seconds: float = 30.0) -> Any:
    """What `look` gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"nothing after {seconds} s: {found!r}"
        time.sleep(0.02)
    return found


def forget_mirror(plane: Plane) -> None:
    """As a new pod begins: with an empty folder."""
    shutil.rmtree(plane.home / "specs", ignore_errors=True)
