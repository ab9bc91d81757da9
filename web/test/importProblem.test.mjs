// Checks what is said about a file that was not imported.
import assert from "node:assert/strict";
import { test } from "node:test";
import { source } from "./source.mjs";

const { importProblem } = await source("importProblem.ts");
const refused = (status, code, message = "") => Object.assign(new Error(message), { status, code });

test("a file that is no export is named, without the words of the protocol", () => {
  const failures = [new SyntaxError("Unexpected token"), refused(400, "invalid_json", "The body is not valid JSON."),
    refused(422, "validation_error", "The request does not have the required format.")];
  for (const failure of failures)
    for (const kind of ["conversation", "agent"]) {
      const words = importProblem(kind, "holiday.jpg", failure);
      assert.match(words, new RegExp(`^“holiday.jpg” is not an? ${kind} that CoPilot has exported\\. Choose a file `));
      assert.doesNotMatch(words, /body|request|token/);
    }
});

test("other problems name the file and keep the reason", () => {
  const reason = "The conversation has no messages.";
  assert.equal(importProblem("conversation", "a.json", refused(422, "invalid_conversation", reason)), `“a.json” was not imported: ${reason}`);
  assert.equal(importProblem("agent", "a.json", refused(413, "payload_too_large")), "“a.json” is too large.");
  assert.equal(importProblem("agent", "a.json", new TypeError("Failed to fetch")), "“a.json” was not imported: the server could not be reached.");
});

test("a long name is cut", () => {
  const words = importProblem("agent", "x".repeat(300), new SyntaxError());
  assert.ok(words.startsWith(`“${"x".repeat(80)}…” is not`));
});
