"""The branch of the specs as it is followed: what is handed on of a real repository, and when."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from reconciler import policy
from reconciler.daemon.follower import Delivered, Follower, SourceError
from reconciler.source.git import Credential
from reconciler.source.mirror import Mirror
from reconciler.source.signatures import Signers
from tests.contract.git_servers import git, make_repository
from tests.contract.test_signatures import Key, allowed, sign, ssh_key

__all__ = ["ssh_key"]  # a fixture

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FIRST: dict[str, str | bytes] = {"specs/a.yaml": "a1"}
SECOND: dict[str, str | bytes] = {"specs/a.yaml": "a2"}
THIRD: dict[str, str | bytes] = {"specs/a.yaml": "a3"}

Make = Callable[..., Follower]


@pytest.fixture
def commits(tmp_path: Path) -> list[str]:
    """Three on main, oldest first."""
    return make_repository(tmp_path / "specs.git", FIRST, SECOND, THIRD)


@pytest.fixture
def make(tmp_path: Path, commits: list[str]) -> Make:
    """Makes followers, as processes that start again do: they share the folder of the mirror."""

    def make_one(**options: Any) -> Follower:
        mirror = Mirror(tmp_path / "mirror", (tmp_path / "specs.git").as_uri(), "main", path="specs", allow_file=True)
        given = {"beat": lambda loop, rest=0.0: None, "heard": lambda why, seconds: None, "credential": lambda: None}
        options |= {"before": partial(tuple, options["before"])} if "before" in options else {}
        rest = {"interval_s": 3600.0, "signers": lambda: None, "bell": Event(), "clock": lambda: NOW}
        return Follower(mirror, **{**rest, **given, **options})

    return make_one


def move(tmp_path: Path, commit: str) -> None:
    git(tmp_path / "specs.git", "update-ref", "refs/heads/main", commit)


def handed_on(follower: Follower) -> Delivered:
    assert follower.poll() == ""
    delivered = follower.delivered.get_nowait()
    assert follower.delivered.empty()
    return delivered


def whole(delivered: Delivered) -> Mapping[str, bytes]:
    assert delivered.changed is None
    assert delivered.files is not None
    return delivered.files.content


def test_what_was_handed_on_is_not_handed_on_again(make: Make, tmp_path: Path, commits: list[str]) -> None:
    move(tmp_path, commits[0])
    follower = make()
    assert whole(handed_on(follower)) == {"specs/a.yaml": b"a1"}
    assert follower.poll() == ""
    assert follower.delivered.empty()
    move(tmp_path, commits[1])
    assert handed_on(follower).changed == {"specs/a.yaml": b"a2"}


def test_what_could_not_be_used_is_handed_on_whole(make: Make, tmp_path: Path, commits: list[str]) -> None:
    follower = make()
    handed_on(follower)
    follower.forget()
    assert whole(handed_on(follower)) == {"specs/a.yaml": b"a3"}
    assert follower.poll() == ""
    assert follower.delivered.empty(), "once is enough"
    follower.forget()
    move(tmp_path, commits[1])
    again = handed_on(follower)
    assert whole(again) == {"specs/a.yaml": b"a2"}
    assert again.rewound_from == commits[2]


def test_what_could_not_be_used_comes_out_of_the_mirror_while_the_server_is_away(make: Make, tmp_path: Path) -> None:
    follower = make()
    handed_on(follower)
    (tmp_path / "specs.git").rename(tmp_path / "away.git")
    follower.forget()
    assert "specs.git" in follower.poll()
    assert whole(follower.delivered.get_nowait()) == {"specs/a.yaml": b"a3"}


def test_rules_that_have_changed_come_with_all_specs_which_are_judged_by_them(make: Make, tmp_path: Path) -> None:
    spec = {"specs/a.yaml": "a1"}
    far, near = {".trueup-policy.yaml": "far"}, {"specs/.trueup-policy.yaml": "near"}
    told = [spec, spec | far, spec | far | {"b": ""}, spec | far | near, {"specs/a.yaml": "a2"}]
    (tmp_path / "specs.git").rename(tmp_path / "other.git")
    commits = make_repository(tmp_path / "specs.git", *told)
    follower = make(rules=policy.places("specs"))
    found = []
    for commit in commits:
        move(tmp_path, commit)
        delivered = handed_on(follower)
        found.append((dict(delivered.rules.content), delivered.changed))
    assert found == [
        ({}, None),
        ({".trueup-policy.yaml": b"far"}, None),
        ({".trueup-policy.yaml": b"far"}, {}),
        ({"specs/.trueup-policy.yaml": b"near"}, None),
        ({}, None),
    ]
    before = [dict(files.content) for files in follower.rules_before(commits[-1])]
    assert before == [found[4][0], found[3][0], found[1][0]], "the commits that changed them, the newest first"


def test_a_branch_that_one_environment_was_ahead_of_is_rewound(make: Make, tmp_path: Path, commits: list[str]) -> None:
    move(tmp_path, commits[1])
    assert handed_on(make(before=(commits[0], commits[1]))).rewound == ""
    delivered = handed_on(make(before=(commits[0], commits[2])))
    assert delivered.rewound == f"the branch was rewound from {commits[2][:12]} to {commits[1][:12]}"
    assert delivered.rewound_from == commits[2]


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_commits_that_are_lost_the_newest_is_named(
    make: Make, tmp_path: Path, commits: list[str], turned: bool
) -> None:
    handed_on(make())
    move(tmp_path, commits[0])
    before = tuple(reversed(commits)) if turned else tuple(commits)
    assert handed_on(make(before=before)).rewound_from == commits[2]


def test_a_commit_that_was_never_here_means_that_the_branch_was_rewritten(make: Make, commits: list[str]) -> None:
    unknown = "0123456789" * 4
    assert handed_on(make(before=(commits[0], unknown))).rewound_from == unknown


@pytest.mark.parametrize("before", ["", "main", "--help", "0" * 39, "0" * 41, "not a commit\n"])
def test_what_is_no_commits_id_is_ignored(make: Make, before: str) -> None:
    """It was read in a cluster, where anybody may have changed it."""
    assert handed_on(make(before=(before,))).rewound == ""


def test_whether_one_commit_led_to_another_is_told_without_an_error(make: Make, commits: list[str]) -> None:
    follower = make()
    assert not follower.is_ancestor(commits[0], commits[1]), "nothing was fetched yet"
    handed_on(follower)
    assert follower.is_ancestor(commits[0], commits[2])
    assert follower.is_ancestor(commits[2], commits[2])
    assert not follower.is_ancestor(commits[2], commits[0])
    assert not follower.is_ancestor("main", commits[2])
    assert not follower.is_ancestor(commits[2], "main")
    assert not follower.is_ancestor(commits[0], "0123456789" * 4)


def test_nothing_is_handed_on_before_it_is_known_what_was_applied(
    make: Make, tmp_path: Path, commits: list[str]
) -> None:
    """Otherwise nobody would notice that the branch was rewound while the cluster did not answer."""
    move(tmp_path, commits[1])
    follower, known = make(), []

    def before() -> list[str]:
        if not known:
            raise SourceError("the cluster is away")
        return known

    follower.before = before
    assert follower.poll() == "the cluster is away"
    assert follower.delivered.empty()
    known.append(commits[2])
    assert handed_on(follower).rewound_from == commits[2]


class TestACommitThatNobodySigned:
    @pytest.fixture
    def signed(self, tmp_path: Path, commits: list[str], ssh_key: Callable[[str], Key]) -> tuple[str, Signers]:
        """A signed commit that the branch stands at, and who signs."""
        alice = ssh_key("alice")
        commit = sign(tmp_path / "specs.git", alice)
        move(tmp_path, commit)
        return commit, Signers(allowed(alice))

    def test_is_not_followed_and_the_last_good_one_stays(
        self, make: Make, tmp_path: Path, commits: list[str], signed: tuple[str, Signers]
    ) -> None:
        follower = make(signers=lambda: signed[1])
        assert handed_on(follower).revision.commit == signed[0]
        move(tmp_path, unsigned(tmp_path, signed[0]))
        assert "is not signed" in follower.poll()
        assert follower.delivered.empty()
        follower.forget()  # whoever could not use the good one gets it again
        assert "is not signed" in follower.poll()
        assert follower.delivered.get_nowait().revision.commit == signed[0]
        assert "is not signed" in follower.poll()
        assert follower.delivered.empty()

    def test_leaves_a_process_that_begins_with_what_environments_have(
        self, make: Make, tmp_path: Path, commits: list[str], signed: tuple[str, Signers]
    ) -> None:
        move(tmp_path, unsigned(tmp_path, signed[0]))
        before = (commits[0], signed[0], commits[2])
        follower = make(signers=lambda: signed[1], before=before)
        assert "is not signed" in follower.poll()
        delivered = follower.delivered.get_nowait()
        assert delivered.revision.commit == signed[0]
        assert delivered.rewound == ""
        assert delivered.signer.startswith("alice@example.org")
        assert whole(delivered) == {"specs/a.yaml": b"a3"}
        assert "is not signed" in follower.poll()
        assert follower.delivered.empty()

    def test_leaves_nothing_where_what_environments_have_is_nobodys_either(
        self, make: Make, tmp_path: Path, commits: list[str], signed: tuple[str, Signers]
    ) -> None:
        move(tmp_path, commits[2])
        for before in ((commits[1],), ("0123456789" * 4,), ()):
            follower = make(signers=lambda: signed[1], before=before)
            assert "is not signed" in follower.poll()
            assert follower.delivered.empty()


def unsigned(tmp_path: Path, parent: str) -> str:
    return git(tmp_path / "specs.git", "commit-tree", f"{parent}^{{tree}}", "-p", parent, "-m", "unsigned").strip()


def test_each_question_to_git_has_a_beat_before_it_and_the_pause_is_announced(make: Make, commits: list[str]) -> None:
    beats: list[float] = []
    follower = make(before=tuple(commits[:2]), beat=lambda loop, rest=0.0: beats.append(rest))
    assert run_until(follower, lambda: any(beats))
    asked = list(itertools.takewhile(lambda rest: not rest, beats))
    pause = beats[len(asked)]
    assert len(asked) >= 6, "the round, the fetch, two commits, what differs, the files"
    assert 3600 * 0.9 <= pause <= 3600 * 1.1


def test_an_error_of_the_program_does_not_end_the_following(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def credential() -> Credential | None:
        if broken:
            broken.clear()
            raise ValueError("unforeseen")
        return None

    troubles: list[str] = []
    follower = make(credential=credential, heard=lambda why, seconds: troubles.append(why))
    assert run_until(follower, lambda: len(troubles) >= 2)
    assert troubles[:2] == ["ValueError: unforeseen", ""]
    assert [record.getMessage() for record in caplog.records] == ["a poll ended with an error of the program"]
    assert whole(follower.delivered.get_nowait())


def run_until(follower: Follower, is_so: Callable[[], bool]) -> bool:
    """Runs it as the daemon does, until something is so."""
    thread = threading.Thread(target=follower.run)
    thread.start()
    end = time.monotonic() + 20
    while not is_so() and time.monotonic() < end:
        follower.poll_now()
        time.sleep(0.05)
    follower.stop()
    thread.join(20)
    return is_so()
