// Checks which texts are formulas, and that Markdown changes neither them nor what only looks like one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import Markdown from "react-markdown";
import { source } from "./source.mjs";

const { formulas, formulaOf, hideFormulas, revealFormulas } = await source("markdown/formulas.ts");
const { gfm } = await source("markdown/gfm.ts");

const found = (text) => {
  const seen = [];
  const math = ({ source }) => {
    seen.push(source);
    return "⟦" + source + "⟧";
  };
  const props = { remarkPlugins: [gfm], rehypePlugins: [formulas], components: { math } };
  return { html: renderToStaticMarkup(createElement(Markdown, props, hideFormulas(text))), seen };
};

const FORMULAS = [ // name, text, its formulas
  ["dollars", "If $x_1 < y^2$ and $n$, then ($f(x)$).", ["$x_1 < y^2$", "$n$", "$f(x)$"]],
  ["brackets", "So \\(a_i*b_i*c\\) and\n\\[\n\\sum_{i=1}^n i\n\n= 1\n\\]", ["\\(a_i*b_i*c\\)", "\\[\n\\sum_{i=1}^n i\n\n= 1\n\\]"]],
  ["two dollars over lines that look like Markdown", "$$\n# a\n- b\n=====\n$$", ["$$\n# a\n- b\n=====\n$$"]],
  ["in a list and a quotation", "- $a$\n- b\n\n> $$c$$", ["$a$", "$$c$$"]],
  ["a bar in a table", "| a | b |\n|---|---|\n| $|x|$ | 1 |", ["$|x|$"]],
  ["beside emphasis", "**$a_b$** *and* $c_d$", ["$a_b$", "$c_d$"]],
  ["characters outside of the first plane", "$\\text{𝒳}$", ["$\\text{𝒳}$"]],
  ["words in TeX", "$\\text{if and only if}$ and $v = speed of it$", ["$\\text{if and only if}$", "$v = speed of it$"]],
  ["money", "It costs $5 and $10, US$5, C$6, $5-$10, or $5 and 10$.", []],
  ["variables of a shell", "Set $HOME/$PATH and $A.", []],
  ["escaped dollars", "\\$a\\$ and \\\\(b)", []],
  ["a formula that is not closed", "See $$a + b and \\(c", []],
  ["a code span", "`$a$` and ``\\(b\\)``", []],
  ["an address", "[a](https://example.com/?q=($b$))", []],
];

for (const [name, text, expected] of FORMULAS)
  test(name, () => {
    const { html, seen } = found(text);
    assert.deepEqual(seen, expected);
    assert.doesNotMatch(html, /[\u{F0000}-\u{FFFFF}]|%F3%B/u);
    assert.equal(revealFormulas(hideFormulas(text)), text);
  });

test("code keeps its dollars, fenced or indented", () => {
  const { html, seen } = found("```sh\necho $a$ '$b$'\n```\n\n    \\(c\\) $d$\n\ntext ```e``` $f$");
  assert.deepEqual(seen, ["$f$"]);
  assert.ok(html.includes("echo $a$ &#x27;$b$&#x27;"), html);
  assert.ok(html.includes("\\(c\\) $d$"), html);
});

test("an address keeps its dollars", () => {
  assert.ok(found("[a](https://example.com/?q=($b$))").html.includes('href="https://example.com/?q=($b$)"'));
});

test("a text with private characters of its own stays as it is", () => {
  const text = "\u{F0041} and $a$";
  assert.equal(hideFormulas(text), text);
});

test("display formulas are those of two dollars and of square brackets", () => {
  const shown = ["$a$", "\\(a\\)", "$$a$$", "\\[a\\]"].map((one) => formulaOf(one));
  assert.deepEqual(shown.map(({ tex, display }) => [tex, display]), [["a", false], ["a", false], ["a", true], ["a", true]]);
});

test("marks without an end take no long time", () => {
  for (const mark of ["$", "$$", "\\(", "\\[", "`", "```\n", "$a "]) {
    const began = process.cpuUsage().user;
    hideFormulas(mark.repeat(20_000));
    assert.ok(process.cpuUsage().user - began < 3_000_000, mark);
  }
});
