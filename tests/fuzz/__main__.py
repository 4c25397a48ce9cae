"""`python -m tests.fuzz [TARGET ...] [--seconds N] [--engine atheris|hypothesis]`: tries what strangers write.

`--replay BASE64` (or a file's name) tries one input again. What a target breaks on becomes a file of the corpus, under
a name that says what it was, so that it is tried first for ever.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

from tests.fuzz import campaign, worker
from tests.fuzz.targets.target import NAMES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(NAMES)}; none: all of them")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default: 60)")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), default=campaign.engine())
    parser.add_argument("--replay", metavar="BASE64|FILE", help="try this input, and nothing else")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(NAMES)):
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if options.replay:
        path = Path(options.replay)
        data = path.read_bytes() if len(options.replay) < 255 and path.is_file() else base64.b64decode(options.replay)
        said = [campaign.replay(target, data) for target in options.targets]
        print("\n".join(filter(None, said)) or "nothing happens")
        return int(any(said))
    if campaign.engine() == "hypothesis":
        print(worker.WITHOUT_ATHERIS)
    broken = 0
    for target in options.targets or NAMES:
        outcome = campaign.run(target, options.seconds, options.engine)
        print(outcome, flush=True)
        broken += outcome.broken_by is not None
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
