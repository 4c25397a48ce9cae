"""The kinds that the API server knows: names, schemas, printer columns, defaulting and validation.

BUILTIN                            tuple[Kind, ...], one entry per served version
definitions()                      OpenAPI v3 schemas of the built-in kinds by definition name (`$ref` is a bare name)
kinds_of_crd(crd)                  one Kind per served version of a CustomResourceDefinition that validate() found fine
shipped_crds()                     the CustomResourceDefinitions of embedded/crds/*.yaml
decode_errors(kind, obj)           list[str], what no decoding can read: a 400
unknown_fields(kind, obj)          list[str], strict decoding messages
prune(kind, obj)                   in place: unknown fields go
defaults(kind, obj)                in place: nulls and empty optional fields go, structs and defaults come
isolate(kind, new, old, sub)       in place: the main resource keeps the old status, `status` keeps everything else
validate(kind, obj, old)           list[Cause], [] when fine; `old` None on create
invalid_text(kind, name, causes)   `Deployment.apps "x" is invalid: spec.replicas: Invalid value: ...`
has_generation(kind)               the server counts metadata.generation
"""

from __future__ import annotations

from embedded.kinds.builtin import builtin_kinds, definitions
from embedded.kinds.crd import kinds_of_crd, shipped_crds
from embedded.kinds.defaults import defaults
from embedded.kinds.kind import Column, Kind
from embedded.kinds.lifecycle import decode_errors, has_generation, invalid_text, isolate, prune, unknown_fields
from embedded.kinds.validation import validate

__all__ = [
    "BUILTIN",
    "Column",
    "Kind",
    "decode_errors",
    "defaults",
    "definitions",
    "has_generation",
    "invalid_text",
    "isolate",
    "kinds_of_crd",
    "prune",
    "shipped_crds",
    "unknown_fields",
    "validate",
]

BUILTIN: tuple[Kind, ...] = builtin_kinds()
