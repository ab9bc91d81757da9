// Formulas in Markdown: $$…$$, \[…\], \(…\) and $…$ in TeX. Before Markdown is parsed, each formula becomes a run of
// private characters, one for each of its own, which Markdown does not interpret. After parsing, runs become formulas
// again, and those in code and addresses become the text that they were.
import type { Element, ElementContent, Nodes, Root, Text } from "hast";

const BASE = 0xf0000; // private-use plane 15: a character holds one UTF-16 unit of the source
const RUN = /[\u{F0000}-\u{FFFFF}]+/gu;
const FENCED = "^[ \\t>]*(?:(?:[-*+]|\\d{1,9}[.)])[ \\t]+)*(`{3,}(?=[^`\\n]*$)|~{3,})[^\\n]*(?:\\n(?![ \\t>]*\\1)[^\\n]*)*(?:\\n[^\\n]*|$)";
const CODE = "(`{1,2})(?!`)(?:[^`\\n]|\\n(?![ \\t]*\\n)){1,2000}\\2(?!`)";
const DISPLAY = "\\$\\$(?:[^$\\\\]|\\\\[^]){1,4000}?\\$\\$|\\\\\\[[^]{1,4000}?\\\\\\]";
const INLINE = "\\\\\\((?:[^\\n]|\\n(?![ \\t]*\\n)){1,1000}?\\\\\\)";
// A dollar sign between words is money or a variable of a shell: neither side of a formula touches a letter or a digit.
const DOLLARS = "(?<![\\w$])\\$(?![\\s$])(?:[^$\\\\\\n`]|\\\\[^\\n]){1,500}?(?<!\\s)\\$(?![\\w$])";
const TOKEN = new RegExp(`${FENCED}|${CODE}|(${DISPLAY}|${INLINE}|${DOLLARS})|\\\\[^]`, "gm");
const SENTENCE = /(?:^|\s)[A-Za-z]{2,}(?:\s|$)/; // "$5 and 10$"
const TEX = /[\\^_=]/;

export interface Formula {
  source: string; // with its delimiters
  tex: string;
  display: boolean;
}

// Replaces the formulas of a text by runs of private characters.
export function hideFormulas(text: string): string {
  if (!/\$|\\[([]/.test(text) || text.search(RUN) >= 0) return text;
  return text.replace(TOKEN, (found, _fence, _ticks, formula?: string) =>
    formula === undefined || (/^\$[^$]/.test(formula) && SENTENCE.test(formula.slice(1, -1)) && !TEX.test(formula))
      ? found
      : hidden(formula));
}

// Puts the sources of formulas back into a text.
export const revealFormulas = (text: string): string => text.replace(RUN, sourceOf);

function hidden(source: string): string {
  let run = "";
  for (let place = 0; place < source.length; place++) run += String.fromCodePoint(BASE + source.charCodeAt(place));
  return run;
}

const sourceOf = (run: string): string => Array.from(run, (one) => String.fromCharCode(one.codePointAt(0)! - BASE)).join("");

export function formulaOf(source: string): Formula {
  const width = source.startsWith("$") && !source.startsWith("$$") ? 1 : 2;
  return { source, tex: source.slice(width, -width), display: source.startsWith("$$") || source.startsWith("\\[") };
}

// A rehype plugin: hidden formulas become elements `math` with the property `source`.
export const formulas = () => (tree: Root) => visit(tree, false);

function visit(node: Nodes, inCode: boolean) {
  if (node.type === "element") {
    for (const [name, value] of Object.entries(node.properties)) {
      if (typeof value === "string") node.properties[name] = revealFormulas(revealEncoded(value));
    }
  }
  if (node.type !== "element" && node.type !== "root") return;
  const code = inCode || (node.type === "element" && node.tagName === "code");
  node.children = node.children.flatMap((child): ElementContent[] => {
    if (child.type === "text") return code ? [{ ...child, value: revealFormulas(child.value) }] : split(child);
    visit(child as Nodes, code);
    return [child as ElementContent];
  });
}

// Addresses have the private characters percent-encoded.
const revealEncoded = (value: string) => value.replace(/(?:%F3%B[0-9A-F]%[89AB][0-9A-F]%[89AB][0-9A-F])+/g, decodeURIComponent);

function split({ value }: Text): (Text | Element)[] {
  const nodes: (Text | Element)[] = [];
  let from = 0;
  for (const { 0: run, index } of value.matchAll(RUN)) {
    if (index > from) nodes.push({ type: "text", value: value.slice(from, index) });
    nodes.push({ type: "element", tagName: "math", properties: { source: sourceOf(run) }, children: [] });
    from = index + run.length;
  }
  if (from < value.length) nodes.push({ type: "text", value: value.slice(from) });
  return nodes;
}
