// Whether a block of Markdown is for the parser. What would hold the page up for seconds, or overflow the parser's stack,
// is shown as it is.
const LONGEST = 20_000;
const MOST_LINES = 1_000;
const MOST_CELLS = 10_000; // each row of a table is as wide as its head
const MOST_MARKS = 6_000;
const MOST_MARKS_IN_A_TEXT = 1_500; // a paragraph, say: pairs are looked for as often as there are marks in it
const TOO_DEEP = /^(?:[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))){20}/m;
const FENCE = /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})/;
const DIVIDER = /^[ \t>|:-]*$/;
const BEGINS_A_TEXT = /^[ \t]*(?:$|\||#|[-*+][ \t]|\d{1,9}[.)][ \t])/;
const CODE = /`[^`]*`/g;
const MARK = /[*~[\]<]|\b_|_\b/g;

export function isParsable(block: string): boolean {
  if (block.length > LONGEST || TOO_DEEP.test(block)) return false;
  const lines = block.split("\n");
  if (lines.length > MOST_LINES) return false;
  let fence: string | undefined; // of the code that a line is in
  let all = 0;
  let inText = 0;
  for (const [place, line] of lines.entries()) {
    const mark = FENCE.exec(line)?.[1]?.slice(0, 3);
    if (mark && (fence === undefined || fence === mark)) fence = fence ? undefined : mark;
    if (fence) continue;
    if (DIVIDER.test(line) && line.includes("-") && line.split("|").length * (lines.length - place) > MOST_CELLS) return false;
    if (BEGINS_A_TEXT.test(line)) inText = 0;
    const marks = line.replace(CODE, "").match(MARK)?.length ?? 0;
    all += marks;
    inText += marks;
    if (all > MOST_MARKS || inText > MOST_MARKS_IN_A_TEXT) return false;
  }
  return true;
}
