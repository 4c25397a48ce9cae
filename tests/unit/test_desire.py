"""What all specs ask for, as an index that follows them: the same as one that is made anew, and told what has moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import desired, queries
from reconciler.automate import Recall
from reconciler.daemon.desire import Desire, Moved, Unit, UnitId
from reconciler.inventory import CONTENT_HASH, place_of
from reconciler.specs.index import Index
from renderers.catalog import Facts
from renderers.manifest import ObjectId
from tests.conftest import examples
from tests.edited_specs import ENVIRONMENTS, MODELS, Editor

REPOSITORY, COMMIT = "https://example.com/models.git", "45a96240e08b09e4c2dd86a6a58f8ce239655f3c"


def waiting(desire: Desire) -> dict[UnitId, str]:
    """The units that cannot be rendered now, and why."""
    wanted = {name: desire.wanted(name) for name in desire.environments()}
    return {
        UnitId(name, model): unit.waits for name, units in wanted.items() for model, unit in units.items() if unit.waits
    }


class Followed:
    """A desire over a real index, and the files that it follows."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.index = Index(lambda name: self.files[name], queries.check)
        self.desire = Desire(self.index)
        self.commits: dict[tuple[str, str], str] = {}
        self.recall = Recall(Facts(), {}, {})

    def edit(self, **files: Any) -> Moved:
        """Changes files, by their names without ending: to what is under `spec`, or text; None takes one away."""
        written = {f"{name}.yaml": content(one) for name, one in files.items()}
        return self.take({**self.files, **written})

    def take(self, files: Mapping[str, bytes | None]) -> Moved:
        """The files are these by now."""
        new = {name: text for name, text in files.items() if text is not None}
        changed = {name: new.get(name) for name in {*new, *self.files} if new.get(name) != self.files.get(name)}
        self.files = new
        found = self.index.update(changed)
        return self.update(None if found.models is None else found.models | found.moved)

    def update(self, models: frozenset[str] | None = frozenset()) -> Moved:
        """Nothing has changed in the specs of other models than these."""
        asked = {(b.spec.repository, b.spec.branch) for b in self.index.catalog.builds.values() if b.spec.branch}
        unresolved = dict.fromkeys(asked - self.commits.keys(), "its commit is being looked up")
        return self.desire.update("a" * 40, models, self.recall, unresolved)

    def know(self, commits: Mapping[tuple[str, str], str]) -> Moved:
        """Git has said where branches stand."""
        self.commits = dict(commits)
        self.recall = self.recall._replace(facts=Facts(self.commits))
        return self.update()

    def remember(self, **what: Any) -> Moved:
        """The records say this: `keep` and `unclear`, as in `Recall`."""
        self.recall = self.recall._replace(**what)
        return self.update()

    def anew(self) -> Followed:
        """One that has only seen the last state."""
        made = Followed()
        made.commits, made.recall = self.commits, self.recall
        made.take(self.files)
        return made

    @property
    def units(self) -> dict[UnitId, Unit]:
        environments = self.desire.environments()
        return {UnitId(e, model): unit for e in environments for model, unit in self.desire.wanted(e).items()}


def content(one: Any) -> bytes | None:
    if one is None or isinstance(one, str):
        return one.encode() if one is not None else None
    return json.dumps({"api_version": "v1", "spec": one}).encode()


def model(name: str, *environments: str, memory: str = "1Gi", build: str = "", **git: str) -> dict[str, Any]:
    """A model with one build and one variation, which is served in these environments."""
    variation = {"model": name, "name": "default", "environments": list(environments), "build": f"{name}-1"}
    source = {"git_uri": REPOSITORY, "git_commit": COMMIT} | git
    if "git_branch" in source:
        del source["git_commit"]
    return {
        "builds": [{"name": f"{name}-1", "model": name, **source}],
        "variations": [{**variation, "deployment": {"memory": memory}, "traffic": [{"weight": 100}]}],
    }


def environments(*names: str, **more: Any) -> dict[str, Any]:
    return {"environments": [{"name": name, "data_plane": "embedded", **more} for name in names]}


@pytest.fixture
def followed() -> Followed:
    """Two models in two environments."""
    made = Followed()
    made.edit(
        environments=environments("dev", "prod"), churn=model("churn", "dev", "prod"), fraud=model("fraud", "prod")
    )
    return made


def names(moved: Moved) -> set[str]:
    return {f"{unit.environment}/{unit.model}" for unit in moved.units}


class TestWhatHasMoved:
    def test_is_everything_at_first(self, followed: Followed) -> None:
        assert names(Moved(frozenset(followed.units), {})) == {"dev/", "prod/", "dev/churn", "prod/churn", "prod/fraud"}

    def test_is_the_model_that_was_edited_wherever_it_is(self, followed: Followed) -> None:
        assert names(followed.edit(churn=model("churn", "dev", "prod", memory="2Gi"))) == {"dev/churn", "prod/churn"}

    def test_is_a_model_where_it_comes_and_where_it_goes(self, followed: Followed) -> None:
        # Its build runs in the first environment that it is served in.
        assert names(followed.edit(fraud=model("fraud", "dev"))) == {"dev/fraud", "prod/fraud"}
        assert followed.desire.models("prod") == {"", "churn"}
        assert names(followed.edit(fraud=None)) == {"dev/fraud"}

    def test_is_nothing_where_only_words_have_changed(self, followed: Followed) -> None:
        text = followed.files["churn.yaml"].decode()
        assert followed.edit(churn=f"# a comment\n{text}").units == frozenset()
        assert followed.take({("more.yaml" if n == "churn.yaml" else n): t for n, t in followed.files.items()}) == (
            frozenset(),
            {},
        )

    def test_is_what_environments_mean_to_their_models(self, followed: Followed) -> None:
        moved = followed.edit(environments=environments("dev", "prod", defaults={"env_vars": {"LEVEL": "a"}}))
        assert {"dev/churn", "prod/churn", "prod/fraud"} <= names(moved)

    def test_is_an_environment_with_all_that_is_in_it(self, followed: Followed) -> None:
        followed.edit(fraud=None, churn=model("churn", "dev"))
        assert names(followed.edit(environments=environments("dev"))) == {"prod/"}
        assert followed.desire.environment("prod") is None
        assert followed.desire.wanted("prod") == {}

    def test_is_a_model_of_which_the_records_say_something_else(self, followed: Followed) -> None:
        moved = followed.remember(unclear={("prod", "churn"): "its record is gone"})
        assert names(moved) == {"prod/churn"}
        assert waiting(followed.desire) == {UnitId("prod", "churn"): "its record is gone"}
        assert names(followed.remember(unclear={})) == {"prod/churn"}

    def test_is_a_job_that_is_kept_or_is_not_any_more(self, followed: Followed) -> None:
        one, other = (ObjectId("batch/v1", "Job", "dev", f"churn-build-{n}") for n in "12")
        assert followed.remember(keep={"dev": frozenset({one})}) == (frozenset(), {"dev": {one}})
        assert followed.remember(keep={"dev": frozenset({other})}).jobs == {"dev": {one, other}}
        assert followed.desire.standing("dev") == (True, {other})
        assert followed.remember(keep={}).jobs == {"dev": {other}}
        assert followed.update() == (frozenset(), {})


#: Two models whose routes have one name: its ending is a hash of 32 bits, and such a pair is found in a second.
ONE, OTHER = "a.b.c_d_e.f.g-h_i_j.k-l", "a_b-c.d_e-f-g.h_i-j-k-l"
ROUTE = ObjectId("gateway.networking.k8s.io/v1", "HTTPRoute", "dev", "a-b-c-d-e-f-g-h-i-j-k-l-9b214669")


class TestTwoModelsThatWantOneObject:
    @pytest.fixture
    def followed(self) -> Followed:
        """The second of them comes later, and its own part of the specs looks as it should."""
        made = Followed()
        made.edit(environments=environments("dev"), churn=model("churn", "dev"), one=model(ONE, "dev"))
        made.edit(other=model(OTHER, "dev"))
        return made

    def test_are_a_problem_of_the_second_which_has_nothing_then(self, followed: Followed) -> None:
        (problem,) = followed.desire.problems()
        assert (problem.file, problem.rule) == ("other.yaml", desired.SHARED)
        assert f"{ROUTE} is wanted by variation {ONE}" in problem.message
        assert followed.units[UnitId("dev", OTHER)] == Unit({}, {}, problem=problem)
        assert followed.desire.owner("dev", ROUTE) == ONE
        assert followed.desire.look("dev", [ONE, OTHER])[OTHER] == ()
        # Seen for itself, nothing is wrong with it; and so it must not be taken for sound.
        assert followed.desire.look("dev", [OTHER]) == {OTHER: ()}

    def test_let_nothing_be_deleted(self, followed: Followed) -> None:
        assert followed.desire.standing("dev") == (False, frozenset())

    @pytest.mark.parametrize("gone", ["one", "other"])
    def test_are_settled_when_one_of_them_goes(self, followed: Followed, gone: str) -> None:
        moved = followed.edit(**{gone: None})
        assert names(moved) == ({f"dev/{ONE}", f"dev/{OTHER}"} if gone == "one" else {f"dev/{OTHER}"})
        assert followed.desire.problems() == ()
        assert followed.desire.owner("dev", ROUTE) == (OTHER if gone == "one" else ONE)
        assert followed.desire.standing("dev") == (True, frozenset())

    def test_are_settled_where_the_first_one_moves_elsewhere(self, followed: Followed) -> None:
        followed.edit(environments=environments("dev", "prod"), one=model(ONE, "prod"))
        assert followed.desire.problems() == ()
        assert followed.desire.owner("dev", ROUTE) == OTHER
        assert followed.desire.owner("prod", ROUTE._replace(namespace="prod")) == ONE

    def test_cost_no_third_one_anything(self, followed: Followed) -> None:
        assert names(followed.edit(churn=model("churn", "dev", memory="2Gi"))) == {"dev/churn"}
        assert names(followed.edit(churn=model("churn", "dev", memory="1Gi"), one=None)) == {
            "dev/churn",
            f"dev/{ONE}",
            f"dev/{OTHER}",
        }

    def test_are_told_at_the_line_where_it_is_by_now(self, followed: Followed) -> None:
        (before,) = followed.desire.problems()
        followed.edit(other="# a line above\n" + followed.files["other.yaml"].decode())
        (problem,) = followed.desire.problems()
        assert problem.line == before.line + 1


class TestABranchWhoseCommitIsNotKnown:
    @pytest.fixture
    def followed(self) -> Followed:
        made = Followed()
        made.edit(environments=environments("dev"), churn=model("churn", "dev"))
        made.edit(fraud=model("fraud", "dev", git_branch="main"))
        return made

    def test_keeps_what_it_builds_waiting_and_nothing_is_deleted(self, followed: Followed) -> None:
        assert waiting(followed.desire) == {UnitId("dev", "fraud"): "its commit is being looked up"}
        assert followed.desire.look("dev", ["churn", "fraud"])["fraud"] == ()
        assert not followed.desire.standing("dev")[0]

    def test_moves_what_it_builds_when_it_is_known_and_when_it_is_another_one(self, followed: Followed) -> None:
        assert names(followed.know({(REPOSITORY, "main"): COMMIT})) == {"dev/fraud"}
        assert waiting(followed.desire) == {}
        before = followed.desire.wanted("dev")["fraud"].builds
        assert names(followed.know({(REPOSITORY, "main"): "b" * 40})) == {"dev/fraud"}
        after = followed.desire.wanted("dev")["fraud"].builds
        assert before.keys().isdisjoint(after)
        (build,) = after
        assert followed.desire.job_of(build) == (UnitId("dev", "fraud"), after[build])
        assert followed.desire.job_of(*before) is None


def test_problems_of_rendering_stand_where_the_spec_stands_by_now(followed: Followed) -> None:
    refused = model("fraud", "prod")
    refused["variations"][0]["deployment"] = {"instance": "as.large.as.life"}
    followed.edit(fraud=refused)
    (before,) = followed.desire.problems()
    assert before.rule == "resources/unknown-instance"
    followed.edit(fraud="# a line above\n" + followed.files["fraud.yaml"].decode())
    (problem,) = followed.desire.problems()
    assert problem.line == before.line + 1


class TestSpecsThatAreNewerThanWhatIsKnownOfThem:
    """Between a commit and what the records make of it, a keeper goes on with everything else."""

    def test_cannot_be_looked_at_before_it_is_known_what_they_mean(self, followed: Followed) -> None:
        """A build of a branch that nobody has asked Git about would be made as a build of no known commit."""
        followed.index.update({"fraud.yaml": content(model("fraud", "prod", git_branch="main"))})
        followed.desire.expect({"fraud"})
        assert followed.desire.look("prod", ["churn", "fraud"]).keys() == {"churn"}
        assert not followed.desire.standing("prod")[0], "nothing is deleted meanwhile"
        followed.update(frozenset({"fraud"}))
        assert followed.desire.look("prod", ["fraud"]) == {"fraud": ()}
        assert waiting(followed.desire).keys() == {UnitId("prod", "fraud")}

    def test_may_be_all_of_them(self, followed: Followed) -> None:
        followed.desire.expect(None)
        followed.desire.expect({"fraud"})
        assert followed.desire.look("prod", ["", "churn", "fraud"]) == {}
        assert not followed.desire.standing("prod")[0]
        followed.update(None)
        assert followed.desire.look("prod", ["", "churn", "fraud"]).keys() == {"", "churn", "fraud"}
        assert followed.desire.standing("prod")[0]

    def test_are_known_again_with_the_next_update(self, followed: Followed) -> None:
        followed.desire.expect({"fraud"})
        assert followed.update(frozenset({"fraud"})) == (frozenset(), {})
        assert followed.desire.look("prod", ["fraud"])["fraud"]


# -- whatever happens -------------------------------------------------------------------------------------------------

BRANCHES = tuple((url, "main") for url in (REPOSITORY, "file:///models"))
JOBS = tuple(ObjectId("batch/v1", "Job", name, "churn-build-4ac442ef") for name in ENVIRONMENTS)
commits = st.dictionaries(st.sampled_from(BRANCHES), st.sampled_from((COMMIT, "b" * 40)), max_size=2)
kept = st.dictionaries(st.sampled_from(ENVIRONMENTS), st.frozensets(st.sampled_from(JOBS)), max_size=2)
unclear = st.dictionaries(
    st.tuples(st.sampled_from(ENVIRONMENTS), st.sampled_from(MODELS)), st.just("its record is gone"), max_size=2
)


def assert_is_whole(followed: Followed) -> None:
    """It is what one has that has only ever seen the last state; and what is told apart agrees with the whole."""
    anew, desire = followed.anew(), followed.desire
    assert followed.units == anew.units
    assert desire.problems() == anew.desire.problems()
    assert desire.has_errors == anew.desire.has_errors
    for environment in desire.environments():
        units = desire.wanted(environment)
        assert desire.standing(environment) == anew.desire.standing(environment)
        assert desire.places(environment) == Counter(place_of(t) for unit in units.values() for t in unit.objects)
        looked = desire.look(environment, desire.models(environment))
        assert desire.look(environment, desire.models(environment)) == looked, "rendered again, it is what was kept"
        for name, unit in units.items():
            seen = {m.id: m.body["metadata"]["annotations"][CONTENT_HASH] for m in looked[name]}
            assert seen == unit.objects
            assert all(desire.owner(environment, target) == name for target in unit.objects)
            for build, job in unit.builds.items():
                assert desire.job_of(build) == anew.desire.job_of(build) == (UnitId(environment, name), job)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_after_any_edits_it_is_as_if_made_anew_and_has_told_exactly_what_differs(data: st.DataObject) -> None:
    followed, editor = Followed(), Editor(data)
    followed.commits = dict.fromkeys(BRANCHES, COMMIT)
    followed.recall = followed.recall._replace(facts=Facts(followed.commits))
    followed.take(editor.texts())
    for _ in range(data.draw(st.integers(1, 4))):
        before, kept_before = followed.units, followed.recall.keep
        match data.draw(st.sampled_from(("edit", "edit", "edit", "know", "remember"))):
            case "edit":
                editor.commit()
                moved = followed.take(editor.texts())
            case "know":
                moved = followed.know(data.draw(commits))
            case _:
                moved = followed.remember(keep=data.draw(kept), unclear=data.draw(unclear))
        after = followed.units
        differing = {unit for unit in before.keys() | after.keys() if before.get(unit) != after.get(unit)}
        assert moved.units == differing
        everywhere = {*kept_before, *followed.recall.keep}
        nothing = frozenset[ObjectId]()
        assert {name: jobs for name, jobs in moved.jobs.items() if jobs} == {
            name: jobs
            for name in everywhere
            if (jobs := kept_before.get(name, nothing) ^ followed.recall.keep.get(name, nothing))
        }
        assert_is_whole(followed)
