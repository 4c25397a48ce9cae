"""A real PostgreSQL: a cluster of its own in a folder of its own, on a free port of this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.contract.ports import free_port

PASSWORD = "s3cret/of:the@reader"


def programs() -> Path | None:
    """The folder of the newest server's programs. Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Postgres:
    """The server. Its superuser comes in by the socket; `reader` by TCP, with a password."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        # Not in pytest's folder: the name of a socket has 107 bytes at most, and another user has to get there.
        self.folder = Path(tempfile.mkdtemp(prefix="trueup-pg-"))
        self._user = "nobody" if os.geteuid() == 0 else None  # the server refuses to be root
        if self._user:
            shutil.chown(self.folder, self._user)
        self.port = free_port()
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "admin", "-E", "UTF8", "--locale=C", "--no-sync")
        (self.folder / "data" / "pg_hba.conf").write_text(
            "local all admin trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(
            command, user=self._user, cwd=self.folder, env=self._environment(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "America/New_York"}

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "timezone": "America/New_York",  # what is in UTC is so because it was asked for
        }
        command = [str(self._bin / "postgres"), "-D", f"{self.folder}/data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, user=self._user, cwd=self.folder, env=self._environment(), stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.admin("select 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def admin(self, sql: str, database: str = "postgres") -> list[Any]:
        """Rows of a statement of the superuser, committed."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="admin", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends sessions and stops; SIGQUIT is as a crash."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server."""
    found = programs()
    if found is None:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    server = Postgres(found)
    yield server
    server.remove()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """A new database that `reader` may connect to."""
    name = f"t_{secrets.token_hex(4)}"
    postgres.admin("do $$ begin create role reader login; exception when duplicate_object then null; end $$")
    postgres.admin(f"alter role reader password '{PASSWORD}'")
    postgres.admin(f"create database {name}")
    yield name
    postgres.admin(f"drop database {name} with (force)")
