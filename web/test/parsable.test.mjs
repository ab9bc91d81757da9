// Checks that text that would block the page is not parsed, and that usual text is.
import assert from "node:assert/strict";
import { test } from "node:test";
import { source } from "./source.mjs";

const { isParsable } = await source("markdown/parsable.ts");

const filled = (unit, length = 19_000) => unit.repeat(Math.ceil(length / unit.length)).slice(0, length);

const CASES = [
  ["a list whose items start in bold", true, filled("- **term** and what is said of it\n")],
  ["a table with bold cells", true, "| a | b |\n|---|---|\n" + filled("| **name** | some words of text | _more_ |\n")],
  ["a paragraph of links", true, filled("[some words](https://example.org/a_b) and more\n")],
  ["long code", true, "```\n" + filled("if (a[0] * b < c) return;\n") + "```"],
  ["code in a line", true, "See:\n\n```json\n" + filled('{"some_name":[[1,0],[0,1]],"a*":"<b>"},') + "\n```\n\nSo **it** is."],
  ["code in a list", true, "- see\n  ```json\n" + filled('{"_a":[1]},') + "\n  ```"],
  ["names with underlines", true, filled("a_name_of_words and another_name ")],
  ["a table of many rows", true, "| a | b | c | d | e |\n|---|---|---|---|---|\n" + filled("| 1 | 2 | 3 | 4 | 5 |\n")],
  ["a table of very many cells", false, "|a".repeat(400) + "\n" + "|-".repeat(400) + "\n" + "|a\n".repeat(600)],
  ["lists in lists in a line", false, "- ".repeat(25) + "a"],
  ["pairs of two marks in a line", false, filled("*a_ ")],
  ["pairs of marks in lines", false, filled("*a_ *a_ *a_ *a_\n")],
  ["brackets", false, filled("]")],
  ["items of one letter", false, filled("- a\n")],
  ["quotations in quotations", false, "> ".repeat(25) + "a"],
  ["text without an end", false, filled("word ", 20_001)],
];

for (const [name, parsable, text] of CASES) test(name, () => assert.equal(isParsable(text), parsable));
