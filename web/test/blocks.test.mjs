// Checks that Markdown cut into blocks renders the same as in one piece.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import Markdown from "react-markdown";
import remarkGfm from "remark-gfm";
import { source } from "./source.mjs";

const { blocksOf } = await source("markdown/blocks.ts");
const { gfm } = await source("markdown/gfm.ts");

const htmlBy = (plugin, text) => renderToStaticMarkup(createElement(Markdown, { remarkPlugins: [plugin] }, text));
const html = (text) => htmlBy(gfm, text);
const joined = (parts) => parts.join("").replace(/[\r\n]/g, "");

const CASES = [ // name, number of blocks, text
  ["paragraphs", 3, "a\n\nb\n\n\nc"],
  ["carriage returns", 2, "a\r\n\r\nb\rc"],
  ["a setext heading", 2, "a\n\nTitle\n===\ntext"],
  ["a rule", 3, "a\n\n---\n\nb"],
  ["a line that holds only a no-break space", 1, "a\n\u00a0\nb"],
  ["a loose list", 2, "- a\n\n- b\n\n  more of b\n\nend"],
  ["a loose list with tabs", 1, "1.\ta\n\n2.\tb\n\n3.\n\n   c"],
  ["a numbered list that continues after a paragraph", 2, "1. a\n\nb\n\n2. c"],
  ["a quotation", 2, "> a\n\n> b\n\nc"],
  ["code by indentation", 2, "a\n\n    b\n\n    ```\n\nc"],
  ["a fence with blank lines", 3, "a\n\n```py\nb\n\nc\n```\n\nd"],
  ["a fence that is still open", 2, "a\n\n```py\nb\n\nc\n\nd"],
  ["a fence in a longer one", 2, "````md\n```py\n\nx\n```\n\ny\n````\n\nz"],
  ["a fence that another opening fence does not close", 2, "```\n```py\n\nx\n```\n\ny"],
  ["a fence of tildes with backticks in it", 2, "~~~\n```\n\nx\n~~~\n\ny"],
  ["a line that only looks like a fence", 3, "``` a ``` b\n\nc\n\nd"],
  ["a fence in a list", 3, "- ```\n  a\n\n  b\n  ```\n\nc\n\n```\nd\n\ne\n```"],
  ["a fence deep in a list", 2, "1.  a\n\n    ```\n    b\n\n    c\n    ```\n\nd"],
  ["a fence that ends with its list", 2, "- a\n  ```\n  b\nc\n\nd"],
  ["a fence in a quotation", 2, "> ```\n> a\n>\n> b\n> ```\n\nc"],
  ["a fence right below a list", 2, "- a\n```\nb\n\nc\n```\n\nd"],
  ["a fence right below a paragraph, and a text right below it", 3, "See:\n```py\na\n\nb\n```\nIt **is**."],
  ["a fence between lines of a quotation", 3, "> a\n```\nb\n```\n> c"],
  ["fences one below the other", 3, "```\na\n```\n~~~\nb\n~~~\n    c"],
  ["a fence in HTML", 1, "<div>\n```\n*a*\n```\n*b*\n</div>"],
  ["a fence below HTML and a blank line", 2, "<div>\n\n```\n*a*\n```"],
  ["a fence below a table", 2, "| a |\n|---|\n| b |\n```\nc\n```"],
  ["a fence below a title", 3, "# a\n```\nc\n```\nb\n==="],
  ["a fence below a link's definition", 3, "[b]: https://example.com\n```\nc\n```\n[b]"],
  ["a table", 3, "a\n\n| b | c |\n|---|---|\n| d | e |\n\nf\n\ng"],
  ["a link defined below", 3, "a [b] and [c][B]\n\nd\n\n[b]: https://example.com 'B'"],
  ["a link defined above, and used in a fence", 2, "[b]: https://example.com\n\n```\n[b]"],
  ["a definition in a fence", 2, "[b]\n\n```\n[b]: https://example.com\n```"],
  ["footnotes", 1, "a[^1]\n\nb[^2]\n\n[^1]: c\n[^2]: d"],
  ["HTML with blank lines", 2, "<pre>\n\n# a\n\n</pre>\n\nb"],
  ["an HTML comment", 2, "<!-- a\n\n# b\n\n-->\n\nc"],
  ["HTML that a blank line ends", 3, "<div>\n\n# a\n\n</div>"],
];

for (const [name, count, text] of CASES)
  test(name, () => {
    const blocks = blocksOf(text);
    assert.equal(joined(blocks.map(html)), joined([html(text)]));
    assert.equal(blocks.length, count, JSON.stringify(blocks));
  });

test("all of GitHub's Markdown is read as remark-gfm reads it", () => {
  const text = "| a | b |\n|---|:-:|\n| ~~1~~ | www.example.com |\n\n- [x] done\n- [ ] open\n\nA note[^1].\n\n[^1]: **Here.**\n";
  const seen = html(text);
  assert.equal(seen, htmlBy(remarkGfm, text));
  for (const tag of ["<table>", "<del>", 'type="checkbox"', "<sup>", 'href="http://www.example.com"']) assert.ok(seen.includes(tag), tag);
});
