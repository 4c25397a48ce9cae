"""`python -m runtime fetch | build | serve | batch | copy | resolve`: what the containers of Trueup run."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an image of somebody's own may have any
    sys.exit(f"Trueup needs Python 3.11 or newer, and this image has {sys.version.split()[0]}")

import argparse
from importlib import import_module
from pathlib import Path

RESULT = Path("/dev/termination-log")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command, and returns its exit code. 2: the arguments are wrong."""
    options = _parser().parse_args(arguments)
    # Each command imports what it needs, and no more.
    code: int = import_module(f"runtime.{options.command}").main(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    fetch = commands.add_parser("fetch", help="write the code of a repository at one commit to a folder")
    fetch.add_argument("--repository", required=True, metavar="URL")
    fetch.add_argument("--into", required=True, type=_path, metavar="FOLDER")
    fetch.add_argument("--commit", help="its full id; without it nothing is fetched")
    fetch.add_argument("--credentials", type=_path, metavar="FOLDER", help="token [and username], or ssh-privatekey")
    fetch.add_argument("--copy-runtime", type=_path, metavar="FOLDER", help="also leave a copy of this program there")
    fetch.add_argument("--result", type=_path, default=RESULT, metavar="FILE")

    build = commands.add_parser("build", help="make an artifact of fetched code, test it, and store it")
    build.add_argument("--code", required=True, type=_path, metavar="FOLDER", help="what `fetch` wrote")
    build.add_argument("--folder", default="", help="the model's folder in it; default: the code's own")
    build.add_argument("--main-dir", default="main", metavar="FOLDER", help="the model's package in its folder")
    build.add_argument("--dependencies", metavar="FILE", help="requirements.txt, pyproject.toml or a conda file")
    build.add_argument("--include", action="append", default=[], metavar="FOLDER", help="of the code, to be imported")
    build.add_argument("--no-tests", dest="tests", action="store_false", help="do not run the model's own tests")
    validate = build.add_mutually_exclusive_group()
    validate.add_argument("--validate-timeout", type=int, default=120, metavar="SECONDS")
    validate.add_argument("--no-validate", dest="validate", action="store_false", help="do not try the artifact")
    build.add_argument("--result", type=_path, default=RESULT, metavar="FILE")

    serve = commands.add_parser("serve", help="answer predictions of a build")
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument("--metrics-port", type=int, default=9090)
    serve.add_argument("--workers", type=int, default=2, help="processes")
    serve.add_argument("--timeout-ms", type=int, default=5000, help="for one prediction")
    serve.add_argument("--max-batch-size", type=int, default=1)
    serve.add_argument("--preload", action="store_true", help="load the model once, before the workers are made")
    serve.add_argument("--shadow", action="store_true", help="what comes are copies: the inference log says so")

    batch = commands.add_parser("batch", help="predict on the files of a folder")
    batch.add_argument("--source", required=True, metavar="URL", help="the folder of the input: s3://bucket/folder")
    batch.add_argument("--destination", required=True, metavar="URL", help="the folder of the answers")
    types = ("csv", "feather", "parquet")
    batch.add_argument("--input-type", choices=types, default="parquet", help="files of other types are passed over")
    batch.add_argument("--output-type", choices=types, default="parquet")
    batch.add_argument("--run", required=True, metavar="ID", help="which run it is: a folder has the answers of one")
    batch.add_argument("--task-timeout", type=int, default=0, metavar="SECONDS", help="for one file; 0: no limit")
    batch.add_argument("--executors", type=int, default=1, help="how many share the files; JOB_COMPLETION_INDEX is one")
    batch.add_argument("--workspace", type=_path, metavar="FOLDER", help="for files under way; default: the system's")
    batch.add_argument("--result", type=_path, default=RESULT, metavar="FILE")

    copy = commands.add_parser("copy", help="leave a copy of this program, with what it imports, in a folder")
    copy.add_argument("--into", required=True, type=_path, metavar="FOLDER")

    resolve = commands.add_parser("resolve", help="say of requests which audience they belong to")
    resolve.add_argument("--port", type=int, default=8080)
    resolve.add_argument("--audiences", required=True, type=_path, metavar="FILE")
    return parser


def _path(text: str) -> Path:
    # What is started with it runs in folders of its own.
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
