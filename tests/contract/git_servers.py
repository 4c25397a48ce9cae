"""Git servers as there are in the world: smart HTTP that may ask for a token or be old, plain files, and ssh."""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "planted-token-4711"
BASIC = base64.b64encode(f"bot:{TOKEN}".encode()).decode()


def git(folder: Path, *arguments: str, given: str = "") -> str:
    """Runs git with nothing of this machine's settings, and returns what it says."""
    identity = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **identity}
    run = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True, input=given
    )
    return run.stdout.strip()


def make_repository(folder: Path, *trees: dict[str, str | bytes]) -> list[str]:
    """A bare repository whose `main` has one commit for each tree. Returns their ids, oldest first.

    A path that ends in `@` is a symbolic link, one that ends in `!` an executable file.
    """
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "--bare", "-b", "main")
    commits: list[str] = []
    for number, tree in enumerate(trees):
        stream = b"commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 1\nx\n" % (10**9 + number)
        stream += b"from refs/heads/main^0\ndeleteall\n" if number else b"deleteall\n"
        for path, content in tree.items():
            mode = {"@": "120000", "!": "100755"}.get(path[-1], "100644")
            data = content if isinstance(content, bytes) else content.encode()
            stream += f"M {mode} inline {path.rstrip('@!')}\n".encode() + b"data %d\n%b\n" % (len(data), data)
        subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream, check=True)
        commits.append(git(folder, "rev-parse", "refs/heads/main"))
    return commits


def command_lines() -> bytes:
    """Of all processes of this machine, but for those of other workers' tests, which may plant the same."""
    return _of_all_processes("cmdline")


def command_lines_and_environments() -> bytes:
    """The same."""
    return _of_all_processes("cmdline", "environ")


def _of_all_processes(*names: str) -> bytes:
    found = b""
    whole_run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else 0
    for process in Path("/proc").glob("[0-9]*"):
        above = _above(int(process.name))
        if whole_run in above and os.getpid() not in above:
            continue
        for name in names:
            try:
                found += (process / name).read_bytes() + b"\n"
            except OSError:
                continue
    return found


def _above(process: int) -> set[int]:
    """A process, its parent, and so on."""
    found: set[int] = set()
    with suppress(OSError):
        while process:
            found.add(process)
            stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
            process = int(stat.rpartition(")")[2].split()[1])
    return found


def certificate(path: Path) -> Path:
    """Writes a key and its own certificate authority, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + signed.public_bytes(pem))
    return path


class GitServer(ThreadingHTTPServer):
    """git http-backend behind HTTP, or HTTPS with a certificate. `answer` may say something else instead, and then
    returns True. `watch` is called with each request: `processes` is all that it gave.
    """

    daemon_threads = True

    def __init__(
        self,
        repositories: Path,
        *,
        is_old: bool = False,
        certificate: Path | None = None,
        watch: Callable[[], bytes] = command_lines_and_environments,
    ) -> None:
        super().__init__(("127.0.0.1", 0), GitHandler)
        self.watch = watch
        self.repositories = repositories
        self.is_old = is_old  #: it speaks the protocol of 2005, in which only branches can be asked for
        self.authorizations: list[str | None] = []
        self.requests: list[str] = []
        self.processes = b""
        self.answer: Callable[[GitHandler], bool] = lambda request: False
        self.url = f"http://127.0.0.1:{self.server_port}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.url = f"https://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that does not trust it is gone
            super().handle_error(request, client_address)

    def needs_token(self) -> None:
        self.answer = GitHandler.refuse_without_token

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class GitHandler(BaseHTTPRequestHandler):
    server: GitServer

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.authorizations.append(self.headers["Authorization"])
        self.server.processes += self.server.watch()
        if not self.server.answer(self):
            self.backend()

    do_POST = do_GET  # noqa: N815 - named by the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> bool:
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def refuse_without_token(self) -> bool:
        if self.headers["Authorization"] == f"Basic {BASIC}":
            return False
        return self.reply(401, WWW_Authenticate='Basic realm="git"')

    def backend(self) -> None:
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": "" if self.server.is_old else self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        question = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = subprocess.run(
            ["git", "http-backend"], env=environment, input=question, capture_output=True, check=False
        ).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])
        self.reply(status, body, **headers)


class FileServer(ThreadingHTTPServer):
    """A plain web server with a repository on it, which git calls a dumb one."""

    daemon_threads = True

    def __init__(self, repositories: Path) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(repositories))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class SshServer:
    """An ssh server that knows one key and runs git-upload-pack. `watch` is called with each call."""

    def __init__(self, repositories: Path, watch: Callable[[], bytes] = command_lines_and_environments) -> None:
        self.repositories = repositories
        self.watch = watch
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.private_key = self.key.export_private_key().decode()
        self.processes = b""
        self.end = threading.Event()
        started: Future[int] = Future()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve(started)))
        self.thread.start()
        self.port = started.result(20)
        self.url = f"ssh://git@127.0.0.1:{self.port}"
        self.known_hosts = self.known_as(self.host_key)

    def known_as(self, key: asyncssh.SSHKey) -> str:
        """The line of a known_hosts file."""
        return f"[127.0.0.1]:{self.port} {key.export_public_key().decode()}"

    async def serve(self, started: Future[int]) -> None:
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(self.key.export_public_key().decode()),
            process_factory=self.run,
            encoding=None,
        )
        started.set_result(acceptor.get_port())
        await asyncio.to_thread(self.end.wait)
        acceptor.close()
        await acceptor.wait_closed()

    async def run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.processes += self.watch()
        program, argument = shlex.split(process.command or "")
        assert program == "git-upload-pack"
        command = ["git", "upload-pack", f"{self.repositories}{argument}"]
        environment = {"PATH": os.environ["PATH"], "GIT_PROTOCOL": process.env.get("GIT_PROTOCOL", "")}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as upload:
            await process.redirect(stdin=upload.stdin, stdout=upload.stdout, stderr=upload.stderr)
            await process.stdout.drain()
            process.exit(await asyncio.to_thread(upload.wait))
        await process.wait_closed()

    def stop(self) -> None:
        self.end.set()
        self.thread.join()
