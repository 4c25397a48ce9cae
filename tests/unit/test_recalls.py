"""What all models recall, kept as one: whatever has changed, the same as if it were put together anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.automate.recall import NOTHING, Recall, Recalls
from renderers.catalog import BuildId, Catalog, Facts, Placed, Recorded, Stood
from renderers.manifest import ObjectId, Origin
from schemas.build import Build
from schemas.environment import Environment

MODELS = ("churn", "fraud", "taxi")
BRANCH = ("https://git.example.com/models.git", "main")
PROD = Environment(name="prod")


def build_of(model: str) -> Placed[Build]:
    spec = Build(name=model, model=model, git_uri=f"{BRANCH[0]}#{model}", git_branch=BRANCH[1])
    return Placed(spec, Origin("all.yaml", 1, "build", model))


def catalog(*models: str) -> Catalog:
    return Catalog(builds={model: build_of(model) for model in models})


def recalled(model: str, build: str, jobs: frozenset[str], why: str, commit: str) -> Recall:
    """Served is this build; kept are these Jobs; unclear is why; and the branch was built last at this commit."""
    stood = Stood(Recorded(build_of(model), BuildId(build, None, provisional=False), PROD), 100)
    return Recall(
        Facts({BRANCH: commit}, {("prod", model): (stood.recorded,)}, {("prod", model, "default"): (stood,)}),
        {"prod": frozenset(ObjectId("batch/v1", "Job", "prod", f"{model}-{job}") for job in jobs)} if jobs else {},
        {("prod", model): why} if why else {},
    )


def parts(model: str) -> st.SearchStrategy[Recall]:
    recalls = st.builds(
        recalled,
        st.just(model),
        st.sampled_from(["a" * 64, "b" * 64]),
        st.frozensets(st.sampled_from("xyz")),
        st.sampled_from(["", "its record is gone"]),
        st.sampled_from(["", "c" * 40, "d" * 40]),
    )
    return st.just(NOTHING) | recalls


changes = st.lists(st.fixed_dictionaries({}, optional={model: parts(model) for model in MODELS}), max_size=6)


@given(changes)
def test_a_recall_that_follows_is_that_of_the_last_parts(steps: list[dict[str, Recall]]) -> None:
    followed, anew = Recalls(), Recalls()
    last: dict[str, Recall] = {}
    for step in steps:
        followed.take(step)
        last |= step
    anew.take(last)
    whole = followed.whole(catalog(*MODELS), Facts())
    assert whole == anew.whole(catalog(*MODELS), Facts())
    assert set(followed.models) == {model for model, part in last.items() if part != NOTHING}
    assert whole.facts.stands == {k: v for part in last.values() for k, v in part.facts.stands.items()}
    assert whole.unclear == {k: v for part in last.values() for k, v in part.unclear.items()}
    assert whole.keep.get("prod", frozenset()) == {job for p in last.values() for js in p.keep.values() for job in js}


def test_a_branch_that_git_is_silent_about_is_where_all_that_is_built_of_it_was_built_last() -> None:
    said = Recalls()
    said.take({model: recalled(model, "a" * 64, frozenset(), "", "c" * 40) for model in ("churn", "fraud")})
    assert said.whole(catalog("churn", "fraud"), Facts()).facts.commits == {BRANCH: "c" * 40}


def test_a_model_that_was_never_built_of_a_branch_is_built_of_no_old_commit() -> None:
    said = Recalls()
    said.take({"churn": recalled("churn", "a" * 64, frozenset(), "", "c" * 40)})
    assert said.whole(catalog("churn", "taxi"), Facts()).facts.commits == {}


def test_models_that_were_built_of_two_commits_leave_it_open_where_the_branch_is() -> None:
    said = Recalls()
    said.take({m: recalled(m, "a" * 64, frozenset(), "", c * 40) for m, c in (("churn", "c"), ("fraud", "d"))})
    assert said.whole(catalog("churn", "fraud"), Facts()).facts.commits == {}


def test_what_git_says_counts() -> None:
    said = Recalls()
    said.take({"churn": recalled("churn", "a" * 64, frozenset(), "", "c" * 40)})
    assert said.whole(catalog("churn"), Facts({BRANCH: "e" * 40})).facts.commits == {BRANCH: "e" * 40}
