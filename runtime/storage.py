"""Object storage: a folder (`file:///...`) or a bucket (`s3://bucket/prefix`).

Every object is immutable: it is created whole or not at all, by one of those who try, and never written again.

Credentials of S3 come from where boto3 looks for them (a role, the environment), its address from AWS_ENDPOINT_URL
where it is not Amazon's. The store must know conditional writes (`If-None-Match: *` on PutObject and on
CompleteMultipartUpload). A bucket should have a lifecycle rule that ends incomplete uploads: a writer that was killed
cannot end its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib
import os
import re
import secrets
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import unquote, urlsplit

MIB = 1024 * 1024
_CHUNK = MIB


class StorageError(Exception):
    """The storage did not do it: a sentence without credentials. `worth_retry`: another try may fare better."""

    def __init__(self, sentence: str, *, worth_retry: bool) -> None:
        super().__init__(sentence)
        self.worth_retry = worth_retry


class NotFound(StorageError):  # noqa: N818 - what it is
    """There is no such object."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, worth_retry=False)


class Corrupt(StorageError):  # noqa: N818 - what it is
    """The content of an object is not what it was when its digest was taken."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, worth_retry=False)


def open_storage(url: str) -> ObjectStorage:
    """The storage at a URL: `file:///folder` or `s3://bucket/prefix`. Nothing is asked of it yet. Raises ValueError."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(
            "the URL of an object storage has neither credentials nor a query: file:///folder, s3://bucket/prefix"
        )
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FileStorage(Path(unquote(parts.path)))
    if parts.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc):
        prefix = unquote(parts.path).strip("/")
        return S3Storage(parts.netloc, _checked(prefix) if prefix else "")
    raise ValueError(f"{url!r} is no URL of an object storage: write file:///folder or s3://bucket/prefix")


class ObjectStorage(ABC):
    """Objects by key. Keys are relative paths with `/`; a part of one never begins with a dot.

    Every method raises ValueError for a key that is none, and StorageError where the storage fails. Used by several
    threads at once. A context manager, which closes its connections.
    """

    url: str  #: without credentials

    @abstractmethod
    def create(self, key: str, content: Path | bytes) -> bool:
        """Create an object from a file or bytes. False: there is one already, which stays as it is."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with the prefix, sorted."""

    @abstractmethod
    def _open(self, key: str) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Its size in bytes, and its content. Raises NotFound."""

    def read(self, key: str, limit: int = 16 * MIB) -> bytes:
        """The content of a small object. Raises NotFound; StorageError where it has more bytes than the limit."""
        with self._open(_checked(key)) as (size, chunks):
            if size > limit:
                sentence = f"{self._name(key)} has {size} bytes; at most {limit} are read at once"
                raise StorageError(sentence, worth_retry=False)
            content = b"".join(chunks)
        self._check_size(key, size, len(content))
        return content

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Write an object to a file, whole or not at all; with `sha256` (hex) only if that is its digest.

        Raises NotFound, and Corrupt where the digest is another one.
        """
        digest = hashlib.sha256()
        partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            with self._open(_checked(key)) as (size, chunks), partial.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                self._check_size(key, size, file.tell())
            if sha256 is not None and digest.hexdigest() != sha256:
                raise Corrupt(f"{self._name(key)} is damaged: its SHA-256 is {digest.hexdigest()}, and was {sha256}")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _check_size(self, key: str, size: int, received: int) -> None:
        if received != size:
            raise StorageError(f"{self._name(key)} has {size} bytes, and {received} came", worth_retry=True)

    def _name(self, key: str) -> str:
        return f"{self.url}/{key}"

    def close(self) -> None:  # noqa: B027 - a folder has nothing to close
        """Close connections. The storage can be used again, and opens new ones."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- a folder --

#: The folder of what is being written. Its name is no key, so that no listing has it.
_UNFINISHED = ".unfinished"

#: Another node, or another moment, may fare better.
_PASSING = {
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EBUSY,
    errno.EMFILE,
    errno.ENFILE,
}


class FileStorage(ObjectStorage):
    """A folder, which is made when the first object is. Objects are files of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()
        self._swept = False

    def create(self, key: str, content: Path | bytes) -> bool:
        target = self.root / _checked(key)
        with _stream(content) as (stream, _), self._writing(key):
            if target.exists():
                return False
            unfinished = self.root / _UNFINISHED
            unfinished.mkdir(parents=True, exist_ok=True)
            self._sweep(unfinished)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _unfinished_file(unfinished) as file:
                shutil.copyfileobj(stream, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
                try:
                    os.link(file.name, target)  # fails where there is one already, unlike rename
                except FileExistsError:
                    return False
            _sync_folder(target.parent)
        return True

    def exists(self, key: str) -> bool:
        with self._reading(key):
            return (self.root / _checked(key)).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        folder = self.root / _checked_prefix(prefix).rpartition("/")[0]
        with self._reading(prefix):
            yield from sorted(key for key in self._below(folder) if key.startswith(prefix))

    def _below(self, folder: Path) -> Iterator[str]:
        for place, folders, files in os.walk(folder, onerror=_raise_unless_absent):
            folders[:] = [name for name in folders if not name.startswith(".")]
            within = Path(place).relative_to(self.root)
            yield from ((within / name).as_posix() for name in files if not name.startswith("."))

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        with self._reading(key):
            file = (self.root / key).open("rb")
        with file:
            yield os.fstat(file.fileno()).st_size, self._chunks(key, file)

    def _chunks(self, key: str, file: BinaryIO) -> Iterator[bytes]:
        with self._reading(key):
            yield from iter(lambda: file.read(_CHUNK), b"")

    def _sweep(self, unfinished: Path) -> None:
        """Remove what writers left that died: nobody holds its lock."""
        if self._swept:
            return
        self._swept = True
        for path in unfinished.iterdir():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"there is no {self._name(key)}") from error
        except OSError as error:
            raise self._failed(key, error) from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(key, error) from error

    def _failed(self, key: str, error: OSError) -> StorageError:
        return StorageError(f"{self._name(key)}: {error.strerror or error}", worth_retry=error.errno in _PASSING)


@contextmanager
def _unfinished_file(folder: Path) -> Iterator[BinaryIO]:
    """A new file that exists as long as this lasts, and is locked by it."""
    while True:
        path = folder / secrets.token_hex(16)
        with path.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:
                continue  # Swept away before it was locked.
            try:
                yield file
            finally:
                path.unlink(missing_ok=True)
            return


def _sync_folder(folder: Path) -> None:
    """A new name survives a power cut only once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


# -- a bucket --

#: What is larger is sent in parts, so that a broken connection costs one part. S3 takes 10,000 parts of 5 MiB to 5 GiB.
_PART = 16 * MIB
_PARTS = 10_000

#: Of the pauses before another try, in seconds; boto3 has tries of its own below these.
_PAUSES = (0.2, 0.5, 1.0)

#: Says who wrote an object: the answer to a write may be lost, and the next try finds what the first one wrote.
_WRITER = "trueup-writer"


class S3Storage(ObjectStorage):
    """A bucket, below a prefix."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._lock = threading.Lock()
        self._opened: Any = None

    def create(self, key: str, content: Path | bytes) -> bool:
        place = self._place(_checked(key))
        with _stream(content) as (stream, size):
            if size > _PART and self.exists(key):
                return False
            send = self._send if size <= _PART else self._send_in_parts
            writer = secrets.token_hex(16)
            for pause in (*_PAUSES, None):
                stream.seek(0)
                with self._told(key):
                    written = self._outcome(lambda: send(place, stream, size, writer))
                if written is _Written.NEW:
                    return True
                if written is _Written.BEFORE:
                    return self._writer(key) == writer
                if pause is not None:
                    time.sleep(pause)
        raise StorageError(f"{self._name(key)}: others keep writing it at the same time", worth_retry=True)

    def _outcome(self, send: Callable[[], None]) -> _Written:
        try:
            send()
        except self._errors.ClientError as error:
            # Where the answer to an upload's completion was lost, the next try finds no such upload.
            if _status(error) == 412 or _code(error) == "NoSuchUpload":
                return _Written.BEFORE
            # "If a conflicting operation occurs during the upload S3 returns a 409 ConditionalRequestConflict": retry.
            if _status(error) == 409:
                return _Written.CONFLICT
            raise
        return _Written.NEW

    def _send(self, place: dict[str, str], stream: BinaryIO, size: int, writer: str) -> None:
        self._client.put_object(**place, Body=stream, ContentLength=size, IfNoneMatch="*", Metadata={_WRITER: writer})

    def _send_in_parts(self, place: dict[str, str], stream: BinaryIO, size: int, writer: str) -> None:
        created = self._client.create_multipart_upload(**place, Metadata={_WRITER: writer})
        upload = {**place, "UploadId": created["UploadId"]}
        length = max(_PART, -(-size // _PARTS))
        chunks = enumerate(iter(lambda: stream.read(length), b""), start=1)
        try:
            parts = [
                {
                    "PartNumber": number,
                    "ETag": self._client.upload_part(**upload, PartNumber=number, Body=chunk)["ETag"],
                }
                for number, chunk in chunks
            ]
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except BaseException:
            # Parts cost money until they are gone. Where this fails too, the bucket's lifecycle rule is left.
            with suppress(self._errors.BotoCoreError, self._errors.ClientError):
                self._client.abort_multipart_upload(**upload)
            raise

    def _writer(self, key: str) -> str | None:
        """Who wrote an object that exists."""
        with self._told(key):
            metadata: dict[str, str] = self._client.head_object(**self._place(key))["Metadata"]
        return metadata.get(_WRITER)

    def exists(self, key: str) -> bool:
        try:
            with self._told(key):
                self._client.head_object(**self._place(_checked(key)))
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        start = self.prefix + _checked_prefix(prefix)
        with self._told(prefix):
            pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start))
        while True:
            with self._told(prefix):
                page = next(pages, None)
            if page is None:
                return
            yield from (found["Key"].removeprefix(self.prefix) for found in page.get("Contents", ()))

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        with self._told(key):
            response = self._client.get_object(**self._place(key))
        with closing(response["Body"]), closing(self._chunks(key, response)) as chunks:
            yield response["ContentLength"], chunks

    def _chunks(self, key: str, response: Any) -> Generator[bytes]:
        """The content; where the connection breaks, the rest of it is asked for."""
        size, etag, received = response["ContentLength"], response["ETag"], 0
        for pause in (*_PAUSES, None):
            try:
                with self._told(key), closing(response["Body"]) as body:
                    while chunk := body.read(_CHUNK):
                        received += len(chunk)
                        yield chunk
            except StorageError as error:
                if not error.worth_retry or pause is None:
                    raise
                time.sleep(pause)
            if received == size:
                return
            rest = f"bytes={received}-{size - 1}"
            with self._told(key):
                response = self._client.get_object(**self._place(key), Range=rest, IfMatch=etag)

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    @property
    def _errors(self) -> Any:
        return _module("botocore.exceptions")

    @property
    def _client(self) -> Any:
        """Made when it is first used: importing boto3 takes a third of a second."""
        with self._lock:
            if self._opened is None:
                self._opened = _s3_client()
            return self._opened

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Errors of boto3 as ours. Its own texts may have the endpoint with credentials, so they are left out."""
        name, errors = self._name(key) if key else self.url, self._errors
        try:
            yield
        except errors.ClientError as error:
            raise _refusal(name, self.bucket, error) from error
        except (errors.ConnectionError, errors.HTTPClientError) as error:
            reason = f"the storage cannot be reached ({type(error).__name__})"
            raise StorageError(f"{name}: {reason}", worth_retry=True) from None
        except (errors.NoCredentialsError, errors.PartialCredentialsError):
            hint = "give the pod a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise StorageError(f"{name}: there are no credentials; {hint}", worth_retry=False) from None
        except errors.CredentialRetrievalError as error:
            raise StorageError(f"{name}: credentials cannot be had ({error.provider})", worth_retry=True) from None
        except (errors.BotoCoreError, _module("botocore.parsers").ResponseParserError) as error:
            raise StorageError(f"{name}: {type(error).__name__}", worth_retry=False) from None

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None


class _Written(Enum):
    NEW = "written"
    BEFORE = "there is one already"
    CONFLICT = "somebody is writing it"


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise StorageError("s3:// needs boto3, which is not installed: pip install boto3", worth_retry=False) from error


def _s3_client() -> Any:
    config = _module("botocore.config").Config
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # What is not Amazon's knows buckets by path, and not all of it the newer checksums.
    other = (
        {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        if endpoint
        else {}
    )
    settings = config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        s3={"addressing_style": "path" if endpoint else "auto"},
        **other,
    )
    try:
        return _module("boto3.session").Session().client("s3", config=settings)
    except ValueError:
        raise StorageError("AWS_ENDPOINT_URL is no URL: write http://host:port", worth_retry=False) from None


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


#: Refusals that pass by themselves, besides those of the statuses 429 and 5xx.
_PASSING_CODES = {"ExpiredToken", "RequestTimeout", "SlowDown", "Throttling", "InternalError", "ServiceUnavailable"}


def _refusal(name: str, bucket: str, error: Any) -> StorageError:
    status, code = _status(error), _code(error)
    if code == "NoSuchBucket":
        return StorageError(f"{name}: there is no bucket {bucket!r}", worth_retry=False)
    if status == 404:
        return NotFound(f"there is no {name}")
    if status == 501:
        return StorageError(f"{name}: the storage does not know conditional writes ({code})", worth_retry=False)
    if status in (401, 403):
        hint = "check the role and its policy (a missing object is refused, too, without s3:ListBucket)"
        return StorageError(
            f"{name}: the storage refuses {error.operation_name} ({code}); {hint}", worth_retry=code in _PASSING_CODES
        )
    passing = status == 429 or status >= 500 or code in _PASSING_CODES
    return StorageError(f"{name}: {error.operation_name} failed ({status} {code})", worth_retry=passing)


# -- what both need --


def _checked(key: str) -> str:
    """The key, as every kind of storage takes it."""
    parts = key.split("/")
    if any(not part or part.startswith(".") or len(part.encode(errors="replace")) > 255 for part in parts):
        raise ValueError(
            f"{key!r} is no key: write parts of 1 to 255 bytes, none of which begins with a dot, joined by /"
        )
    if not key.isprintable() or "\\" in key or len(key.encode()) > 900:
        raise ValueError(f"{key!r} is no key: write at most 900 bytes of printable text without a backslash")
    return key


def _checked_prefix(prefix: str) -> str:
    """A prefix may end within a part, or at the end of one."""
    if prefix:
        _checked(prefix.removesuffix("/"))
    return prefix


@contextmanager
def _stream(content: Path | bytes) -> Iterator[tuple[BinaryIO, int]]:
    """The content, and its size in bytes."""
    if isinstance(content, bytes):
        yield BytesIO(content), len(content)
        return
    with content.open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size
