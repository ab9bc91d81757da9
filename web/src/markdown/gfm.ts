// GitHub's Markdown for react-markdown: only what reads it. The plugin remark-gfm also brings what writes it (6 kB).
import { gfmFromMarkdown } from "mdast-util-gfm";
import { gfm as syntax } from "micromark-extension-gfm";
import type {} from "remark-parse"; // it declares the two lists
import type { Processor } from "unified";

export function gfm(this: Processor) {
  const data = this.data();
  (data.micromarkExtensions ??= []).push(syntax());
  (data.fromMarkdownExtensions ??= []).push(gfmFromMarkdown());
}
