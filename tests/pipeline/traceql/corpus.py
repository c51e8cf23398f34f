"""Queries that the language's tests agree on: valid ones, and wrong ones with a piece of what is said about them."""

from __future__ import annotations

import re

# Query -> the text of its checked tree
VALID = {
    "{}": "{}",
    "{ true }": "{}",
    "{ .up }": "{ .up }",
    "{ !.up }": "{ !.up }",
    "{ span.code >= 500 && span.code < 600 }": "{ span.code >= 500 && span.code < 600 }",
    "{ duration > 1.5s }": "{ duration > 1.5s }",
    "{ 2h < traceDuration }": "{ 2h < traceDuration }",
    "{ kind = server && status = error }": "{ kind = server && status = error }",
    "{ name =~ `GET .*` }": '{ name =~ "GET .*" }',
    '{ span."my key" = 1 }': '{ span."my key" = 1 }',
    "{ -.n < 3 }": "{ -.n < 3 }",
    "{ .n + 1 = 2 }": "{ .n + 1 = 2 }",
    "{ 1 = 2 }": "{ false }",
    "{ .a = nil }": "{ .a = nil }",
    "{ name != nil }": "{ name != nil }",
    "{ nil = nil }": "{ false }",
    '{.a="x"}>>{.b="y"}': '{ .a = "x" } >> { .b = "y" }',
    "({ .a } | count() > 1) && ({ .b })": "({ .a } | count() > 1) && { .b }",
    "count() > 3 | { .x }": "count() > 3 | { .x }",
    "avg(.n) > 1": "avg(.n) > 1",
    "{} | by(.n * 2) | max(duration) < 1s": "{} | by(.n * 2) | max(duration) < 1s",
    "{} | select(.a, name, span:id)": "{} | select(.a, name, span:id)",
    "{} | by(name) | coalesce() | count() > 2": "{} | by(name) | coalesce() | count() > 2",
    "{} | rate() by (resource.service.name) | topk(3) > 0.5": "{} | rate() by (resource.service.name) | topk(3) > 0.5",
    "{} | quantile_over_time(duration, 0.5, .99)": "{} | quantile_over_time(duration, 0.5, 0.99)",
    "{} | histogram_over_time(duration) by (name)": "{} | histogram_over_time(duration) by (name)",
    "{} | compare({ status = error }, 5)": "{} | compare({ status = error }, 5)",
    "{} | rate() > -3 with(sample=0.1)": "{} | rate() > -3 with(sample=0.1)",
    "{ span:childCount > 2 }": "{ span:childCount > 2 }",
    "{ parent.a = 1 }": "{ parent.a = 1 }",
    "{ parent.resource.service.name != resource.service.name }": (
        "{ parent.resource.service.name != resource.service.name }"
    ),
    "{ parent = nil }": "{ parent = nil }",
    "min(.a) < max(.b)": "min(.a) < max(.b)",
    "max(duration) > 2 * avg(duration)": "max(duration) > 2 * avg(duration)",
    "2 < count()": "2 < count()",
    "({} | count()) > ({ .a } | count())": "({} | count()) > ({ .a } | count())",
    "({} | rate()) / ({ .a } | rate()) > 0.5 | topk(2)": "({} | rate()) / ({ .a } | rate()) > 0.5 | topk(2)",
    "{} | compare({ .a }, 5, 1000, 2000)": "{} | compare({ .a }, 5, 1000, 2000)",
}
# The whole sentence behind `invalid TraceQL query: parse error at `
SYNTAX_ERRORS = {
    "true": "line 1, col 5: syntax error: unexpected end of query, expecting comparison or arithmetic operator",
    "{ . }": "line 1, col 3: syntax error: an attribute's name is missing behind .",
    "{ foo = 1 }": "line 1, col 3: syntax error: unknown identifier: foo (did you mean .foo?)",
    "{ durration > 1s }": "line 1, col 3: syntax error: unknown identifier: durration (did you mean duration?)",
    "{ .a == 1 }": "line 1, col 6: syntax error: unexpected ==, expecting operator or } (did you mean =?)",
    "{ .a = 'x' }": (
        "line 1, col 8: syntax error: unexpected ', strings stand in double quotes or backticks (did you mean \"?)"
    ),
    "{} + {}": "line 1, col 4: syntax error: unexpected +, expecting spanset operator, |, with or end of query",
    "{} | count()": (
        "line 1, col 13: syntax error: unexpected end of query, expecting comparison or arithmetic operator "
        "(did you mean count() > 0?)"
    ),
    "coalesce() | {}": (
        "line 1, col 1: syntax error: unexpected coalesce, expecting {, (, by, select, number or aggregate "
        "(did you mean {} | coalesce()?)"
    ),
    "select()": "line 1, col 8: syntax error: unexpected ), expecting attribute or intrinsic",
    "{} | select(1 + .a)": "line 1, col 13: syntax error: unexpected 1, expecting attribute or intrinsic",
    "{} | topk(3)": (
        "line 1, col 6: syntax error: unexpected topk, expecting {, (, by, coalesce, select, number, "
        "aggregate or metrics function (did you mean {} | rate() | topk(5)?)"
    ),
    "{} | rate() | topk(-1)": "line 1, col 20: syntax error: unexpected -, expecting integer",
    "{ trace:status = ok }": (
        "line 1, col 3: syntax error: unknown intrinsic: trace:status (did you mean span:status?)"
    ),
    "{} == 3": "line 1, col 4: syntax error: unexpected ==, expecting spanset operator, |, with or end of query",
    "{ .a = 1\n  .b = 2 }": "line 2, col 3: syntax error: unexpected .b, expecting operator or }",
    "{ .a = 1 and .b }": "line 1, col 10: syntax error: unexpected and, expecting operator or } (did you mean &&?)",
    "{ resources.x = 1 }": "line 1, col 3: syntax error: unknown scope: resources. (did you mean resource.?)",
    'name = "x"': (
        "line 1, col 1: syntax error: unexpected name, expecting {, (, by, select, number or aggregate "
        "(did you mean { name ... }?)"
    ),
    "{} | cuont() > 3": (
        "line 1, col 6: syntax error: unexpected cuont, expecting {, (, by, coalesce, select, number, "
        "aggregate or metrics function (did you mean count?)"
    ),
    "{ .a =~ }": "line 1, col 9: syntax error: unexpected }, expecting attribute, intrinsic, literal, !, - or (",
    "{} | by(name": "line 1, col 13: syntax error: unexpected end of query, expecting operator or )",
    "{} && 3": "line 1, col 7: syntax error: unexpected 3, expecting { or (",
    "{} && by(.a)": "line 1, col 7: syntax error: unexpected by, expecting { or (",
    "count() > name": "line 1, col 11: syntax error: unexpected name, expecting number or aggregate",
    "({} | rate()) / .a": "line 1, col 17: syntax error: unexpected .a, expecting number or metrics in brackets",
    "{ parent.parent.a = 1 }": (
        "line 1, col 3: syntax error: parent.parent is not supported: only a span and its own parent can be compared"
    ),
}
TYPE_ERRORS = {
    "{ 1 }": "span filter field expressions must resolve to a boolean: { 1 } (at line 1, col 1)",
    "{ name }": "span filter field expressions must resolve to a boolean: { name } (at line 1, col 1)",
    "{ name = 1 }": "binary operations must operate on the same type: name = 1 (at line 1, col 3)",
    "{ rootName != 3.2 }": "binary operations must operate on the same type: rootName != 3.2 (at line 1, col 3)",
    '{ 1 + "x" = 2 }': 'binary operations must operate on the same type: 1 + "x" (at line 1, col 3)',
    "{ status > ok }": "illegal operation for the given types: status > ok (at line 1, col 3)",
    "{ span.a =~ 3 }": "illegal operation for the given types: span.a =~ 3 (at line 1, col 3)",
    "{ span.a =~ .b }": "invalid regex: span.a =~ .b: it must be a string literal (at line 1, col 3)",
    '{ span.a =~ "[" }': 'invalid regex: span.a =~ "[": missing closing ] (at line 1, col 3)',
    "{ -true }": "illegal operation for the given types: -true (at line 1, col 3)",
    "{ !1 = 1 }": "illegal operation for the given types: !1 (at line 1, col 3)",
    "{ status = nil }": "status = nil: intrinsics cannot be nil (at line 1, col 3)",
    "{ resource.service.name = nil }": (
        "resource.service.name = nil: intrinsics cannot be nil, nor can resource.service.name (at line 1, col 3)"
    ),
    "sum(3) = 2": "aggregate field expressions must reference the span: sum(3) (at line 1, col 1)",
    "{} | by(1)": "grouping field expressions must reference the span: by(1) (at line 1, col 6)",
    "{} | rate() | topk(0)": "limit must be greater than 0: | topk(0) (at line 1, col 15)",
    "{} | compare({}) | topk(1)": "nothing can follow compare(): | topk(1) (at line 1, col 20)",
    "3 = 2": "scalar filters without an aggregate are not yet supported: 3 = 2 (at line 1, col 1)",
}


def regex_error(regex: str) -> str | None:
    """For tests: Python's own engine, with one of RE2's sentences."""
    try:
        re.compile(regex)
    except re.error as exc:
        return "missing closing ]" if "unterminated character set" in str(exc) else str(exc)
    return None
