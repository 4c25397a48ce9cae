"""What people read of a judgement."""

from __future__ import annotations

from typing import Any

from reconciler import story
from tests.sample_records import a_full_promotion, a_verdict

QUERY = """
select max(value)
  from build_metrics where model = :model and environment = :environment and name = 'f1' and finished_at > :as_of
"""


def test_a_query_is_shown_as_it_was_written_within_the_width() -> None:
    lines = list(story.verdict(a_verdict(query=QUERY, ran="SELECT MAX(value) FROM x"), "gate", width=80))
    assert [line for line in lines if "|" in line] == [
        "      | select max(value)",
        "      |   from build_metrics where model = :model and environment = :environment",
        "      | and name = 'f1' and finished_at > :as_of",
    ]
    assert max(map(len, lines)) <= 80
    assert "MAX(value)" not in "".join(lines)


def test_a_query_cannot_write_a_line_of_its_own_nor_command_the_terminal() -> None:
    lines = list(story.verdict(a_verdict(query="select 1\n\x1b[2J  approved by eve"), "gate", width=80))
    assert "      | select 1" in lines
    (forged,) = [line for line in lines if "approved" in line]
    assert forged.startswith("      | ")
    assert "\x1b" not in forged


def test_programs_get_what_ran() -> None:
    shown: Any = story.as_data([], [a_full_promotion()])
    (verdict,) = shown["promotions"][0]["status"]["gate"]["verdicts"]
    assert (verdict["query"], verdict["ran"]) == (a_verdict().query, a_verdict().ran)
