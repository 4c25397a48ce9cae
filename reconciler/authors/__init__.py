"""For those who write specs: what each field means, specs in order, and a repository to begin with.

fields      the language's own documentation, out of the JSON Schema; explained: as people read it
commented   YAML with its comments; layout: specs written in one way
starter     the files of a new repository
completion  what shells complete
files       the edge: spec files are written in order, and a repository is made
"""

#: The variable by which a shell asks for completions.
COMPLETION = "_RECONCILE_COMPLETE"
