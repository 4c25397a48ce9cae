"""What becomes of environments: where they are, what comes before them, who is asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.effects.fields import changes, fields, listed
from reconciler.report import Effect, Topic
from renderers.catalog import Catalog
from schemas.environment import DataPlane, Environment

#: What is done at once, and nothing after it.
SUSPENDED = "the environment is suspended: nothing in it is changed or removed before it is resumed"
_RESUMED = "the environment is resumed: what waited there is done"
_SAID = ("suspended", "promote_after", "approval", "data_plane", "namespace")


def of_environments(before: Catalog, after: Catalog) -> Iterator[Effect]:
    """Each one that comes, changes or goes."""
    for name in sorted(before.environments.keys() | after.environments.keys()):
        old, new = before.environments.get(name), after.environments.get(name)
        if new is None:
            yield Effect(name, "", Topic.REMOVED, "the environment goes, with all that runs in it")
            continue
        said = _new(new.spec) if old is None else _changed(old.spec, new.spec)
        yield from (Effect(name, "", topic, text, new.origin) for topic, text in said)


def _new(spec: Environment) -> Iterator[tuple[Topic, str]]:
    yield Topic.ENVIRONMENT, f"the environment is new, on {_place(spec.data_plane)}"
    if spec.promote_after:
        yield Topic.GATE, f"comes after {listed(spec.promote_after)}"
    if spec.approval == "manual":
        yield Topic.GATE, _approval(spec)
    if spec.suspended:
        yield Topic.ENVIRONMENT, SUSPENDED


def _changed(old: Environment, new: Environment) -> Iterator[tuple[Topic, str]]:
    if old.suspended != new.suspended:
        yield Topic.ENVIRONMENT, SUSPENDED if new.suspended else _RESUMED
    if old.promote_after != new.promote_after:
        was = f"after {listed(old.promote_after)}" if old.promote_after else "after no other"
        now = f"comes after {listed(new.promote_after)}" if new.promote_after else "comes after no other any more"
        yield Topic.GATE, f"{now}; before, {was}"
    if old.approval != new.approval:
        yield Topic.GATE, _approval(new)
    moved = [
        *changes("data_plane", old.data_plane, new.data_plane),
        *changes("namespace", old.namespace_name, new.namespace_name),
    ]
    if moved:
        yield Topic.ENVIRONMENT, f"{'; '.join(moved)}: everything is made anew there"
    for words in fields(old, new, without=_SAID):
        yield Topic.ENVIRONMENT, words


def _approval(spec: Environment) -> str:
    if spec.approval == "manual":
        return f"a person approves each promotion into {spec.name}"
    return f"nobody is asked any more before a promotion into {spec.name}"


def _place(plane: DataPlane) -> str:
    if plane.type == "embedded":
        return "the embedded data plane of this machine"
    if plane.kubeconfig_secret is not None:
        return f"the cluster of the Secret {plane.kubeconfig_secret}"
    return f"the cluster {plane.context}" if plane.context is not None else "the cluster of the reconciler"
