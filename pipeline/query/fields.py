"""TraceQL's field expressions in SQL over rows of spans, each with what is known of its trace in columns beside it.

The row has the columns of a span table and those of pipeline.query.trace_rows: the parent's, named PARENT + column,
and what only the whole trace tells. A truth is never null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.query.chunks import Present
from pipeline.query.engine import quoted
from pipeline.query.identifiers import SCOPE_OF
from pipeline.query.sql import FALSE, TRUE, Sql, all_of, any_of, bound, sql
from pipeline.query.values import TYPE_NAMES, Value, alternative, compared, computed, literal, negative
from pipeline.spans import schema
from pipeline.traceql import tree

PARENT = "parent "  # in front of a column: that of the parent span. No attribute's column has a blank before its dot
CHILD_COUNT, HAS_PARENT, TRACE_DURATION = "trace child_count", "trace has_parent", "trace duration_ns"
ROOT_NAME, ROOT_SERVICE = "trace root_name", "trace root_service"
NESTED_LEFT, NESTED_RIGHT, NESTED_PARENT = "trace nested_left", "trace nested_right", "trace nested_parent"
LISTED_BY = {"event": "event_time_unix_ns", "link": "link_span_id"}  # a list that has an element for each
STATUS = {word: number for number, word in enumerate(tree.STATUSES)}
KINDS = {word: number for number, word in enumerate(tree.KINDS)}
ELEMENT_TYPES = {"string": "VARCHAR", "int": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}
OF_TRACE = {
    "span:childCount": (CHILD_COUNT, "int"),
    "trace:duration": (TRACE_DURATION, "duration"),
    "trace:rootName": (ROOT_NAME, "string"),
    "trace:rootService": (ROOT_SERVICE, "string"),
    "nestedSetLeft": (NESTED_LEFT, "int"),
    "nestedSetRight": (NESTED_RIGHT, "int"),
    "nestedSetParent": (NESTED_PARENT, "int"),
}
PLAIN = {
    "span:duration": ("{}", "duration_ns", "duration"),
    "span:name": ("coalesce({}, '')", "name", "string"),
    "span:status": ("coalesce({}, 0)", "status_code", "status"),
    "span:statusMessage": ("coalesce({}, '')", "status_message", "string"),
    "span:kind": ("coalesce({}, 0)", "kind", "kind"),
    "span:id": ("lower(hex({}))", "span_id", "string"),
    "trace:id": ("lower(hex({}))", "trace_id", "string"),
    "span:parentID": (f"coalesce(nullif(lower(hex({{}})), ''), '{'0' * 16}')", "parent_span_id", "string"),
    "instrumentation:name": ("coalesce({}, '')", "scope_name", "string"),
    "instrumentation:version": ("coalesce({}, '')", "scope_version", "string"),
}
LISTED = {
    "event:name": ("{}", "event_name"),
    "link:traceID": ("lower(hex({}))", "link_trace_id"),
    "link:spanID": ("lower(hex({}))", "link_span_id"),
}


@dataclass(frozen=True, slots=True)
class FieldSql:
    """Compiles expressions. `columns` grows by what they read.

    present: which attribute columns there are. element: scope -> the number of the event or link at hand.
    """

    present: Present
    columns: set[str] = field(default_factory=set)
    element: Mapping[str, str] = field(default_factory=dict)

    # ---- truths

    def truth(self, node: tree.Field) -> Sql:
        """Whether the expression is true of the row; never null."""
        if (scope := self._first_listed(node)) is not None and not isinstance(node, tree.Unary):
            return self._truth_of_listed(node, scope)
        if isinstance(node, tree.Static):
            return TRUE if node.value is True else FALSE
        if isinstance(node, tree.Unary) and node.op == "!":
            return sql("NOT {}", self.truth(node.operand))
        if isinstance(node, tree.Binary) and node.op in tree.SET_OPERATORS:
            both = (self.truth(each) for each in operands(node, node.op))
            return all_of(both) if node.op == "&&" else any_of(both)
        if isinstance(node, tree.Binary) and node.op in tree.COMPARISONS:
            return self._comparison(node)
        return compared("=", self.value(node), literal("bool", True))

    def _comparison(self, node: tree.Binary) -> Sql:
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(other, tree.Static) and other.type == "nil":
                return self._nil(one, absent=node.op == "=")
        left, right = self.value(node.left), self.value(node.right)
        if tree.Intrinsic("trace:id") in (node.left, node.right) and node.op in ("=", "!="):
            left, right = _without_zeros(left), _without_zeros(right)
        return compared(node.op, left, right)

    def _nil(self, node: tree.Field, *, absent: bool) -> Sql:
        if isinstance(node, tree.Static):  # nil = nil, and nil != nil: neither holds
            return FALSE
        if node == tree.Intrinsic("parent"):
            there = typed = self._column(HAS_PARENT)
        elif isinstance(node, tree.Attribute) and not node.scope and absent:
            return any_of(self._nil(replace(node, scope=scope), absent=True) for scope in ("span", "resource"))
        else:
            value = self.value(node)
            there, typed = value.there, value.has_type()
        return all_of([sql("NOT {}", there), *self._carrier_there(node)]) if absent else typed

    def _carrier_there(self, node: tree.Field) -> list[Sql]:
        """An attribute of an event, a link or a scope is absent only where that has some attribute."""
        if not isinstance(node, tree.Attribute) or node.scope not in ("event", "link", "instrumentation"):
            return []
        scope = SCOPE_OF[node.scope]
        names = sorted(name for name in self.present.columns if name.startswith(f"{scope}."))
        more = self._element(schema.more_column(scope), node.scope)
        return [
            any_of(
                [
                    *(sql("{} IS NOT NULL", self._element(name, node.scope)) for name in names),
                    sql("coalesce(cardinality({}) > 0, false)", more),
                ]
            )
        ]

    # ---- events and links

    def _first_listed(self, node: tree.Field) -> str | None:
        """A scope of lists that the expression reads, without being inside one of its elements."""
        return next((scope for scope in LISTED_BY if scope not in self.element and reads_scope(node, scope)), None)

    def _truth_of_listed(self, node: tree.Field, scope: str) -> Sql:
        """Conditions of events (links) that are joined by && hold of one and the same event."""
        if isinstance(node, tree.Binary) and node.op == "||":
            return any_of((self.truth(node.left), self.truth(node.right)))
        if isinstance(node, tree.Binary) and node.op == "&&":
            inside = [each for each in operands(node, "&&") if reads_scope(each, scope) and not _is_for_itself(each)]
            outside = [each for each in operands(node, "&&") if each not in inside]
            return all_of([*([self._some_element(scope, inside)] if inside else []), *map(self.truth, outside)])
        return self._some_element(scope, [node])

    def _some_element(self, scope: str, nodes: list[tree.Field]) -> Sql:
        variable = f"at_{scope}"
        inner = replace(self, element={**self.element, scope: variable})
        condition = all_of(map(inner.truth, nodes))
        listed = self._column(LISTED_BY[scope])
        template = f"coalesce(len(list_filter(range(1, len({{}}) + 1), lambda {variable}: {{}})) > 0, false)"
        return sql(template, listed, condition)

    def _element(self, column: str, scope: str) -> Sql:
        """A column, or of the columns of events and links what the one at hand has."""
        whole = self._column(column)
        return sql(f"{{}}[{self.element[scope]}]", whole) if scope in self.element else whole

    # ---- values

    def value(self, node: tree.Field) -> Value:
        """A value for the row."""
        if isinstance(node, tree.Static):
            return self._literal(node)
        if (scope := self._first_listed(node)) is not None and not _is_condition(node):
            return self._first(node, scope)
        if isinstance(node, tree.Attribute | tree.Intrinsic):
            return self._attribute(node) if isinstance(node, tree.Attribute) else self._intrinsic(node.name)
        if isinstance(node, tree.Unary) and node.op == "-":
            return negative(self.value(node.operand))
        if isinstance(node, tree.Binary) and node.op in tree.ARITHMETIC:
            return computed(node.op, self.value(node.left), self.value(node.right))
        return Value({"bool": self.truth(node)}, TRUE)

    def _first(self, node: tree.Field, scope: str) -> Value:
        """Where a value is wanted and no condition: that of the first event (link) that gives one."""
        variable = f"at_{scope}"
        inner = replace(self, element={**self.element, scope: variable}).value(node)
        numbers = sql("range(1, len({}) + 1)", self._column(LISTED_BY[scope]))
        first = sql(f"list_filter({{}}, lambda {variable}: {{}})[1]", numbers, inner.has_type())
        of = {
            type_: sql(f"list_transform([{{}}], lambda {variable}: {{}})[1]", first, each)
            for type_, each in inner.of.items()
        }
        return Value(of, Value(of).has_type())

    @staticmethod
    def _literal(node: tree.Static) -> Value:
        words = {"status": STATUS, "kind": KINDS}
        if node.type in words:
            return literal(node.type, words[node.type][str(node.value)])
        return literal(node.type, node.value)

    def _attribute(self, node: tree.Attribute) -> Value:
        prefix = PARENT if node.parent else ""
        if not node.scope:
            return alternative(*(self.of_key(scope, node.name, prefix) for scope in ("span", "resource")))
        found = self.of_key(SCOPE_OF[node.scope], node.name, prefix)
        if (node.scope, node.name) == ("resource", "service.name"):
            text = sql("coalesce({}, '')", found.of.get("string", Sql("NULL")))
            if node.parent:
                text = sql("CASE WHEN {} THEN {} END", self._column(HAS_PARENT), text)
            return Value({"string": text}, sql("{} IS NOT NULL", text))
        return found

    def of_key(self, scope: str, key: str, prefix: str = "") -> Value:
        """An attribute's value. scope: ours; prefix: PARENT for the parent's."""
        of: dict[str, Sql] = {}
        there: list[Sql] = []
        for type_ in (*TYPE_NAMES, *(f"{one}[]" for one in TYPE_NAMES), "any"):
            name = schema.column_name(scope, key, type_)
            if self.present.has(name):
                self._add(of, there, type_, self._element(prefix + name, scope))
        if self.present.has_more(scope, key):
            more = self._element(prefix + schema.more_column(scope), scope)
            entry = sql("{}[{}]", more, bound(key))
            there.append(sql("coalesce(map_contains({}, {}), false)", more, bound(key)))
            for type_ in TYPE_NAMES:
                self._add(of, [], type_, sql(f"{{}}.{quoted(type_)}", entry))
                elements = sql(f"array_elements({{}}.\"any\", '{type_}_value')", entry)
                cast = sql(f"list_transform({{}}, lambda v: v::{ELEMENT_TYPES[type_]})", elements)
                self._add(of, [], f"{type_}[]", sql("CASE WHEN len({}) > 0 THEN {} END", elements, cast))
        return Value(of, any_of(there))

    @staticmethod
    def _add(of: dict[str, Sql], there: list[Sql], type_: str, found: Sql) -> None:
        there.append(sql("{} IS NOT NULL", found))
        if type_ == "any":
            return
        name = TYPE_NAMES[type_.removesuffix("[]")] + ("[]" if type_.endswith("[]") else "")
        of[name] = sql("coalesce({}, {})", of[name], found) if name in of else found

    def _intrinsic(self, name: str) -> Value:
        if name in PLAIN:
            template, column, type_ = PLAIN[name]
            return Value({type_: sql(template, self._column(column))}, TRUE)
        if name in OF_TRACE:
            column, type_ = OF_TRACE[name]
            found = self._column(column)
            return Value({type_: found}, sql("{} IS NOT NULL", found))
        if name == "event:timeSinceStart":
            time, start = self._element("event_time_unix_ns", "event"), self._column("start_unix_ns")
            return Value({"duration": sql("{}::HUGEINT - {}", time, start)}, sql("{} IS NOT NULL", time))
        template, column = LISTED[name]
        text = sql(template, self._element(column, name.partition(":")[0]))
        return Value({"string": text}, sql("{} IS NOT NULL", text))

    def _column(self, name: str) -> Sql:
        self.columns.add(name)
        return Sql(quoted(name))


def operands(node: tree.Field, op: str) -> list[tree.Field]:
    """What a row of && (or ||) joins."""
    if isinstance(node, tree.Binary) and node.op == op:
        return [*operands(node.left, op), *operands(node.right, op)]
    return [node]


def _is_condition(node: tree.Field) -> bool:
    if isinstance(node, tree.Unary):
        return node.op == "!"
    return isinstance(node, tree.Binary) and node.op in (*tree.COMPARISONS, *tree.SET_OPERATORS)


def _is_for_itself(node: tree.Field) -> bool:
    """Operands of && that look at events for themselves."""
    return isinstance(node, tree.Unary | tree.Binary) and node.op in ("!", *tree.SET_OPERATORS)


def _without_zeros(value: Value) -> Value:
    """Of a trace ID leading zeros do not count."""
    of = {type_: sql("ltrim({}, '0')", each) for type_, each in value.of.items() if type_ == "string"}
    return Value(of, value.there)


def leaves(node: tree.Field) -> list[tree.Attribute | tree.Intrinsic]:
    """The attributes and intrinsics that an expression reads, in order."""
    match node:
        case tree.Binary():
            return [*leaves(node.left), *leaves(node.right)]
        case tree.Unary():
            return leaves(node.operand)
        case tree.Static():
            return []
        case _:
            return [node]


def reads_scope(node: tree.Field, scope: str) -> bool:
    """Whether it reads events (links)."""
    return any(
        leaf.scope == scope if isinstance(leaf, tree.Attribute) else leaf.name.startswith(f"{scope}:")
        for leaf in leaves(node)
    )


def needs_trace(node: tree.Field) -> bool:
    """Whether a row alone does not tell: something of the parent, of the tree, of the whole trace."""
    return any(
        leaf.parent if isinstance(leaf, tree.Attribute) else leaf.name in (*OF_TRACE, "parent", "span:parentID")
        for leaf in leaves(node)
    )


def necessary(node: tree.Field) -> list[tree.Field]:
    """Conditions that hold of every row of which `node` holds, and that the row alone tells."""
    return [each for each in operands(node, "&&") if not needs_trace(each)]
