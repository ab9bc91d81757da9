// Whether a block of Markdown is for the parser. What would hold the page up for seconds, or overflow the parser's stack,
// is shown as it is.
const LONGEST = 20_000;
const MOST_LINES = 2_000;
const MOST_MARKS = 6_000; // in a block; pairs of them are looked for as often as there are marks
const MOST_MARKS_IN_A_LINE = 500;
const TOO_DEEP = /^(?:[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))){60}/m;

export function isParsable(block: string): boolean {
  if (block.length > LONGEST || TOO_DEEP.test(block)) return false;
  const lines = block.split("\n");
  if (lines.length > MOST_LINES) return false;
  const marks = lines.map((line) => line.match(/[*_~[\]<]/g)?.length ?? 0);
  return marks.every((n) => n <= MOST_MARKS_IN_A_LINE) && marks.reduce((sum, n) => sum + n, 0) <= MOST_MARKS;
}
