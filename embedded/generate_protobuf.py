"""Makes `embedded/protobuf.json`: the field numbers of the built-in kinds. For developers of this package only.

    python -m embedded.generate_protobuf PATH/TO/staging/src/k8s.io

Read from the `generated.proto` files next to the Go types. Only what the kinds of `embedded.kinds` reach is kept.
A table is `{message: {number: [JSON name, type]}}`; `embedded.protobuf` says what types there are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import orjson

from embedded.kinds.builtin import ROOTS, definitions

TARGET = Path(__file__).parent / "protobuf.json"
SCALARS = {"string": "string", "bytes": "bytes", "bool": "bool", "int32": "int", "int64": "int", "double": "double"}

_MESSAGE = re.compile(r"^message (\w+) \{$")
_MAP = re.compile(r"^  map<string, ([\w.]+)> (\w+) = (\d+);")
_FIELD = re.compile(r"^  (optional|repeated) ([\w.]+) (\w+) = (\d+);")

Messages = dict[str, dict[str, tuple[str, str]]]


def read(path: Path, messages: Messages) -> None:
    """The messages of one .proto file. Types are full names, with `[]` or `{}` in front of lists and maps."""
    package, current = "", ""
    for line in path.read_text().splitlines():
        if found := re.match(r"package ([\w.]+);", line):
            package = found[1]
        elif found := _MESSAGE.match(line):
            current = f"{package}.{found[1]}"
            messages[current] = {}
        elif found := _MAP.match(line):
            messages[current][found[3]] = (found[2], "{}" + _full(found[1], package))
        elif found := _FIELD.match(line):
            kind = _full(found[2], package)
            messages[current][found[4]] = (found[3], "[]" + kind if found[1] == "repeated" else kind)


def _full(name: str, package: str) -> str:
    if name in SCALARS:
        return SCALARS[name]
    return name.removeprefix(".") if "." in name else f"{package}.{name}"


def public_name(message: str) -> str:
    """The OpenAPI name: `k8s.io.api.core.v1.Pod` is `io.k8s.api.core.v1.Pod`."""
    return "io.k8s." + message.removeprefix("k8s.io.")


def main() -> None:
    messages: Messages = {}
    for path in sorted(Path(sys.argv[1]).rglob("generated.proto")):
        read(path, messages)
    by_public_name = {public_name(name): name for name in messages}
    known = definitions()
    table: dict[str, dict[str, list[str]]] = {}
    queue = [name for name in ROOTS if name in by_public_name and "apiextensions" not in name]
    while queue:
        public = queue.pop()
        if public in table:
            continue
        table[public] = {}
        properties = known.get(public, {}).get("properties")
        for number, (name, kind) in sorted(messages[by_public_name[public]].items(), key=lambda item: int(item[0])):
            plain = kind.removeprefix("[]").removeprefix("{}")
            if plain in messages:
                queue.append(public_name(plain))
            # A Go struct that is embedded in another has no name of its own in JSON.
            inlined = properties is not None and name not in properties and plain in messages
            written = kind.replace(plain, public_name(plain)) if plain in messages else kind
            table[public][number] = [name, "~" + written if inlined else written]
    TARGET.write_bytes(orjson.dumps(table, option=orjson.OPT_SORT_KEYS) + b"\n")


if __name__ == "__main__":
    main()
