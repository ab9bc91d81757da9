// Decides if a block of Markdown may be parsed. Text that would block the page for seconds or overflow the parser's
// stack is shown unparsed.
const MAX_CHARS = 20_000;
const MAX_LINES = 1_000;
const MAX_CELLS = 10_000; // of a table; every row has as many cells as its header
const MAX_MARKS = 6_000;
const MAX_MARKS_IN_A_TEXT = 1_500; // in one paragraph, for example; the parser searches for a pair once per mark
const TOO_DEEP = /^(?:[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))){20}/m;
const FENCE = /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})/;
const DIVIDER = /^[ \t>|:-]*$/;
const BEGINS_A_TEXT = /^[ \t]*(?:$|\||#|[-*+][ \t]|\d{1,9}[.)][ \t])/;
const CODE = /`[^`]*`/g;
const MARK = /[*~[\]<]|\b_|_\b/g;

export function isParsable(block: string): boolean {
  if (block.length > MAX_CHARS || TOO_DEEP.test(block)) return false;
  const lines = block.split("\n");
  if (lines.length > MAX_LINES) return false;
  let fence: string | undefined; // opening fence of the code block that contains the line
  let all = 0;
  let inText = 0;
  for (const [place, line] of lines.entries()) {
    const mark = FENCE.exec(line)?.[1]?.slice(0, 3);
    if (mark && (fence === undefined || fence === mark)) fence = fence ? undefined : mark;
    if (fence) continue;
    if (DIVIDER.test(line) && line.includes("-") && line.split("|").length * (lines.length - place) > MAX_CELLS) return false;
    if (BEGINS_A_TEXT.test(line)) inText = 0;
    const marks = line.replace(CODE, "").match(MARK)?.length ?? 0;
    all += marks;
    inText += marks;
    if (all > MAX_MARKS || inText > MAX_MARKS_IN_A_TEXT) return false;
  }
  return true;
}
