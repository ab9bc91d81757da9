// Cuts Markdown into blocks that render the same on their own as in the whole text. If in doubt, it does not cut.

const ITEM = /^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)/;
const FENCE = /^((?:[ \t>]|(?:[-*+]|\d{1,9}[.)])[ \t])*)(`{3,}(?=[^`]*$)|~{3,})/;
const HTML = /^ {0,3}<(?:(?:pre|script|style|textarea)(?=[\s>]|$)|(!--))/i; // elements that a blank line does not end
const TAG = /^ {0,3}</; // a line that may start HTML
const DEFINITION = /^ {0,3}\[([^\]]+)\]:[ \t]*\S/;
const MAX_UNCUT_CHARS = 20_000;

// A block that continues over blank lines: until a line matches `closes` or, if it is nested in a list or quotation,
// until a line starts at the margin.
interface Open {
  closes: RegExp;
  nested: boolean;
  code: boolean;
}

export function blocksOf(text: string): string[] {
  const blocks: string[] = [];
  const definitions = new Map<string, string>();
  let block: string[] = [];
  let open: Open | null = null;
  let blank = false;
  let listed = false;
  const cut = () => {
    if (block.some((line) => line.trim())) blocks.push(block.join("\n"));
    [block, listed, blank] = [[], false, false];
  };
  for (const line of text.split(/\r\n?|\n/)) {
    const isBlank = /^[ \t]*$/.test(line);
    const isItem = ITEM.test(line);
    let ended = false; // a code block has ended on this line
    if (open?.nested && /^[^\s>]/.test(line)) open = null;
    if (open) {
      if (open.closes.test(line)) {
        ended = open.code && !open.nested && opened(block[0]!, false) !== null;
        open = null;
      }
    } else {
      if (blank && !isBlank && !isItem && !/^[ \t>|]/.test(line) && block.length > 0) cut();
      listed ||= isItem;
      open = opened(line, listed);
      if (open?.code && !open.nested && !listed && !block.some((line) => TAG.test(line))) cut();
      const label = DEFINITION.exec(line)?.[1]?.toLowerCase();
      if (label?.startsWith("^") && text.length <= MAX_UNCUT_CHARS) return [text]; // footnote numbers continue across blocks
      if (label !== undefined && !definitions.has(label)) definitions.set(label, line);
      blank = isBlank;
    }
    if (open) blank = false;
    block.push(line);
    if (ended) cut();
  }
  cut();
  return definitions.size > 0 ? blocks.map((one) => withDefinitions(one, definitions)) : blocks;
}

function opened(line: string, listed: boolean): Open | null {
  const [, before = "", mark] = FENCE.exec(line) ?? [];
  if (mark) {
    const nested = before !== "" && (listed || before.trim() !== "");
    if (!nested && /^ {4}|\t/.test(before)) return null; // indented code
    return { nested, code: true, closes: new RegExp(`^${nested ? "[ \\t>]*" : " {0,3}"}${mark[0]}{${mark.length},}[ \\t]*$`) };
  }
  const html = HTML.exec(line);
  const closes = html?.[1] ? /-->/ : /<\/(?:pre|script|style|textarea)>/i;
  return html && !closes.test(line) ? { nested: false, code: false, closes } : null;
}

// Adds the link definitions that a block uses and another block contains.
function withDefinitions(block: string, definitions: Map<string, string>): string {
  const lower = block.toLowerCase();
  const used = [...definitions].filter(([label]) => lower.includes(`[${label}]`) && !lower.includes(`[${label}]:`));
  return [...used.map(([, line]) => line + "\n"), block].join("\n");
}
