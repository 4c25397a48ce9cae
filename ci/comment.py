"""Keeps one comment on a pull request up to date. For `action.yml`, and the job of GitLab.

Standard library only. The comment is found by its first line and its author, so that nobody can have another one
overwritten by writing the same line; and it is written in place, so that a pull request of twenty commits has one. One
that cannot be written fails nothing: the plan is in the log and in the job's summary as well, and that is said.

    TRUEUP_COMMENT         "false": none
    TRUEUP_COMMENT_KEY     tells the comments of several jobs of one pull request apart
    TRUEUP_OUT             the folder with plan.md and plan.json
    TRUEUP_TOKEN           GitHub: of the job, or of an app. GitLab: of the project, with the scope `api`; a job's own
                           token may not write notes

What else it needs is what the CI system itself tells a job (GITHUB_..., CI_...).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

#: As `reconcile -o markdown` begins.
MARKER = "<!-- trueup:plan -->"
#: Attempts, the longest wait between two of them, and for an answer, in seconds.
ATTEMPTS, PATIENCE, ANSWER = 5, 60.0, 20.0
#: Comments on a page, which is the most that both systems give, and pages.
PAGE, PAGES = 100, 200


class RefusedError(Exception):
    """It will not work, however often it is tried: a sentence. `status` is that of HTTP, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class BusyError(Exception):
    """It may work later: after so many seconds, if the server has said."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Comment(NamedTuple):
    """A comment on the pull request."""

    id: int
    author: str
    body: str


class Host(Protocol):
    """A pull request, and the account that writes on it."""

    def me(self) -> str: ...
    def comments(self) -> Iterator[Comment]: ...
    def create(self, body: str) -> None: ...
    def update(self, comment: Comment, body: str) -> None: ...
    def delete(self, comment: Comment) -> None: ...


def main(here: Mapping[str, str] = os.environ, sleep: Callable[[float], None] = time.sleep) -> int:
    """Writes the comment, or says why not."""
    if here.get("TRUEUP_COMMENT", "true") == "false":
        return 0
    page, plan = (Path(here["TRUEUP_OUT"], name) for name in ("plan.md", "plan.json"))
    if not page.is_file():
        tell(here, "notice", "there is no plan to comment on")
        return 0
    try:
        host = host_of(here)
        if host is None:
            tell(here, "notice", "this run is of no pull request, so there is nothing to comment on")
            return 0
        marker = marker_of(here.get("TRUEUP_COMMENT_KEY", ""))
        body = body_of(page.read_text(encoding="utf-8"), marker, origin_of(here))
        is_news = has_news(json.loads(plan.read_text(encoding="utf-8")))
        # All of it is tried again: an answer that was lost may be that of a comment that was written.
        done = patiently(lambda: publish(host, marker, body, create=is_news), sleep)
    except RefusedError as error:
        why = f"the plan is not commented: {error}"
        if error.status in (401, 403, 404):
            why += (
                ". The token may not write here, which is so for pull requests from forks; otherwise, the job needs"
                " the permission pull-requests: write (GitLab: TRUEUP_TOKEN, of the scope api)"
            )
        tell(here, "notice" if error.status == 403 else "warning", f"{why}. The plan is in the log and the summary")
        return 0
    sys.stdout.write(f"Trueup: {done}\n")
    return 0


def publish(host: Host, marker: str, body: str, *, create: bool) -> str:
    """One comment of this marker, and what was done for it. `create`: also where there is none yet."""
    me = host.me()
    # GitHub's two APIs disagree on whether the name of an app ends so.
    names = (me, f"{me}[bot]")
    mine = [one for one in host.comments() if one.author in names and one.body.startswith(marker)]
    for duplicate in mine[1:]:  # of two jobs that began at once
        host.delete(duplicate)
    if mine:
        host.update(mine[0], body)
        return "the comment is up to date"
    if not create:
        return "nothing changes, and there is no comment that says otherwise"
    host.create(body)
    return "the comment is written"


Answer = TypeVar("Answer")


def patiently(task: Callable[[], Answer], sleep: Callable[[float], None]) -> Answer:
    """What it returns, in the end. Raises RefusedError once it is not worth waiting for."""
    for attempt in count(1):
        try:
            return task()
        except BusyError as busy:
            wait = 2.0**attempt if busy.after is None else busy.after
            if attempt == ATTEMPTS or wait > PATIENCE:
                asks = f", and asks for {wait:.0f} s of patience" if wait > PATIENCE else ""
                raise RefusedError(f"{busy} (tried {attempt} times{asks})") from None
            sleep(wait)
    raise AssertionError("counts for ever")


# -- what it says ---------------------------------------------------------------------------------------------------


def marker_of(key: str) -> str:
    """The first line."""
    if not re.fullmatch(r"[A-Za-z0-9._/-]{0,60}", key) or "--" in key:
        raise RefusedError("a comment's key has letters, digits, dots, slashes and single hyphens, 60 at most")
    return MARKER.replace(" -->", f" {key} -->") if key else MARKER


def body_of(page: str, marker: str, origin: str) -> str:
    """The comment. Its last line says of which commit it is: one that could not be renewed must not look new."""
    first, _, rest = page.partition("\n")
    if first != MARKER:
        raise RefusedError(f"plan.md does not begin with {MARKER}")
    # GitLab obeys a line that begins with a slash, in whoever's name it is written.
    rest = re.sub(r"^([ \t]*)/", r"\1\\/", rest, flags=re.MULTILINE)
    return f"{marker}\n{rest.rstrip()}\n\n<sub>{origin}</sub>\n"


def origin_of(here: Mapping[str, str]) -> str:
    """`Of 1a2b3c4d, by this job`, with links."""
    if here.get("GITHUB_ACTIONS") == "true":
        commit = str(event_of(here).get("pull_request", {}).get("head", {}).get("sha") or here["GITHUB_SHA"])
        job = f"{here['GITHUB_SERVER_URL']}/{here['GITHUB_REPOSITORY']}/actions/runs/{here['GITHUB_RUN_ID']}"
    else:
        commit, job = here["CI_COMMIT_SHA"], here["CI_JOB_URL"]
    return f"Of {commit[:12]}, by [this job]({job})."


def has_news(plan: Mapping[str, Any]) -> bool:
    """Whether a reviewer should see it. What concerns no spec gets no comment."""
    body = plan.get("plan") or {}
    counts = body.get("summary", {})
    changes = any(number for op, number in counts.items() if op != "unchanged")
    return bool(changes or body.get("guards") or any(plan.get(key) for key in ("problems", "effects", "trouble")))


def tell(here: Mapping[str, str], kind: str, message: str) -> None:
    """A line in the log, which GitHub shows on the page of the run."""
    line = " ".join(message.split())
    if here.get("GITHUB_ACTIONS") == "true":
        sys.stdout.write(f"::{kind} title=Trueup::{line.replace('%', '%25')}\n")
    else:
        sys.stdout.write(f"Trueup: {line}\n")


# -- where it is said -----------------------------------------------------------------------------------------------


def host_of(here: Mapping[str, str]) -> Host | None:
    """The pull request that this job is of, if it is of one."""
    is_github = here.get("GITHUB_ACTIONS") == "true"
    number = event_of(here).get("pull_request", {}).get("number") if is_github else here.get("CI_MERGE_REQUEST_IID")
    token = here.get("TRUEUP_TOKEN")
    if not number:
        return None
    if not token:
        raise RefusedError("there is no token", status=403)
    if is_github:
        return GitHub(here["GITHUB_API_URL"], here["GITHUB_GRAPHQL_URL"], here["GITHUB_REPOSITORY"], int(number), token)
    return GitLab(here["CI_API_V4_URL"], here["CI_MERGE_REQUEST_PROJECT_ID"], str(number), token)


def event_of(here: Mapping[str, str]) -> dict[str, Any]:
    """What GitHub says of the event that started the job."""
    event = json.loads(Path(here["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    return event if isinstance(event, dict) else {}


class GitHub:
    """A pull request on GitHub, as https://docs.github.com/rest/issues/comments has it."""

    def __init__(self, api: str, graphql: str, repository: str, number: int, token: str) -> None:
        self._api, self._graphql = f"{api}/repos/{repository}/issues", graphql
        self._number, self._headers = number, {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }  # fmt: skip

    def me(self) -> str:
        # GET /user is refused to the token of a job; this is not.
        answer = self._ask("POST", self._graphql, {"query": "{viewer{login}}"})
        try:
            return str(answer["data"]["viewer"]["login"])
        except (KeyError, TypeError):
            raise RefusedError("GitHub does not say whose token it is", status=403) from None

    def comments(self) -> Iterator[Comment]:
        for one in pages(lambda query: self._ask("GET", f"{self._api}/{self._number}/comments?{query}")):
            # Of an account that is gone, there is no user.
            yield Comment(int(one["id"]), str((one.get("user") or {}).get("login")), str(one.get("body")))

    def create(self, body: str) -> None:
        self._ask("POST", f"{self._api}/{self._number}/comments", {"body": body})

    def update(self, comment: Comment, body: str) -> None:
        self._ask("PATCH", f"{self._api}/comments/{comment.id}", {"body": body})

    def delete(self, comment: Comment) -> None:
        self._ask("DELETE", f"{self._api}/comments/{comment.id}")

    def _ask(self, method: str, url: str, payload: Mapping[str, str] | None = None) -> Any:
        return ask(method, url, self._headers, payload)


class GitLab:
    """A merge request on GitLab, as https://docs.gitlab.com/api/notes has it."""

    def __init__(self, api: str, project: str, number: str, token: str) -> None:
        self._api = api
        self._notes = f"{api}/projects/{quote(project, safe='')}/merge_requests/{quote(number, safe='')}/notes"
        self._headers = {"PRIVATE-TOKEN": token}

    def me(self) -> str:
        return str(ask("GET", f"{self._api}/user", self._headers)["username"])

    def comments(self) -> Iterator[Comment]:
        order = "sort=asc&order_by=created_at"
        for one in pages(lambda query: ask("GET", f"{self._notes}?{order}&{query}", self._headers)):
            yield Comment(int(one["id"]), str(one["author"]["username"]), str(one["body"]))

    def create(self, body: str) -> None:
        ask("POST", self._notes, self._headers, {"body": body})

    def update(self, comment: Comment, body: str) -> None:
        ask("PUT", f"{self._notes}/{comment.id}", self._headers, {"body": body})

    def delete(self, comment: Comment) -> None:
        ask("DELETE", f"{self._notes}/{comment.id}", self._headers)


# -- HTTP -----------------------------------------------------------------------------------------------------------


def pages(get: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    """All of a list. The number of a page is counted here: an address from an answer would be sent the token."""
    for number in range(1, PAGES + 1):
        found = get(f"per_page={PAGE}&page={number}")
        if not isinstance(found, list):
            raise RefusedError("the server's answer is no list of comments")
        yield from found
        if len(found) < PAGE:
            return
    raise RefusedError(f"there are more than {PAGE * PAGES} comments")


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would be sent the token."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def ask(method: str, url: str, headers: Mapping[str, str], payload: Mapping[str, str] | None = None) -> Any:
    """The JSON of an answer; None if it is empty. Raises RefusedError, BusyError."""
    if not url.startswith(("https://", "http://")):
        raise RefusedError("the address of the API is not one of HTTP")
    content = None if payload is None else json.dumps(payload).encode()
    sent = {**headers, "Content-Type": "application/json", "User-Agent": "trueup"}
    request = urllib.request.Request(url, content, sent, method=method)  # noqa: S310 - the scheme is looked at above
    try:
        with _OPENER.open(request, timeout=ANSWER) as answer:
            said = answer.read()
        return json.loads(said) if said else None
    except urllib.error.HTTPError as error:
        with error:
            raise refusal(error.code, error.headers, error.read(10_000)) from None
    except (OSError, http.client.HTTPException) as error:  # OSError: TimeoutError and URLError are such
        raise BusyError(f"the server did not answer ({type(error).__name__})") from None
    except ValueError:
        raise BusyError("the server's answer is not JSON") from None


def refusal(status: int, headers: Message, said: bytes) -> RefusedError | BusyError:
    """What a status means. GitHub answers 403 as well where a limit is reached, and says so in a header."""
    try:
        message = json.loads(said).get("message", "")
    except (ValueError, AttributeError):
        message = ""
    text = f"the server answered {status} {' '.join(str(message).split())[:200]}".rstrip()
    is_limit = status == 429 or (status == 403 and (headers.get("Retry-After") or _remaining(headers) == "0"))
    return BusyError(text, _after(headers)) if is_limit or status >= 500 else RefusedError(text, status)


def _remaining(headers: Message) -> str | None:
    return headers.get("X-RateLimit-Remaining") or headers.get("RateLimit-Remaining")


def _after(headers: Message) -> float | None:
    """Seconds to wait, by the clock of the server."""
    try:
        if given := headers.get("Retry-After"):
            return max(0.0, float(given))
        reset = headers.get("X-RateLimit-Reset") or headers.get("RateLimit-Reset")
        if reset and _remaining(headers) == "0":
            return max(0.0, float(reset) - parsedate_to_datetime(headers["Date"]).timestamp())
    except (ValueError, TypeError):
        pass  # a date, or no number: then as if nothing were said
    return None


if __name__ == "__main__":
    sys.exit(main())
