"""Durations, tag lists and trace IDs are read as Tempo reads them, and wrong ones are told where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.query.texts import duration_ns, tags_of, trace_id_of
from pipeline.traceql.durations import LONG_UNITS_NS
from topics.errors import BadQuestionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100ms", 10**8), ("1.5s", 1_500_000_000), ("1h30m", 5_400 * 10**9), ("0", 0), ("2us", 2000), (".5s", 5 * 10**8)],
)
def test_a_go_duration_is_read_in_nanoseconds(text: str, expected: int) -> None:
    assert duration_ns(text) == expected


@pytest.mark.parametrize("text", ["", "5", "1x", "s", "1d", "ms5", "1 s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadQuestionError, match="invalid duration"):
        duration_ns(text)


def test_a_prometheus_duration_has_days() -> None:
    assert duration_ns("2d", units=LONG_UNITS_NS) == 2 * 86_400 * 10**9


def test_a_short_trace_id_is_padded_with_zeros() -> None:
    assert trace_id_of("1a2b") == trace_id_of("00001a2b") == bytes(14) + b"\x1a\x2b"
    assert trace_id_of("abc") == bytes(14) + b"\x0a\xbc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xyz", "trace IDs can only contain hex characters: invalid character 'x' at position 1"),
        ("00g", "trace IDs can only contain hex characters: invalid character 'g' at position 3"),
        ("0" * 33, "trace IDs can't be larger than 128 bits"),
    ],
)
def test_a_wrong_trace_id_is_told_as_tempo_tells_it(text: str, message: str) -> None:
    with pytest.raises(BadQuestionError) as caught:
        trace_id_of(text)

    assert str(caught.value) == message


def test_a_tag_list_is_logfmt() -> None:
    assert tags_of('a=b  c="d e" f="say \\"hi\\"\\n" g= h') == {
        "a": "b",
        "c": "d e",
        "f": 'say "hi"\n',
        "g": "",
        "h": "",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b a=c", "invalid tags: tag a has been set twice"),
        ("=b", "invalid tags: unexpected '=' at pos 1"),
        ("a==b", "invalid tags: unexpected '=' at pos 3"),
        ('a="b', "invalid tags: unterminated quoted value at pos 3"),
        ('a"b', "invalid tags: unexpected '\"' at pos 2"),
    ],
)
def test_a_wrong_tag_list_is_told_where(text: str, message: str) -> None:
    with pytest.raises(BadQuestionError) as caught:
        tags_of(text)

    assert str(caught.value) == message


KEYS = st.text(st.characters(blacklist_characters='="', blacklist_categories=("Cs", "Cc", "Zs")), min_size=1)


@given(st.dictionaries(KEYS.filter(lambda key: all(c > " " for c in key)), st.text(st.characters(codec="utf-8"))))
def test_any_value_can_be_quoted(tags: dict[str, str]) -> None:
    text = " ".join(f'{key}="{_quoted(value)}"' for key, value in tags.items())

    assert tags_of(text) == tags


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
