"""The overview page: what it shows, that it is bounded, and that nothing which somebody wrote means anything in it."""

from __future__ import annotations

import html
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.promotion import Ledger
from reconciler.records import Build, BuildStatus
from reconciler.telling import page
from reconciler.telling.page import Asked
from reconciler.telling.standing import Drift, EnvironmentStanding, Listed, State, listed
from renderers.catalog import Catalog, Placed
from tests.sample_records import a_build
from tests.sample_standing import NOW, Sample, a_sample, a_standing

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style><style>*{background:url(https://evil.example/)}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;script&gt;",
    "\x1b[2J\u202e\x00\r\n",
]
#: The elements and attributes of the template: whatever else appears comes from somewhere else.
ELEMENTS = frozenset(
    {
        *("html", "head", "meta", "link", "title", "style", "body", "header", "main", "section", "article", "nav"),
        *("h1", "h2", "h3", "h4", "p", "div", "span", "a", "strong", "code", "pre", "br", "time", "ul", "li"),
        *("dl", "dt", "dd", "details", "summary", "form", "label", "input", "button"),
        *("table", "thead", "tbody", "tr", "th", "td", "svg", "polyline", "rect"),
    }
)
ATTRIBUTES = frozenset(
    {
        *("lang", "charset", "name", "content", "rel", "href", "class", "datetime", "title", "id", "role"),
        *("aria-labelledby", "aria-label", "aria-hidden", "method", "action", "for", "value", "maxlength", "type"),
        *("scope", "data-label", "viewbox", "preserveaspectratio", "points", "vector-effect", "width", "height"),
    }
)
#: Within a line of text.
INLINE = frozenset({"span", "a", "strong", "code", "time"})
EVERYTHING = Asked()


class Reader(HTMLParser):
    """What a browser would find."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.text += "" if tag in INLINE else " "

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def links(self) -> list[str]:
        return [found["href"] or "" for tag, found in self.elements if tag == "a"]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return a_sample(tmp_path)


def read(sample: Sample, asked: Asked = EVERYTHING) -> Reader:
    return Reader(page.render(*sample, NOW, asked))


class TestShown:
    def test_where_everything_stands(self, sample: Sample) -> None:
        words = read(sample).words
        for part in (
            "main at 3f9a1c2e77aa, committed 9 min ago, applied 7 min ago. 31 specs.",
            "As of 12 s ago, told by trueup-0.",
            "12 of 40 objects of production would be deleted, more than 20%",
            "If that is meant: reconcile approve 3f9a1c2e77aa -e production",
            "not all specs could be read and rendered",
            "fraud, default: build 4e074085 to production AwaitingApproval a person has to approve",
            "specs/a.yaml:3:5 error: The threshold is no string. Try: '0.65' [schema/type]",
            "staging Synced Cluster lab",
            "40 ready, 2 in progress",
            "1 not settled churn: 1 of 2 pods are available (for 3 min)",
            "kubectl-edit changed spec.replicas, spec.template.spec.containers[0].image; it is mended (3 h ago)",
        ):
            assert part in words

    def test_what_is_served_to_whom(self, sample: Sample) -> None:
        words = read(sample).words
        assert "4b227777 80 %, ef2d127d 20 % RollingOut: 20 % since 11:57" in words
        assert "90 % of everybody else 100 % of audience clinics" in words
        assert "churn-phones eb221e5f" in words
        assert "25 % of audience clinics, copies" in words
        assert "100 % of all requests" in words

    def test_the_metrics_of_builds_over_time(self, sample: Sample) -> None:
        found = read(sample)
        labels = [attributes.get("aria-label") for tag, attributes in found.elements if tag == "svg"]
        assert "auc of churn-nightly: 0.925; 6 builds, from 0.900 to 0.925" in labels

    def test_a_model_by_itself_has_all_its_builds(self, sample: Sample) -> None:
        words = read(sample, Asked("churn")).words
        assert "e7f6c011 Failed" in words
        assert "dependencies: no such package: pandsa" in words
        assert "churn-nightly in staging, commit 012345678901 https://git.example/models.git auc 0.900" in words
        assert "Builds" not in read(sample).words

    def test_gate_decisions_with_their_evidence_the_newest_first(self, sample: Sample) -> None:
        words = read(sample).words
        assert "Inconclusive 60 s ago 12 of 20 requests so far" in words
        assert "Passed 2 h ago 0.925 is above 0.916 Above Metric auc 0.925 Threshold ABOVE 0.916 :model churn" in words
        assert "Answer 0.9, by duckdb in 12 ms" in words
        assert words.index("Inconclusive 60 s") < words.index("Passed 2 h")

    def test_a_report_that_is_old_says_so(self, sample: Sample) -> None:
        old = page.render(*sample, NOW.replace(hour=18))
        assert "The reconciler has not reported for 6 h" in Reader(old).words
        assert "has not reported" not in read(sample).words

    def test_where_there_is_nothing_yet_it_says_so(self) -> None:
        standing = replace(a_standing(), environments={}, specs=replace(a_standing().specs, problems=Listed()))
        words = read(Sample(standing, Ledger(), Catalog())).words
        assert "There are none." in words
        assert "Gate decisions None is on record." in words
        assert "Waiting for a person" not in words


class TestNarrowed:
    def test_by_a_part_of_the_name(self, sample: Sample) -> None:
        assert Asked.of("model=rau") == Asked("rau")
        words = read(sample, Asked("rau")).words
        assert "1 model." in words
        assert "churn, default" not in words

    def test_the_very_name_wins_over_longer_ones(self, sample: Sample) -> None:
        found = sample.catalog.variations["fraud", "default"]
        longer = Placed(found.spec.model_copy(update={"model": "churn-2"}), found.origin)
        catalog = replace(sample.catalog, variations={**sample.catalog.variations, ("churn-2", "default"): longer})
        assert "1 model." in read(sample._replace(catalog=catalog), Asked("churn")).words
        assert "2 models." in read(sample._replace(catalog=catalog), Asked("chur")).words

    def test_by_environment(self, sample: Sample) -> None:
        words = read(sample, Asked(environment="staging")).words
        assert "fraud" not in words
        assert "prune/budget" not in words

    def test_a_name_that_nothing_has_is_shown_as_it_was_asked_for(self, sample: Sample) -> None:
        found = read(sample, Asked.of("model=%3Cb%3E&environment=nowhere"))
        assert "There are none of this name." in found.words
        values = [attributes.get("value") for tag, attributes in found.elements if tag == "input"]
        assert values == ["<b>", "nowhere"]

    @given(st.text(max_size=300))
    def test_any_query_string_is_understood_or_left_alone(self, query: str) -> None:
        asked = Asked.of(query)
        assert 1 <= asked.page < 1_000_000
        assert max(len(asked.model), len(asked.environment)) <= 63

    def test_a_thousand_fields_are_nothing(self) -> None:
        assert Asked.of("&".join(f"a{number}=1" for number in range(1000))) == Asked()

    @given(st.text(max_size=40), st.integers(1, 99))
    def test_a_link_asks_for_what_it_says(self, name: str, number: int) -> None:
        asked = Asked(name.strip(), "prod", number)
        link = asked.link()
        assert urlsplit(link).path == ""
        assert not urlsplit(link).scheme
        assert not urlsplit(link).netloc
        assert Asked.of(link.removeprefix("?")).environment == "prod"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A thousand models, with ten builds and a drifted object each, in a hundred environments."""
    sample = a_sample(tmp_path_factory.mktemp("many"))
    found = sample.catalog.variations["churn", "default"]
    models = {
        (f"model-{n:04}", "default"): Placed(found.spec.model_copy(update={"model": f"model-{n:04}"}), found.origin)
        for n in range(1000)
    }
    builds = (
        a_build(model=f"model-{n % 1000:04}", id=f"{n:064x}", status=BuildStatus(metrics={"auc": f"0.{n}"}))
        for n in range(10_000)
    )
    drift = listed(Drift(f"Service/e/{n}", since=NOW) for n in range(50))
    standing = replace(
        sample.standing,
        environments={f"e{n}": EnvironmentStanding(state=State.SYNCED, drift=drift) for n in range(100)},
    )
    ledger = Ledger({f"b{number}": build for number, build in enumerate(builds)}, sample.ledger.promotions)
    return Sample(standing, ledger, replace(sample.catalog, variations=models))


class TestBounded:
    def test_a_thousand_models_come_in_pages(self, many: Sample) -> None:
        first, last = read(many), read(many, Asked(page=21))
        assert "1002 models, page 1 of 21." in first.words
        assert "model-0999" in last.words
        assert "?page=2" in first.links
        assert "?page=20" in last.links

    def test_a_page_beyond_the_last_is_the_last(self, many: Sample) -> None:
        assert "page 21 of 21." in read(many, Asked(page=999_999)).words

    def test_it_is_small_and_soon_there(self, many: Sample) -> None:
        page.render(*many, NOW)
        began = time.process_time()
        shown = page.render(*many, NOW)
        assert time.process_time() - began < 1
        assert len(shown) < 400_000

    def test_what_is_left_out_is_counted(self, many: Sample) -> None:
        words = read(many).words
        assert "and 4950 more drifted objects" in words
        assert "and 50 more environments" in words


class TestHostile:
    """T80: HTML and `javascript:` in names, messages and addresses."""

    @pytest.mark.parametrize("words", HOSTILE)
    @pytest.mark.parametrize("asked", [Asked(), Asked("churn"), Asked("<script>", "' autofocus '")])
    def test_nothing_that_somebody_wrote_becomes_markup(self, tmp_path: Path, words: str, asked: Asked) -> None:
        found = read(a_sample(tmp_path, words), asked)
        assert {tag for tag, _ in found.elements} <= ELEMENTS
        assert {name for _, attributes in found.elements for name in attributes} <= ATTRIBUTES

    @pytest.mark.parametrize("words", HOSTILE)
    def test_links_lead_to_the_page_itself_or_elsewhere_by_https(self, tmp_path: Path, words: str) -> None:
        links = read(a_sample(tmp_path, words), Asked("churn")).links
        assert all(link.startswith(("?", "#", "https://")) for link in links)

    def test_what_is_escaped_can_still_be_read(self, tmp_path: Path) -> None:
        assert "<script>alert(1)</script>" in read(a_sample(tmp_path, HOSTILE[0])).text
        assert "{{ 7 * 7 }}" in read(a_sample(tmp_path, HOSTILE[5])).text

    def test_control_characters_are_shown_and_have_no_effect(self, tmp_path: Path) -> None:
        text = html.unescape(page.render(*a_sample(tmp_path, HOSTILE[-1]), NOW).decode())
        assert not re.search(r"[\x00\x1b\r\u202e]", text)
        assert "\\u202e" in text

    @pytest.mark.parametrize(
        "address",
        [
            "http://git.example/m.git",
            "javascript:alert(1)",
            "JAVASCRIPT:alert(1)",
            " https://git.example/m.git",
            "https://user:token@git.example/m.git",
            "https://",
            "https:git.example",
            "https://git.example\\@evil.example/",
            "https://[::1",
            "https://git.example/\u202e",
            "https://git.example/a b",
            "ssh://git@git.example/m.git",
            "data:text/html,hello",
            "//evil.example/",
        ],
    )
    def test_an_address_that_is_not_plainly_https_is_no_link(self, address: str) -> None:
        assert page._https(address) == ""

    def test_an_address_by_https_is_one(self) -> None:
        assert page._https("https://git.example:8443/acme/models.git") == "https://git.example:8443/acme/models.git"

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
    @given(words=st.text(max_size=40))
    def test_any_text_gives_a_page_of_the_same_shape(self, tmp_path: Path, words: str) -> None:
        document = page.render(*a_sample(tmp_path, words), NOW)
        assert {tag for tag, _ in Reader(document).elements} <= ELEMENTS


class TestPolicy:
    def test_it_allows_the_one_style_sheet_and_nothing_else(self, sample: Sample) -> None:
        directives = dict(part.strip().partition(" ")[::2] for part in page.CSP.split(";"))
        assert directives["default-src"] == "'none'"
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", directives["style-src"])
        found = read(sample)
        assert sum(tag == "style" for tag, _ in found.elements) == 1
        assert not any("style" in attributes or tag == "script" for tag, attributes in found.elements)

    def test_it_is_the_same_bytes_for_the_same_facts(self, sample: Sample) -> None:
        assert page.render(*sample, NOW) == page.render(*sample, NOW)


class TestSparks:
    def drawn(self, *values: str) -> list[Any]:
        builds: list[Build] = [
            a_build(id=f"{number:064x}", automation="nightly", status=BuildStatus(metrics={"auc": value}))
            for number, value in enumerate(values)
        ]
        return list(page._sparks(builds))

    @given(st.lists(st.one_of(st.decimals().map(str), st.text(max_size=8)), max_size=80))
    def test_whatever_a_model_logged_a_line_stays_in_its_frame(self, values: list[str]) -> None:
        for spark in self.drawn(*values):
            for point in spark.points.split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= 120
                assert 0 <= y <= 24

    def test_what_is_no_number_is_left_out(self) -> None:
        assert self.drawn("NaN", "Infinity", "soon") == []
        (spark,) = self.drawn("NaN", "0.5")
        assert spark.label == "auc of nightly: 0.5; 1 build"

    def test_a_metric_that_grows_goes_up(self) -> None:
        (spark,) = self.drawn("1", "2", "3")
        assert spark.points == "0.0,22.0 60.0,12.0 120.0,2.0"
