"""Validation of the volumes of a pod, and of references to its fields, which environment variables use, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedded.kinds import formats
from embedded.kinds.problems import Problems
from embedded.quantity import parse_quantity

_Object = Mapping[str, Any]
FIELDS_OF_ENV = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_FIELDS_OF_FILES = ("metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations")


def validate_volumes(found: Problems, field: str, volumes: Any) -> set[str]:
    """Check the volumes; the names that mounts may use."""
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{field}[{index}]"
        name = volume.get("name", "")
        if not name:
            found.required(f"{where}.name")
        elif name in names:
            found.duplicate(f"{where}.name", name)
        else:
            found.each_invalid(f"{where}.name", name, formats.dns_label(name))
        names.add(name)
        sources = [source for source in volume if source != "name"]
        if len(sources) > 1:
            ordered = sorted(
                sources,
                key=lambda source: _VOLUME_ORDER.index(source) if source in _VOLUME_ORDER else len(_VOLUME_ORDER),
            )
            for source in ordered[1:]:
                found.forbidden(f"{where}.{source}", "may not specify more than 1 volume type")
        elif sources:
            _volume_source(found, f"{where}.{sources[0]}", sources[0], volume[sources[0]])
    return names


_VOLUME_ORDER = ("emptyDir", "hostPath", "secret", "persistentVolumeClaim", "downwardAPI", "configMap", "projected")


def _volume_source(found: Problems, field: str, name: str, source: _Object) -> None:
    if name == "emptyDir":
        if "sizeLimit" in source and parse_quantity(source["sizeLimit"]) < 0:
            found.forbidden(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity")
    elif name == "hostPath":
        _host_path(found, field, source)
    elif name == "persistentVolumeClaim":
        if not source.get("claimName"):
            found.required(f"{field}.claimName")
    elif name in ("secret", "configMap", "downwardAPI", "projected"):
        _mode(found, f"{field}.defaultMode", source.get("defaultMode"))
        _files(found, field, name, source)


def _host_path(found: Problems, field: str, source: _Object) -> None:
    if not source.get("path"):
        found.required(f"{field}.path")
    elif ".." in source["path"].split("/"):
        found.invalid(f"{field}.path", source["path"], "must not contain '..'")
    types = ("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice")
    if source.get("type", "") not in types:
        found.unsupported(f"{field}.type", source["type"], sorted(types))


def _files(found: Problems, field: str, name: str, source: _Object) -> None:
    if name == "downwardAPI":
        _downward(found, f"{field}.items", source.get("items", ()))
    elif name == "projected":
        for index, part in enumerate(source.get("sources") or ()):
            _projected(found, f"{field}.sources[{index}]", part)
    else:
        key = "secretName" if name == "secret" else "name"
        if not source.get(key):
            found.required(f"{field}.{key}")
        _items(found, f"{field}.items", source.get("items", ()))


def _projected(found: Problems, field: str, part: _Object) -> None:
    for name in ("secret", "configMap"):
        if name in part:
            if not part[name].get("name"):
                found.required(f"{field}.{name}.name")
            _items(found, f"{field}.{name}.items", part[name].get("items", ()))
    _downward(found, f"{field}.downwardAPI.items", part.get("downwardAPI", {}).get("items", ()))
    token = part.get("serviceAccountToken")
    if token is not None:
        where = f"{field}.serviceAccountToken"
        if token.get("expirationSeconds", 3600) < 600:
            found.invalid(
                f"{where}.expirationSeconds",
                token["expirationSeconds"],
                "may not specify a duration less than 10 minutes",
            )
        if not token.get("path"):
            found.required(f"{where}.path")


def _mode(found: Problems, field: str, mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        found.invalid(field, mode, "must be a number between 0 and 0777 (octal), both inclusive")


def _items(found: Problems, field: str, items: Any) -> None:
    for index, item in enumerate(items):
        if not item.get("key"):
            found.required(f"{field}[{index}].key")
        if not item.get("path"):
            found.required(f"{field}[{index}].path")
        else:
            validate_relative_path(found, f"{field}[{index}].path", item["path"])
        _mode(found, f"{field}[{index}].mode", item.get("mode"))


def _downward(found: Problems, field: str, items: Any) -> None:
    for index, item in enumerate(items):
        if not item.get("path"):
            found.required(f"{field}[{index}].path")
        else:
            validate_relative_path(found, f"{field}[{index}].path", item["path"])
        if "fieldRef" in item:
            validate_field_ref(found, f"{field}[{index}].fieldRef", item["fieldRef"], _FIELDS_OF_FILES)


def validate_field_ref(found: Problems, field: str, ref: _Object, known: tuple[str, ...]) -> None:
    path = ref.get("fieldPath", "")
    if not path:
        found.required(f"{field}.fieldPath")
        return
    keyed = re.fullmatch(r"(metadata\.(?:labels|annotations))\['(.*)'\]", path)
    if keyed is not None:
        found.each_invalid(
            field, path, formats.qualified_name(keyed[2].lower() if keyed[1].endswith("annotations") else keyed[2])
        )
    elif path not in {*FIELDS_OF_ENV, *_FIELDS_OF_FILES}:
        found.invalid(f"{field}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")
    elif path not in known:
        found.unsupported(f"{field}.fieldPath", path, sorted(known))


def validate_relative_path(found: Problems, field: str, path: str) -> None:
    if path.startswith("/"):
        found.invalid(field, path, "must be a relative path")
    if ".." in path.split("/"):
        found.invalid(field, path, "must not contain '..'")
