import assert from "node:assert/strict";
import { test } from "node:test";
import { attributeName, conditionsOf, durationLiteral, errorOffset, insideOf, measuring, oneLine, quoted, selecting, spanset, tokens, typedLiteral, unquoted, withCondition, withoutCondition } from "../src/query";

test("a query is cut into tokens, whole or not", () => {
  const texts = tokens('{ span."a b".c =~ "x\\"}" && .n>=1.5 } | count() > 2').map((one) => one.text);
  assert.deepEqual(texts, ["{", 'span."a b".c', "=~", '"x\\"}"', "&&", ".n", ">=", "1.5", "}", "|", "count", "(", ")", ">", "2"]);
  assert.deepEqual(tokens('{ a = "open').map((one) => one.kind), ["punctuation", "name", "operator", "string"]);
});

test("texts are quoted so that they come back", () => {
  for (const text of ['say "hi"', "back\\slash", "two\nlines", "tab\tand\r", "\\n", "nul\0", "`{}", ""]) assert.equal(unquoted(quoted(text)), text);
  assert.equal(unquoted('"\\x41\\u00e9\\U0001F600\\101\\t\\\\"'), "Aé😀A\t\\");
  assert.equal(attributeName("span", "http.route"), "span.http.route");
  assert.equal(attributeName("span", "<b>key</b>"), 'span."<b>key</b>"');
  assert.equal(attributeName("intrinsic", "event:name"), "event:name");
});

test("what is typed as a value is a number, a word or a text", () => {
  assert.equal(typedLiteral("span.n", "12"), "12");
  assert.equal(typedLiteral("duration", "100ms"), "100ms");
  assert.equal(typedLiteral("status", "error"), "error");
  assert.equal(typedLiteral("name", "12"), '"12"');
  assert.equal(typedLiteral("resource.service.name", "true"), '"true"');
  assert.equal(typedLiteral("span.version", "2.1.0"), '"2.1.0"');
  assert.equal(typedLiteral("duration", "1h30m"), "1h30m");
  assert.equal(typedLiteral("span.x", '"12"'), '"12"');
  assert.equal(typedLiteral("span.route", "/a b"), '"/a b"');
  assert.equal(typedLiteral("span.route", '"a" b "c"'), '"\\"a\\" b \\"c\\""');
  assert.equal(typedLiteral("span.route", "5", "=~"), '"5"');
});

test("a duration is read as people write it", () => {
  const read = ["100ms", "1.5 s", "2 min", "1m30s", "100", "2H", "", "abc", "1 x", '"1s"'].map(durationLiteral);
  assert.deepEqual(read, ["100ms", "1.5s", "2m", "1m30s", "100ms", "2h", null, null, null, null]);
});

test("a query over lines stands on one, and its comments go on to mean the same", () => {
  assert.equal(oneLine("{ .a = 1\n  && .b = 2 }"), "{ .a = 1 && .b = 2 }");
  assert.equal(oneLine('{ .a = "//" // why } \n && .b = 2 }'), '{ .a = "//" /* why }  */ && .b = 2 }');
  assert.equal(oneLine("{ .a = `x\ny` }"), '{ .a = "x\\ny" }');
});

test("a condition is added to a spanset, and beside anything else", () => {
  assert.equal(withCondition("", "status = error"), "{ status = error }");
  assert.equal(withCondition("{}", "status = error"), "{ status = error }");
  assert.equal(withCondition("{ .a = 1 }", "status = error"), "{ .a = 1 && status = error }");
  assert.equal(withCondition("{ .a = 1 || .b = 2 }", "status = error"), "{ (.a = 1 || .b = 2) && status = error }");
  assert.equal(withCondition("{ (.a = 1 || .b = 2) && .c = 3 }", ".d = 4"), "{ (.a = 1 || .b = 2) && .c = 3 && .d = 4 }");
  assert.equal(withCondition("{ .a = 1 } >> {}", "status = error"), "({ .a = 1 } >> {}) && { status = error }");
  assert.equal(withCondition('{ .a = "}" }', ".b = 1"), '{ .a = "}" && .b = 1 }');
});

test("a condition is taken out of a simple query only", () => {
  const failed = { name: "status", op: "=", value: "error" } as const;
  assert.equal(withoutCondition("{ .a = 1 && status = error }", failed), "{ .a = 1 }");
  assert.equal(withoutCondition("{ status = error }", failed), "");
  assert.equal(withoutCondition("{ status = error || .a = 1 }", failed), "{ status = error || .a = 1 }");
});

test("simple queries are read back as conditions, all others are not", () => {
  const query = '{ resource.service.name = "a && b" && duration >= 100ms && span.x != nil }';
  assert.equal(spanset(conditionsOf(query)!), query);
  assert.deepEqual(conditionsOf("{}"), []);
  assert.deepEqual(conditionsOf(""), []);
  for (const other of ["{ .a = 1 || .b = 2 }", "{ .a = .b }", "{ .a = 1 && }", "{ .a }", "{ .a = 1 } | count() > 2", "{ .a = 1"]) {
    assert.equal(conditionsOf(other), null, other);
  }
  assert.equal(insideOf("{ true }"), "");
});

test("an error points to the character that the API counted", () => {
  assert.equal(errorOffset("{ status = eror }", "parse error at line 1, col 12: syntax error"), 11);
  assert.equal(errorOffset('{ .a = "😀" && x }', "at line 1, col 13"), 13);
  assert.equal(errorOffset("{\n .a = }", "at line 2, col 7"), 7); // on one line
  assert.equal(errorOffset("{}", "no place"), null);
});

test("searches and metrics are written around a query", () => {
  assert.equal(selecting("", ["span.a", "name"]), "{} | select(span.a, name)");
  assert.equal(selecting("{ .a = 1 }", []), "{ .a = 1 }");
  assert.equal(measuring(" ", "rate()"), "{} | rate() with(exemplars=false)");
});
