import assert from "node:assert/strict";
import { test } from "node:test";
import { endOfTyped, matching, operatorsOf, wantedAt } from "../src/explore/wanted";

/** The caret stands at the `^`. */
function at(text: string) {
  const caret = text.indexOf("^");
  const wanted = wantedAt(text.replace("^", ""), caret);
  return [wanted.kind, wanted.typed, wanted.name];
}

test("the place decides what could stand there", () => {
  assert.deepEqual(at("^"), ["stage", "", ""]);
  assert.deepEqual(at("{ ^"), ["name", "", ""]);
  assert.deepEqual(at("{ sta^"), ["name", "sta", ""]);
  assert.deepEqual(at("{ status ^"), ["operator", "", "status"]);
  assert.deepEqual(at("{ status !^"), ["operator", "!", "status"]);
  assert.deepEqual(at("{ status = ^"), ["value", "", "status"]);
  assert.deepEqual(at('{ span."a b" = "x^'), ["value", '"x', 'span."a b"']);
  assert.deepEqual(at("{ status = error ^"), ["joint", "", ""]);
  assert.deepEqual(at("{ status = error && n^"), ["name", "n", ""]);
  assert.deepEqual(at("{ (status = error || ^"), ["name", "", ""]);
  assert.deepEqual(at("{ } ^"), ["stage", "", "}"]);
  assert.deepEqual(at("{ } | ^"), ["stage", "", "|"]);
  assert.deepEqual(at("{ } | by(res^"), ["name", "res", ""]);
  assert.deepEqual(at("{ } | select(name, ^"), ["name", "", ""]);
});

test("what stands behind the caret does not count", () => {
  assert.deepEqual(at("{ sta^ = error } | count() > 2"), ["name", "sta", ""]);
  assert.equal(wantedAt('{ .a = 1 && .b = "x" }', 17).among, "{ .a = 1 && .b = ");
});

test("items that begin with what is typed come first", () => {
  assert.deepEqual(matching(["span.b", "b.span", "c"], "b", 9), ["b.span", "span.b"]);
  assert.deepEqual(matching(['"north"', '"south-north"', '"east"'], "nor", 9), ['"north"', '"south-north"']);
  assert.deepEqual(matching(["a1", "a2", "a3"], "a", 2), ["a1", "a2"]);
  assert.deepEqual(matching(["same"], "same", 9), []);
});

test("an attribute is offered the comparisons that it may have", () => {
  assert.deepEqual(operatorsOf("status"), ["=", "!="]);
  assert.deepEqual(operatorsOf("duration"), [">", ">=", "<", "<="]);
  assert.ok(operatorsOf("span.duration").includes("=~"));
});

test("what is taken stands in the place of all of the word, also where the caret is in its middle", () => {
  const kept = (text: string) => {
    const [caret, plain] = [text.indexOf("^"), text.replace("^", "")];
    return plain.slice(endOfTyped(plain, wantedAt(plain, caret), caret));
  };
  assert.equal(kept("{ span.payme^nt.provider = 1 }"), " = 1 }");
  assert.equal(kept('{ .a = "ac^me" && .b = 1 }'), " && .b = 1 }");
  assert.equal(kept('{ .a = "ac^ && .b = "x" }'), ' && .b = "x" }');
  assert.equal(kept("{ ^ }"), " }");
});
