"""The lenient dialect of filters beside tag names and values: what an editor has of a query while it is typed."""

from __future__ import annotations

import re

from pipeline.traceql import tree
from pipeline.traceql.check import RegexError, compiled
from topics.errors import BadQuestionError

GROUPS_MAX, CONDITIONS_MAX = 100, 200
_PART = re.compile(r'"(?:[^"\\]|\\.)*"?|`[^`]*`?|&&|\|\||[^"`&|]+|[&|]')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`')
_OTHER = re.compile(r"[(){}|]")


def matchers_of(text: str, regex_error: RegexError) -> tree.Field | None:
    """The condition that a text comes to: comparisons of a field with a literal, joined by && and, looser, by ||.

    Of one spanset alone; what is only half typed, or is about the whole trace, is left out. None where there is nothing
    to go by, so that nothing is filtered. Raises BadQuestionError for too many alternatives or conditions.
    """
    groups: list[list[tree.Field]] = []
    for group in _groups(text):
        matchers = [found for part in group if (found := _matcher(part, regex_error)) is not None]
        if matchers:
            groups.append(matchers)
    if len(groups) > GROUPS_MAX:
        raise BadQuestionError(
            f"maximum condition groups reached (limit: {GROUPS_MAX}). the filter has {len(groups)} alternatives"
        )
    if (conditions := max(map(len, groups), default=0)) > CONDITIONS_MAX:
        raise BadQuestionError(f"an alternative of the filter has {conditions} conditions, more than {CONDITIONS_MAX}")
    return _joined("||", [_joined("&&", group) for group in groups]) if groups else None


def _groups(text: str) -> list[list[str]]:
    """Alternatives, each a list of what holds together, as texts. None where the text is no single spanset of such."""
    body = text.strip()
    if not body.startswith("{"):
        return []
    body = body[1:-1] if body.endswith("}") else body[1:]
    if _OTHER.search(_STRING.sub("", body).replace("||", "")):
        return []
    groups: list[list[str]] = [[""]]
    for part in _PART.findall(body):
        if part == "||":
            groups.append([""])
        elif part == "&&":
            groups[-1].append("")
        else:
            groups[-1][-1] += part
    return groups


def _matcher(text: str, regex_error: RegexError) -> tree.Field | None:
    """A comparison with a literal, None for anything else."""
    try:
        body = compiled(f"{{ {text} }}", regex_error).body
    except BadQuestionError:
        return None
    stage = body.stages[0] if isinstance(body, tree.Pipeline) and len(body.stages) == 1 else None
    condition = stage.condition if isinstance(stage, tree.Filter) else None
    if not isinstance(condition, tree.Binary) or condition.op not in tree.COMPARISONS:
        return None
    sides = sorted((condition.left, condition.right), key=lambda side: isinstance(side, tree.Static))
    named = isinstance(sides[0], tree.Attribute | tree.Intrinsic)
    return condition if named and isinstance(sides[1], tree.Static) else None


def _joined(operator: str, conditions: list[tree.Field]) -> tree.Field:
    """In halves: a tree that is as flat as can be."""
    if len(conditions) == 1:
        return conditions[0]
    half = (len(conditions) + 1) // 2
    return tree.Binary(operator, _joined(operator, conditions[:half]), _joined(operator, conditions[half:]))
