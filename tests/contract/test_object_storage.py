"""The object storage edge: one contract, held against a folder and against S3 as moto's server speaks it."""

from __future__ import annotations

import gc
import hashlib
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from runtime import storage as storage_module
from runtime.storage import Corrupt, FileStorage, NotFound, ObjectStorage, S3Storage, StorageError, open_storage
from tests.contract.faults import Fault, FaultProxy, Upstream, _Handler, answer, drop, lose

#: More than one part of an upload.
BIG = bytes(range(256)) * (20 * 1024 * 1024 // 256)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket `models`, and its administrator's client."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with closing(http.client.HTTPConnection(urlsplit(moto).netloc)) as connection:
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
    with closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket="models")
        yield client


class Place(NamedTuple):
    url: str
    hidden: Callable[[], list[str]]  # what lies there and is no object


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        root = tmp_path / "a store"
        unfinished = root / ".unfinished"
        return Place(root.as_uri(), lambda: sorted(path.name for path in unfinished.iterdir()))
    aws = request.getfixturevalue("aws")
    return Place("s3://models/some/prefix", lambda: _uploads(aws))


def _uploads(aws: Any) -> list[str]:
    return [upload["Key"] for upload in aws.list_multipart_uploads(Bucket="models").get("Uploads", [])]


@pytest.fixture
def storage(place: Place) -> Iterator[ObjectStorage]:
    with open_storage(place.url) as storage:
        yield storage


class _Door(_Handler):
    """Passes everything on as it is: signatures are of all headers, and S3 answers in headers, too."""

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def ask_upstream(self, body: bytes) -> http.client.HTTPResponse:
        upstream = self.server.proxy.behind
        assert upstream is not None
        if self._upstream is None:
            self._upstream = upstream.open()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
        self._upstream.request(self.command, self.path, body=body or None, headers=headers)
        return self._upstream.getresponse()

    def pass_on(self, body: bytes, share: float = 1.0) -> None:
        response = self.ask_upstream(body)
        content = response.read()
        headers = {name: value for name, value in response.getheaders() if name.lower() != "connection"}
        self.head(response.status, headers)
        self.wfile.write(content[: int(len(content) * share)])
        self.wfile.flush()

    _pass_on = pass_on
    do_HEAD = _Handler.do_GET  # noqa: N815 - a name that http.server calls


class Door(FaultProxy):
    """A proxy before S3 that fails on purpose."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def __enter__(self) -> Self:
        super().__enter__()
        self.behind = Upstream(self.address, None, None)
        self._server.RequestHandlerClass = _Door
        return self


def cut() -> Fault:
    """Half of the body, and a reset."""

    def act(handler: Any, body: bytes) -> None:
        handler.pass_on(body, share=0.5)
        handler.reset()

    return act


@pytest.fixture
def fault(aws: Any, moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A proxy before S3, and no long pauses."""
    with Door(urlsplit(moto).netloc) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(storage_module, "_PAUSES", (0.01, 0.01, 0.01))
        yield proxy


@pytest.fixture
def s3(fault: Door) -> Iterator[ObjectStorage]:
    """S3 behind the proxy."""
    with open_storage("s3://models/some/prefix") as storage:
        yield storage


# -- the contract --


def test_what_was_created_is_read_again(storage: ObjectStorage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a file")

    assert storage.create("builds/churn/a1/record.json", b'{"format": 1}')
    assert storage.create("builds/churn/a1/artifact.tar.gz", source)
    assert storage.create("empty", b"")

    assert storage.read("builds/churn/a1/record.json") == b'{"format": 1}'
    assert storage.read("builds/churn/a1/artifact.tar.gz") == b"from a file"
    assert storage.read("empty") == b""


def test_an_object_is_never_written_twice(storage: ObjectStorage) -> None:
    assert storage.create("record.json", b"first")
    assert not storage.create("record.json", b"second")
    assert storage.read("record.json") == b"first"


def test_there_is_an_object_once_it_was_created(storage: ObjectStorage) -> None:
    assert not storage.exists("builds/a/record.json")
    storage.create("builds/a/record.json", b"")
    assert storage.exists("builds/a/record.json")
    assert not storage.exists("builds/a")


def test_an_absent_object_is_named(storage: ObjectStorage, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*/builds/x/record\.json$") as caught:
        storage.read("builds/x/record.json")
    assert not caught.value.worth_retry
    with pytest.raises(NotFound, match="builds/x/artifact"):
        storage.download("builds/x/artifact", tmp_path / "here")
    assert list(tmp_path.glob("*here*")) == []


def test_a_read_has_a_limit(storage: ObjectStorage) -> None:
    storage.create("record.json", b"x" * 100)
    assert storage.read("record.json", limit=100) == b"x" * 100
    with pytest.raises(StorageError, match=r"record\.json has 100 bytes; at most 99 are read at once"):
        storage.read("record.json", limit=99)


def test_a_download_can_be_checked_against_its_digest(storage: ObjectStorage, tmp_path: Path) -> None:
    storage.create("artifact", b"trained")
    target = tmp_path / "artifact"

    storage.download("artifact", target, hashlib.sha256(b"trained").hexdigest())
    assert target.read_bytes() == b"trained"


def test_a_download_of_something_else_leaves_what_was_there(storage: ObjectStorage, tmp_path: Path) -> None:
    storage.create("artifact", b"tampered with")
    target = tmp_path / "target" / "artifact"
    target.parent.mkdir()
    target.write_bytes(b"before")

    with pytest.raises(
        Corrupt, match=r"artifact is damaged: its SHA-256 is [0-9a-f]{64}, and was [0-9a-f]{64}"
    ) as caught:
        storage.download("artifact", target, hashlib.sha256(b"trained").hexdigest())

    assert not caught.value.worth_retry
    assert target.read_bytes() == b"before"
    assert list(target.parent.iterdir()) == [target]


def test_a_download_that_cannot_be_written_is_no_fault_of_the_storage(storage: ObjectStorage, tmp_path: Path) -> None:
    storage.create("artifact", b"trained")
    with pytest.raises(FileNotFoundError):
        storage.download("artifact", tmp_path / "no such folder" / "artifact")


def test_a_source_that_is_absent_is_no_fault_of_the_storage(storage: ObjectStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.create("artifact", tmp_path / "nothing")
    assert not storage.exists("artifact")


def test_a_listing_has_the_keys_that_begin_with_the_prefix_in_order(storage: ObjectStorage) -> None:
    keys = ["builds/a/1", "builds/a-b/1", "builds/a/2", "builds/ab", "logs/x=1/é ü.gz"]
    for key in keys:
        storage.create(key, b"")

    assert list(storage.list()) == sorted(keys)
    assert list(storage.list("builds/a")) == ["builds/a-b/1", "builds/a/1", "builds/a/2", "builds/ab"]
    assert list(storage.list("builds/a/")) == ["builds/a/1", "builds/a/2"]
    assert list(storage.list("logs/")) == ["logs/x=1/é ü.gz"]
    assert list(storage.list("nothing/")) == []


def test_a_listing_is_not_cut_off_at_a_thousand(storage: ObjectStorage, place: Place) -> None:
    keys = [f"inferences/{number:05}" for number in range(1005)]
    storage.create(keys[0], b"")
    for key in keys[1:]:
        if place.url.startswith("s3:"):  # a thousand requests would take seconds
            s3_backends[ACCOUNT]["aws"].put_object("models", f"some/prefix/{key}", b"")
        else:
            storage.create(key, b"")
    assert list(storage.list("inferences/")) == keys


@pytest.mark.parametrize(
    "key",
    [
        *("", "/etc/passwd", "../up", "a/../../b", "a//b", "a/", "./a", ".hidden", "a/.unfinished"),
        *("a\nb", "a\0b", "a\\b", "x" * 256, "/".join(["x" * 100] * 10), "\ud800", "a\u202eb"),
    ],
)
def test_what_is_no_key_is_refused(storage: ObjectStorage, key: str, tmp_path: Path) -> None:
    for use in (storage.read, storage.exists, lambda key: storage.create(key, b"")):
        with pytest.raises(ValueError, match="is no key"):
            use(key)
    with pytest.raises(ValueError, match="is no key"):
        storage.download(key, tmp_path / "target")


@pytest.mark.parametrize("prefix", ["..", "/", "../", "a/../b", ".unfinished/"])
def test_what_is_no_prefix_is_refused(storage: ObjectStorage, prefix: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        list(storage.list(prefix))


def test_of_many_threads_that_create_one_object_one_does(storage: ObjectStorage) -> None:
    together = threading.Barrier(8)

    def write(writer: int) -> bool:
        together.wait()
        return storage.create("record.json", b"%d" % writer * 1000)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(8)))

    assert sum(outcomes) == 1
    assert storage.read("record.json") == b"%d" % outcomes.index(True) * 1000


_WRITER = """
import sys
from runtime.storage import open_storage
with open_storage(sys.argv[1]) as storage:
    storage.exists("warm")
    print("ready", flush=True)
    sys.stdin.readline()
    print(storage.create("record.json", sys.argv[2].encode() * 1000), flush=True)
"""


def test_of_several_processes_that_create_one_object_one_does(storage: ObjectStorage, place: Place) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, place.url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    outcomes = [writer.communicate(timeout=30)[0].strip() for writer in writers]

    assert sorted(outcomes) == ["False", "False", "True"]
    assert storage.read("record.json") == str(outcomes.index("True")).encode() * 1000


def test_a_big_object_comes_back_as_it_was(storage: ObjectStorage, place: Place, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BIG)

    assert storage.create("environments/big.tar.gz", source)
    assert not storage.create("environments/big.tar.gz", BIG[:-1])

    storage.download("environments/big.tar.gz", target, hashlib.sha256(BIG).hexdigest())
    assert target.stat().st_size == len(BIG)
    assert place.hidden() == []


_KILLED = """
import os, signal, sys, threading
from pathlib import Path
from runtime.storage import open_storage
fifo = Path(sys.argv[2])
with open_storage(sys.argv[1]) as storage:
    storage.exists("warm")
    print("ready", flush=True)
    storage.create("artifact", fifo)
"""


def test_a_writer_that_is_killed_leaves_no_object(tmp_path: Path) -> None:
    root, fifo = tmp_path / "store", tmp_path / "content"
    os.mkfifo(fifo)
    writer = subprocess.Popen([sys.executable, "-c", _KILLED, root.as_uri(), str(fifo)], stdout=subprocess.PIPE)
    with fifo.open("wb", buffering=0) as content, writer:
        # More than what a pipe holds: the writer has read some of it, and waits for the rest.
        content.write(b"x" * 3 * 1024 * 1024)
        writer.send_signal(signal.SIGKILL)
    (left,) = (root / ".unfinished").iterdir()
    assert left.stat().st_size > 0

    storage = FileStorage(root)
    assert list(storage.list()) == []
    assert not storage.exists("artifact")

    # The next writer clears up, and is the first.
    assert storage.create("artifact", b"whole")
    assert list((root / ".unfinished").iterdir()) == []
    assert list(storage.list()) == ["artifact"]


def test_who_is_still_writing_is_not_cleared_away(tmp_path: Path) -> None:
    root, fifo = tmp_path / "store", tmp_path / "content"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(FileStorage(root).create, "slow", fifo)
        with fifo.open("wb", buffering=0) as content:
            content.write(b"x" * 3 * 1024 * 1024)
            assert FileStorage(root).create("fast", b"")
            content.write(b"y")
        assert slow.result(timeout=10)

    assert FileStorage(root).read("slow") == b"x" * 3 * 1024 * 1024 + b"y"


# -- a folder --


def test_a_key_below_another_object_is_refused_by_the_file_system(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.create("a", b"")
    with pytest.raises(StorageError, match="a/b: ") as caught:
        storage.create("a/b", b"")
    assert not caught.value.worth_retry
    assert not storage.exists("a/b")
    with pytest.raises(NotFound):
        storage.read("a/b")


@contextmanager
def _limited(what: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    with (
        _limited(resource.RLIMIT_FSIZE, 100_000),
        pytest.raises(StorageError, match="artifact: File too large") as caught,
    ):
        storage.create("artifact", b"x" * 200_000)
    assert not caught.value.worth_retry
    assert not storage.exists("artifact")
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_what_passes_by_itself_is_worth_another_try(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path)
    storage.create("a", b"content")
    with _limited(resource.RLIMIT_NOFILE, 1):
        for use in (lambda: storage.read("a"), lambda: storage.create("b", b"")):
            with pytest.raises(StorageError, match="Too many open files") as caught:
                use()
            assert caught.value.worth_retry


# -- S3 --


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(s3: ObjectStorage, fault: Door, status: int) -> None:
    fault.inject(answer(status, b"<Error><Code>SlowDown</Code></Error>"), method="PUT")
    assert s3.create("record.json", b"content")
    fault.inject(answer(status, b"<Error><Code>SlowDown</Code></Error>"), method="GET")
    assert s3.read("record.json") == b"content"


def test_a_server_that_stays_broken_is_given_up_and_worth_another_try(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(answer(500, b"<Error><Code>InternalError</Code></Error>"), times=100)
    with pytest.raises(
        StorageError, match=r"s3://models/some/prefix/a: PutObject failed \(500 InternalError\)"
    ) as caught:
        s3.create("a", b"")
    assert caught.value.worth_retry
    assert fault.count("PUT") == 4
    with pytest.raises(StorageError, match="500") as caught:
        s3.exists("a")
    assert caught.value.worth_retry


def test_a_connection_that_breaks_is_opened_again(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(drop(), method="PUT")
    assert s3.create("record.json", b"content")
    fault.inject(drop(), method="HEAD")
    assert s3.exists("record.json")


def test_who_wrote_an_object_learns_it_even_where_the_answer_was_lost(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(lose(), method="PUT")
    assert s3.create("record.json", b"content")
    assert fault.count("PUT") == 2
    assert not s3.create("record.json", b"content")


def test_a_completed_upload_is_known_even_where_the_answer_was_lost(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(lose(), method="POST", path="uploadId=")
    assert s3.create("big", BIG)
    assert not s3.create("big", BIG)


def test_two_uploads_of_one_big_object_are_decided_when_they_are_completed(
    s3: ObjectStorage, fault: Door, aws: Any
) -> None:
    with open_storage("s3://models/some/prefix") as other:
        outcomes: list[bool] = []

        def act(handler: Any, body: bytes) -> None:
            """The other writer is faster: it ends while the first one completes."""
            outcomes.append(other.create("big", BIG[::-1]))
            handler.pass_on(body)

        fault.inject(act, method="POST", path="uploadId=")
        outcomes.append(s3.create("big", BIG))

    assert outcomes == [True, False]
    assert s3.read("big", limit=len(BIG)) == BIG[::-1]
    assert _uploads(aws) == []


def test_an_upload_that_fails_leaves_neither_an_object_nor_parts(s3: ObjectStorage, fault: Door, aws: Any) -> None:
    fault.inject(
        answer(500, b"<Error><Code>InternalError</Code></Error>"), method="PUT", path="partNumber=2", times=100
    )
    with pytest.raises(StorageError, match="UploadPart failed") as caught:
        s3.create("big", BIG)
    assert caught.value.worth_retry
    assert not s3.exists("big")
    assert _uploads(aws) == []


def test_a_writer_of_parts_that_is_killed_leaves_no_object(aws: Any, fault: Door, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    writer: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def kill(handler: Any, body: bytes) -> None:
        started.wait(10)
        writer[0].kill()
        handler.reset()

    fault.inject(kill, method="PUT", path="partNumber=2")
    writer.append(subprocess.Popen([sys.executable, "-c", _KILLED, "s3://models/some/prefix", str(source)], stdout=-1))
    started.set()
    writer[0].communicate(timeout=30)

    with open_storage("s3://models/some/prefix") as storage:
        assert list(storage.list()) == []
        assert _uploads(aws) == ["some/prefix/artifact"]  # which the bucket's lifecycle rule ends
        assert storage.create("artifact", b"whole")


def test_a_conflict_of_writers_is_tried_again(s3: ObjectStorage, fault: Door) -> None:
    conflict = answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
    fault.inject(conflict, method="PUT", times=2)
    assert s3.create("record.json", b"content")

    fault.inject(conflict, method="PUT", times=100)
    with pytest.raises(StorageError, match="others keep writing it") as caught:
        s3.create("other.json", b"content")
    assert caught.value.worth_retry


def test_a_download_that_breaks_off_goes_on_where_it_was(s3: ObjectStorage, fault: Door, tmp_path: Path) -> None:
    s3.create("big", BIG)
    fault.inject(cut(), method="GET")

    s3.download("big", tmp_path / "big", hashlib.sha256(BIG).hexdigest())

    assert fault.count("GET") == 2


def test_a_download_that_keeps_breaking_off_leaves_nothing(s3: ObjectStorage, fault: Door, tmp_path: Path) -> None:
    s3.create("artifact", b"x" * 1000)
    fault.inject(cut(), method="GET", times=100)
    with pytest.raises(StorageError, match=r"artifact: the storage cannot be reached") as caught:
        s3.download("artifact", tmp_path / "artifact")
    assert caught.value.worth_retry
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_not_worth_another_try(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(answer(403, b"<Error><Code>AccessDenied</Code></Error>"), times=100)
    with pytest.raises(StorageError, match=r"the storage refuses PutObject \(AccessDenied\); check the role") as caught:
        s3.create("a", b"")
    assert not caught.value.worth_retry
    assert fault.count("PUT") == 1


def test_credentials_that_have_expired_are_worth_another_try(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(answer(403, b"<Error><Code>ExpiredToken</Code></Error>"), times=100)
    with pytest.raises(StorageError, match="ExpiredToken") as caught:
        s3.read("a")
    assert caught.value.worth_retry


def test_a_store_without_conditional_writes_is_not_used(s3: ObjectStorage, fault: Door) -> None:
    fault.inject(answer(501, b"<Error><Code>NotImplemented</Code></Error>"), method="PUT", times=100)
    with pytest.raises(StorageError, match="does not know conditional writes") as caught:
        s3.create("a", b"")
    assert not caught.value.worth_retry


def test_an_absent_bucket_is_named(aws: Any) -> None:
    with open_storage("s3://no-such-bucket") as storage:
        for use in (lambda: storage.read("a"), lambda: storage.create("a", b""), lambda: list(storage.list())):
            with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'") as caught:
                use()
            assert not isinstance(caught.value, NotFound)


def test_absent_credentials_are_told_with_what_to_do(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with (
        open_storage("s3://models") as storage,
        pytest.raises(StorageError, match="there are no credentials; give the pod a role") as caught,
    ):
        storage.exists("a")
    assert not caught.value.worth_retry


def test_an_address_that_nobody_listens_at_is_worth_another_try_and_shows_no_credentials(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")
    with open_storage("s3://models") as storage, pytest.raises(StorageError, match="cannot be reached") as caught:
        storage.exists("a")
    assert caught.value.worth_retry
    told = json.dumps([str(caught.value), repr(caught.value)])
    assert "hunter2" not in told


def test_connections_are_closed(aws: Any) -> None:
    # An open socket that is collected is a ResourceWarning, and a warning is a failure here.
    with open_storage("s3://models") as storage:
        storage.create("a", b"content")
        with pytest.raises(StorageError, match="at most 1"):
            storage.read("a", limit=1)
        chunks = storage.list()
        next(chunks)
    del storage, chunks
    gc.collect()


# -- URLs --


def test_a_url_names_a_folder_or_a_bucket() -> None:
    folder = open_storage("file:///data/a%20store")
    assert isinstance(folder, FileStorage)
    assert folder.root == Path("/data/a store")
    bucket = open_storage("s3://models/some/prefix/")
    assert isinstance(bucket, S3Storage)
    assert (bucket.bucket, bucket.prefix, bucket.url) == ("models", "some/prefix/", "s3://models/some/prefix")


@pytest.mark.parametrize(
    "url",
    ["", "/data", "file://host/data", "file:data", "s3://", "s3://B", "gs://models", "http://x/y", "s3://models/../x"],
)
def test_another_url_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ValueError, match=r"is no (URL of an object storage|key)"):
        open_storage(url)


@pytest.mark.parametrize("url", ["s3://key:secret@models", "s3://models?endpoint=x", "file:///data#x"])
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="neither credentials nor a query") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)
