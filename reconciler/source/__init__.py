"""git revision -> files: the spec files (`files`), and the commits that branches stand at (`git`).

The only package that runs git, and the only one that opens spec files. The two are imported apart: reading files
needs nothing of git.
"""
