"""A GitHub and a GitLab, as far as comments on one pull request go: pages, authors, permissions, and bad days."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-4711"


class Trouble(NamedTuple):
    """What the next request is answered with, if it is one of these. `done`: only the answer is lost."""

    request: str  #: a regular expression of `GET /path`
    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    message: str = "a bad day"
    done: bool = False


@dataclass(slots=True)
class CodeHost:
    """Comments, and what is asked about them. `me` is whose the token is."""

    kind: str  #: "github" or "gitlab"
    me: str
    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    troubles: deque[Trouble] = field(default_factory=deque)
    asked: list[str] = field(default_factory=list)

    def says(self, author: str, body: str) -> None:
        """Somebody writes a comment."""
        number = max((one["id"] for one in self.comments), default=0) + 1
        key = "user" if self.kind == "github" else "author"
        name = "login" if self.kind == "github" else "username"
        self.comments.append({"id": number, key: {name: author}, "body": body})

    @property
    def bodies(self) -> list[str]:
        return [one["body"] for one in self.comments]

    def answer(self, method: str, path: str, query: dict[str, list[str]], content: Any) -> tuple[int, Any]:
        """Status and JSON of a request that nothing is wrong with."""
        if path in ("/graphql", "/api/v4/user"):
            # As gh auth status has it for the token of a job: with the ending.
            return 200, {"data": {"viewer": {"login": self.me}}} if self.kind == "github" else {"username": self.me}
        one = re.fullmatch(r"/repos/o/r/issues/comments/(\d+)|/api/v4/projects/5/merge_requests/7/notes/(\d+)", path)
        if path in ("/repos/o/r/issues/7/comments", "/api/v4/projects/5/merge_requests/7/notes"):
            if method == "GET":
                size, page = min(int(query["per_page"][0]), 100), int(query["page"][0])
                return 200, self.comments[(page - 1) * size : page * size]
            self.says(self.me, content["body"])
            return 201, self.comments[-1]
        if one is None:
            return 404, {"message": "Not Found"}
        found = next(each for each in self.comments if each["id"] == int(one[1] or one[2]))
        if method == "DELETE":
            self.comments.remove(found)
            return 204, None
        assert method == ("PATCH" if self.kind == "github" else "PUT")
        found["body"] = content["body"]
        return 200, found


@contextmanager
def serving(host: CodeHost) -> Iterator[None]:
    """Answers at `host.url`, until the end."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            host.asked.append(f"{self.command} {parts.path}")
            content = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            query = parse_qs(parts.query)
            token = self.headers.get("PRIVATE-TOKEN") or self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token != TOKEN:
                self.say(401, {"message": "Bad credentials"}, {})
            elif host.troubles and re.match(host.troubles[0].request, host.asked[-1]):
                trouble = host.troubles.popleft()
                if trouble.done:
                    host.answer(self.command, parts.path, query, content)
                self.say(trouble.status, {"message": trouble.message}, trouble.headers)
            else:
                self.say(*host.answer(self.command, parts.path, query, content), {})

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names that http.server looks for

        def say(self, status: int, content: Any, headers: Mapping[str, str]) -> None:
            said = b"" if content is None else json.dumps(content).encode()
            self.send_response_only(status)  # without today's date
            for name, value in {**headers, "Content-Length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
