"""From what a querier says of a missing trace to the place where it went missing; what a check makes of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.canary import checks
from agents.canary.known import Known, spans_of
from agents.canary.stages import CATALOG, CHUNK, KAFKA, LIVE, WORKER, stage_of
from agents.canary.state import State
from agents.commands.canary import ages_of, seconds
from agents.trace_answer import TraceAnswer
from topics.errors import BadQuestionError, KafkaUnavailableError, NotFoundError, SettingsError

KNOWN = Known(7, 1_700_000_000_000_000_000)
proto: Any = trace_pb2


def document(**other: Any) -> dict[str, Any]:
    said = {"partition": 2, "horizon": 100, "owner": "http://w", "places": [], "reasons": []}
    return said | other


def place(kind: str) -> dict[str, Any]:
    return {"kind": kind, "offsets": [50], "first": 40, "last": 60, "chunk": "c.parquet"}


STORED = {"kind": "store", "offset": 50, "chunk": "c.parquet"}
CASES = [
    (document(reasons=["chunk http://s/c.parquet cannot be read: gone"]), None, 50, CHUNK, "cannot be read"),
    (document(reasons=["Kafka does not answer: x"]), None, 50, KAFKA, "does not answer"),
    (document(places=[place("store")]), None, 50, CHUNK, "c.parquet"),
    (document(places=[place("live")]), None, 50, LIVE, "live segment"),
    (document(), None, None, KAFKA, "no record of it"),
    (document(), None, 150, WORKER, "http://w does not show it"),
    (document(owner=""), None, 150, WORKER, "no worker owns it"),
    (document(), {"kind": "live", "offset": 150, "chunk": ""}, None, LIVE, "live no more"),
    (document(), {"kind": "live", "offset": 50, "chunk": ""}, None, CHUNK, "no chunk that the catalog knows"),
    (document(), STORED, None, CATALOG, "c.parquet held it"),
    ({}, None, 50, "querier", "does not say"),
]


@pytest.mark.parametrize(("said", "seen", "offset", "stage", "shown"), CASES)
def test_a_missing_trace_is_followed_to_its_stage(
    said: dict[str, Any], seen: dict[str, Any] | None, offset: int | None, stage: str, shown: str
) -> None:
    found = stage_of(said, seen, lambda _partition, _known: offset, KNOWN)

    assert found[0] == stage
    assert shown in found[1]


def test_a_kafka_that_cannot_be_asked_is_the_stage() -> None:
    def away(_partition: int, _known: Known) -> int | None:
        raise KafkaUnavailableError("away")

    assert stage_of(document(), None, away, KNOWN) == (KAFKA, "away")


class Answering:
    """A querier that answers one trace and one document."""

    answers: ClassVar[dict[str, Any]] = {}

    def __init__(self, traces_data: Any, document: dict[str, Any], message: str = "") -> None:
        self._data, self._document, self._message = traces_data, document, message

    def trace(self, _trace_id: str) -> TraceAnswer:
        if self._data is None:
            raise NotFoundError("no span of it is known")
        return TraceAnswer(self._data, bool(self._message), self._message)

    def ask(self, _path: str, _parameters: Any) -> dict[str, Any]:
        return self._document


def written() -> Any:
    return proto.TracesData.FromString(KNOWN.request().SerializeToString())


def result(name: str, data: Any, document: dict[str, Any], message: str = "") -> str:
    querier: Any = Answering(data, document, message)
    return checks.checked(querier, KNOWN, name).result


def test_a_trace_by_id_is_compared_span_by_span() -> None:
    lacking, doubled, other = written(), written(), written()
    del lacking.resource_spans[0].scope_spans[0].spans[0]
    doubled.resource_spans.append(doubled.resource_spans[0])
    other.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.string_value = "another"

    assert result("by_id", written(), {}) == checks.OK
    assert result("by_id", None, {}) == checks.MISSING
    assert result("by_id", lacking, {}) == checks.MISSING
    assert result("by_id", lacking, {}, "a chunk is away") == checks.PARTIAL
    assert result("by_id", doubled, {}) == checks.DOUBLED
    assert result("by_id", other, {}) == checks.INCORRECT


def test_searches_and_tags_are_compared_with_what_was_written() -> None:
    found, another = {"traces": [{"traceID": KNOWN.trace_id.hex()}]}, {"traces": [{"traceID": "1"}]}

    assert result("search", None, found) == checks.OK
    assert result("search", None, another) == checks.INCORRECT
    assert result("search", None, {"traces": []}) == checks.MISSING
    assert result("search", None, {"status": "PARTIAL"}) == checks.PARTIAL
    assert result("tag_names", None, {"scopes": [{"tags": ["canary.id"]}]}) == checks.OK
    assert result("tag_names", None, {"scopes": []}) == checks.MISSING
    assert result("tag_values", None, {"tagValues": [{"value": KNOWN.name}]}) == checks.OK
    assert result("tag_values", None, {"tagValues": []}) == checks.MISSING


def test_a_known_trace_is_the_same_whenever_it_is_made() -> None:
    again = Known(KNOWN.seed, KNOWN.written_unix_ns)

    assert spans_of(again.request()) == spans_of(KNOWN.request())
    assert len({span_id for span_id, _ in spans_of(KNOWN.request())}) == len(spans_of(KNOWN.request()))
    assert spans_of(Known(8, KNOWN.written_unix_ns).request()) != spans_of(KNOWN.request())


def test_a_state_of_another_version_is_refused_by_a_sentence(tmp_path: Path) -> None:
    for text in (json.dumps({"version": 2, "pending": []}), "{", '{"version": 1, "pending": [{"x": 1}]}'):
        (tmp_path / "state").write_text(text)
        with pytest.raises(SettingsError, match="is no state of a canary"):
            State(tmp_path / "state", 10)


def test_ages_are_times_in_growing_order() -> None:
    assert ages_of("1m,0s,1.5h") == (0, 60, 5400)
    assert seconds("2d") == 172_800
    for wrong in ("", "5", "1w", ",".join(f"{n}s" for n in range(30))):
        with pytest.raises(BadQuestionError):
            ages_of(wrong)
