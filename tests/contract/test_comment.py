"""`ci/comment.py` against a GitHub and a GitLab: one comment on a pull request, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from ci import comment
from ci.comment import MARKER
from reconciler.report import markdown
from tests.contract.code_hosts import TOKEN, CodeHost, Trouble, serving

NEWS = {"plan": {"summary": {"create": 1, "unchanged": 3}}}
READS, WRITES, ANY = r"GET .*/(comments|notes)", r"POST .*/(comments|notes)", ""
NO_NEWS = {"plan": {"summary": {"create": 0, "unchanged": 3}, "guards": []}, "problems": [], "effects": []}


@pytest.fixture(params=["github", "gitlab"])
def host(request: pytest.FixtureRequest) -> Iterator[CodeHost]:
    made = CodeHost(request.param, "github-actions[bot]" if request.param == "github" else "project_5_bot")
    with serving(made):
        yield made


class Job:
    """A job of the pull request, and what it has waited for."""

    def __init__(self, host: CodeHost, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.waits = folder, capsys, list[float]()
        event = {"pull_request": {"number": 7, "head": {"sha": "feedc0ffee" * 4}}}
        (folder / "event.json").write_text(json.dumps(event))
        self.here = {"TRUEUP_OUT": str(folder), "TRUEUP_TOKEN": TOKEN}
        if host.kind == "github":
            self.here |= {
                "GITHUB_ACTIONS": "true",
                "GITHUB_API_URL": host.url,
                "GITHUB_GRAPHQL_URL": f"{host.url}/graphql",
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_REPOSITORY": "o/r",
                "GITHUB_RUN_ID": "99",
                "GITHUB_SHA": "merge",
                "GITHUB_EVENT_NAME": "pull_request",
                "GITHUB_EVENT_PATH": str(folder / "event.json"),
            }
        else:
            self.here |= {
                "CI_API_V4_URL": f"{host.url}/api/v4",
                "CI_MERGE_REQUEST_PROJECT_ID": "5",
                "CI_MERGE_REQUEST_IID": "7",
                "CI_COMMIT_SHA": "feedc0ffee" * 4,
                "CI_JOB_URL": "https://gitlab.com/o/r/-/jobs/99",
            }

    def comments(self, page: str, plan: Any = NEWS, **more: str) -> str:
        """Runs the step, and returns its log."""
        (self.folder / "plan.md").write_text(f"{MARKER}\n{page}\n")
        (self.folder / "plan.json").write_text(json.dumps(plan))
        assert comment.main(self.here | more, self.waits.append) == 0
        log = self.capsys.readouterr().out
        assert TOKEN not in log
        return log


@pytest.fixture
def job(host: CodeHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Job:
    return Job(host, tmp_path, capsys)


def test_the_marker_is_the_one_that_a_report_begins_with() -> None:
    assert MARKER == markdown.MARKER


def test_there_is_one_comment_and_each_run_renews_it(host: CodeHost, job: Job) -> None:
    assert "the comment is written" in job.comments("first")
    assert "the comment is up to date" in job.comments("second")
    (body,) = host.bodies
    assert body.startswith(f"{MARKER}\nsecond\n\n<sub>Of feedc0ffeefe, by [this job](https://")


def test_a_comment_with_the_same_first_line_by_somebody_else_is_left_alone(host: CodeHost, job: Job) -> None:
    host.says("mallory", f"{MARKER}\nmine")
    job.comments("plan")
    job.comments("plan again")
    assert host.bodies[0] == f"{MARKER}\nmine"
    assert len(host.bodies) == 2


def test_it_is_found_among_hundreds_of_others(host: CodeHost, job: Job) -> None:
    for number in range(230):
        host.says("ann", f"remark {number}")
    job.comments("first")
    for number in range(40):
        host.says("bob", f"answer {number}")
    job.comments("second")
    assert [body for body in host.bodies if MARKER in body] == [host.bodies[230]]
    assert "second" in host.bodies[230]


def test_exactly_one_full_page_is_followed_by_an_empty_one(host: CodeHost, job: Job) -> None:
    for number in range(100):
        host.says("ann", f"remark {number}")
    job.comments("plan")
    assert len(host.bodies) == 101


def test_what_changes_nothing_gets_no_comment_but_renews_one_that_says_otherwise(host: CodeHost, job: Job) -> None:
    job.comments("nothing changes", NO_NEWS)
    assert host.bodies == []
    job.comments("a change")
    job.comments("nothing changes", NO_NEWS)
    assert "nothing changes" in host.bodies[0]


def test_two_that_were_written_at_once_become_one(host: CodeHost, job: Job) -> None:
    host.says(host.me, f"{MARKER}\none")
    host.says(host.me, f"{MARKER}\ntwo")
    job.comments("three")
    (body,) = host.bodies
    assert "three" in body


def test_jobs_with_keys_of_their_own_have_comments_of_their_own(host: CodeHost, job: Job) -> None:
    for key in ("", "fraud", "churn", "fraud"):
        job.comments(f"plan of {key}", TRUEUP_COMMENT_KEY=key)
    firsts = [body.splitlines()[0] for body in host.bodies]
    assert firsts == [MARKER, "<!-- trueup:plan fraud -->", "<!-- trueup:plan churn -->"]
    assert "a comment's key has letters" in job.comments("plan", TRUEUP_COMMENT_KEY="--> <b>")


def test_a_token_that_may_not_write_fails_nothing_and_is_said(host: CodeHost, job: Job) -> None:
    """As in a pull request from a fork."""
    host.troubles.append(Trouble(WRITES, 403, message="Resource not accessible by integration"))
    log = job.comments("plan")
    assert "403 Resource not accessible by integration" in log
    assert "pull requests from forks" in log
    assert "The plan is in the log and the summary" in log
    assert host.bodies == []
    assert job.waits == []


def test_no_token_at_all_is_said(host: CodeHost, job: Job) -> None:
    assert "there is no token" in job.comments("plan", TRUEUP_TOKEN="")
    assert "401" in job.comments("plan", TRUEUP_TOKEN="expired")
    assert host.bodies == []


def test_a_server_that_is_down_for_a_moment_is_asked_again(host: CodeHost, job: Job) -> None:
    host.troubles += [Trouble(READS, 502), Trouble(READS, 503), Trouble(READS, 500)]
    assert "the comment is written" in job.comments("plan")
    assert job.waits == [2.0, 4.0, 8.0]


def test_a_comment_that_was_written_though_the_answer_was_lost_is_not_written_twice(host: CodeHost, job: Job) -> None:
    host.troubles.append(Trouble(WRITES, 502, done=True))
    assert "the comment is up to date" in job.comments("plan")
    assert len(host.bodies) == 1


def test_a_server_that_stays_down_is_given_up_and_fails_nothing(host: CodeHost, job: Job) -> None:
    host.troubles += [Trouble(ANY, 503)] * 9
    log = job.comments("plan")
    assert "503 a bad day (tried 5 times)" in log
    assert job.waits == [2.0, 4.0, 8.0, 16.0]


def test_nobody_listens(job: Job) -> None:
    away = {name: value.replace("127.0.0.1:", "127.0.0.1:1#") for name, value in job.here.items() if "URL" in name}
    assert "did not answer" in job.comments("plan", **away)
    assert len(job.waits) == comment.ATTEMPTS - 1


def test_a_limit_is_waited_for_as_long_as_the_server_says(host: CodeHost, job: Job) -> None:
    now = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    used_up = {"Date": format_datetime(now, usegmt=True), "x-ratelimit-remaining": "0"}
    host.troubles += [
        Trouble(READS, 429, {"Retry-After": "7"}),
        Trouble(READS, 403, {"retry-after": "3"}),  # GitHub's secondary limit
        Trouble(READS, 403, used_up | {"x-ratelimit-reset": str(int(now.timestamp()) + 30)}),
    ]
    assert "the comment is written" in job.comments("plan")
    assert job.waits == [7.0, 3.0, 30.0]


def test_a_limit_of_an_hour_is_not_waited_for(host: CodeHost, job: Job) -> None:
    host.troubles.append(Trouble(READS, 429, {"Retry-After": "3600"}))
    assert "asks for 3600 s of patience" in job.comments("plan")
    assert job.waits == []


def test_a_redirect_does_not_get_the_token(host: CodeHost, job: Job) -> None:
    with serving(elsewhere := CodeHost(host.kind, host.me)):
        host.troubles.append(Trouble(ANY, 302, {"Location": f"{elsewhere.url}/graphql"}))
        assert "the server answered 302" in job.comments("plan")
        assert elsewhere.asked == []


def test_a_run_that_is_of_no_pull_request_says_so(host: CodeHost, job: Job) -> None:
    (job.folder / "event.json").write_text('{"ref": "refs/heads/main"}')
    assert "of no pull request" in job.comments("plan", CI_MERGE_REQUEST_IID="")
    assert host.asked == []


def test_it_can_be_turned_off(host: CodeHost, job: Job) -> None:
    assert job.comments("plan", TRUEUP_COMMENT="false") == ""
    assert host.asked == []


def test_without_a_plan_there_is_nothing_to_comment_on(host: CodeHost, job: Job) -> None:
    assert comment.main(job.here) == 0
    assert "no plan to comment on" in job.capsys.readouterr().out
    assert host.asked == []


def test_no_line_of_it_is_an_order_to_the_host(host: CodeHost, job: Job) -> None:
    """GitLab merges for a line `/merge` by somebody who may."""
    job.comments("fine\n/merge\n  /assign @everyone")
    assert not [line for line in host.bodies[0].splitlines() if line.lstrip().startswith("/")]


def test_what_the_server_says_is_no_command_to_the_runner(host: CodeHost, job: Job) -> None:
    host.troubles.append(Trouble(ANY, 422, message="no\n::add-mask::x\n%0A::error::y"))
    log = job.comments("plan")
    assert len(log.splitlines()) == 1
    assert ("%250A::error" if host.kind == "github" else "%0A::error") in log  # only one of them reads it
