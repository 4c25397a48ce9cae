"""`runtime copy`: this program with what it imports, as a folder for PYTHONPATH.

An image of somebody's own has Python and nothing of ours. What is copied is pure Python, so that it works with any
version from 3.11 on; uv is one program that needs no library.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from runtime.exits import Exit
from runtime.installers import uv_program

#: The runtime, what talks to S3, and what reads conda's files.
_PACKAGES = ("runtime", "boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3", "yaml")
#: Of the 300 services that botocore describes, in more than 100 MB: the storage, and how to log in to it.
_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}


def main(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    try:
        copy_runtime(options.into)
    except OSError as error:
        sys.stderr.write(f"the runtime cannot be copied to {options.into}: {error}\n")
        return Exit.DISTURBED
    return Exit.DONE


def copy_runtime(into: Path) -> None:
    """Leaves the folder whole, in place of what was there. Raises OSError."""
    partial = into.with_name(f"{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for package in _PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue  # the storage is a folder, and no conda file is read
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, partial / package, ignore=_left_out)
        else:
            shutil.copyfile(origin, partial / origin.name)
    uv = uv_program()
    if uv is not None:
        (partial / "bin").mkdir()
        shutil.copy(uv, partial / "bin" / "uv")
    shutil.rmtree(into, ignore_errors=True)
    partial.rename(into)


def _left_out(folder: str, names: list[str]) -> set[str]:
    found = {name for name in names if name == "__pycache__" or name.endswith((".so", ".pyd"))}
    path = Path(folder)
    if path.parts[-2:] == ("botocore", "data"):
        found |= {name for name in names if (path / name).is_dir() and name not in _SERVICES}
    return found
