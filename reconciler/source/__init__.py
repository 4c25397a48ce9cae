"""git revision -> files: the spec files, and the commits that branches stand at.

The only package that runs git, and the only one that opens spec files.

    files       the spec files of folders on this machine, and the rules for them
    git         where branches stand, and whether two commits differ: of repositories that specs name
    mirror      the daemon's own repository: polled, fetched, read at a commit
    repository  the bare repository of a mirror; tree: the rules of `files` for a commit in it
    signatures  who signed a commit
    commands    how git (and ssh-keygen, and gpg) is run, and what it gets to know

`files` is imported alone: reading folders needs nothing of git.
"""
