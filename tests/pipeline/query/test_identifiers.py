"""Names of tags in the API's paths."""

from __future__ import annotations

import pytest

from pipeline.query.identifiers import Attribute, Intrinsic, identifier
from topics.errors import BadQuestionError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("resource.service.name", Attribute(("resource",), "service.name")),
        (".http.method", Attribute(("resource", "span"), "http.method")),
        ('span."a b"', Attribute(("span",), "a b")),
        ('span.a"b"c', Attribute(("span",), "abc")),
        (r'span."a\"b\\"', Attribute(("span",), 'a"b\\')),
        ("event.x", Attribute(("event",), "x")),
        ("instrumentation.y", Attribute(("scope",), "y")),
        (".5", Attribute(("resource", "span"), "5")),  # no number here
        ("name", Intrinsic("name")),
        ("span:kind", Intrinsic("kind")),
        ("trace:rootService", Intrinsic("rootServiceName")),
        ("span:id", Intrinsic("span:id")),
    ],
)
def test_a_tag_is_named_as_traceql_names_it(text: str, found: Attribute | Intrinsic) -> None:
    assert identifier(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x y", "is neither a scoped attribute"),
        ("", "is neither a scoped attribute"),
        ("foo.bar", "is neither a scoped attribute"),
        ("parent.a", "is neither a scoped attribute"),
        ("span:childCount", "is neither a scoped attribute"),
        (".", "does not parse: an attribute's name is missing behind ."),
        ('span."a', "does not parse: a quoted attribute name does not end"),
        ("span.a b", "does not parse at pos 7"),
        ("link.q}", "does not parse at pos 7"),
    ],
)
def test_anything_else_is_refused_and_says_why(text: str, said: str) -> None:
    with pytest.raises(BadQuestionError, match="please provide a valid tagName: ") as error:
        identifier(text)
    assert said in str(error.value)
