// Draws formulas with KaTeX. This module is loaded with the first formula. MathML needs neither fonts nor inline styles,
// which the page's policy forbids; macros that link, load or style anything are off (`trust`).
import katex from "katex";
import type { Formula } from "./formulas";

// Returns false if the formula has an error.
export function draw({ tex, display }: Formula, place: HTMLElement): boolean {
  try {
    katex.render(tex, place, { output: "mathml", displayMode: display, maxExpand: 200, maxSize: 20, strict: "ignore", trust: false });
    return true;
  } catch {
    return false;
  }
}
