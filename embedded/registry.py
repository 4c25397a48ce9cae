"""Which kinds the server serves at the moment: the built-in ones, and those of the CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterable

from embedded.kinds.kind import Kind


class Registry:
    """Kinds by group, version and plural name."""

    def __init__(self, builtin: Iterable[Kind]) -> None:
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in builtin}
        self._custom: dict[str, tuple[Kind, ...]] = {}
        self._stored: dict[str, Kind] = {}
        self._sort()

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind behind a path, None where nothing is served there."""
        return self._kinds.get((group, version, plural))

    def install(self, name: str, kinds: tuple[Kind, ...]) -> None:
        """Serve the kinds of a CustomResourceDefinition (`widgets.example.com`), in place of what it served."""
        self.uninstall(name)
        self._custom[name] = kinds
        for kind in kinds:
            self._kinds[kind.group, kind.version, kind.plural] = kind
        self._sort()

    def uninstall(self, name: str) -> None:
        """Stop serving the kinds of a CustomResourceDefinition."""
        for kind in self._custom.pop(name, ()):
            del self._kinds[kind.group, kind.version, kind.plural]
        self._sort()

    def _sort(self) -> None:
        """Storage versions last, so that they win; where one is not served any more, each of the others will do."""
        kinds = sorted(self._kinds.values(), key=lambda kind: kind.storage)
        self._stored = {kind.group_resource: kind for kind in kinds}

    def stored(self, group_resource: str) -> Kind:
        """A kind in the version that it is stored in (`deployments.apps`). Raises KeyError where it is not served."""
        return self._stored[group_resource]

    def stored_resources(self, *, namespaced: bool = False) -> list[str]:
        """The group resources of which there can be objects; `namespaced`: in namespaces."""
        kinds = self._stored.items()
        return [name for name, kind in kinds if "list" in kind.verbs and (kind.namespaced or not namespaced)]

    def find_kind(self, group: str, kind: str) -> Kind | None:
        """A kind by its name, as manifests and owner references have it, in the version that it is stored in."""
        return next((found for found in self._stored.values() if (found.group, found.kind) == (group, kind)), None)

    def is_custom(self, group_resource: str) -> bool:
        """Whether a CustomResourceDefinition of that name is served."""
        return group_resource in self._custom

    def groups(self) -> dict[str, dict[str, list[Kind]]]:
        """Kinds by group and version, built-in groups first, the most stable version first, kinds by plural name."""
        groups: dict[str, dict[str, list[Kind]]] = {}
        for kind in self._kinds.values():
            groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
        return {
            group: {
                version: sorted(versions[version], key=lambda kind: kind.plural)
                for version in sorted(versions, key=_version_priority, reverse=True)
            }
            for group, versions in groups.items()
        }


def _version_priority(version: str) -> tuple[int, int, int]:
    """Kubernetes' order of versions: v2 before v1, any of them before v1beta2, v1beta1, v1alpha1."""
    number, stability, minor = version.removeprefix("v"), 2, ""
    for rank, word in enumerate(("alpha", "beta")):
        if word in number:
            number, _, minor = number.partition(word)
            stability = rank
    return stability, int(number) if number.isdigit() else 0, int(minor) if minor.isdigit() else 0
