// What is being read keeps its place when something above it comes or changes its height. Most browsers correct that
// themselves (scroll anchoring; not Safari, and not at the very top of a box), by a node of their own choice: for what is
// done here it would be either nothing or a second correction. So for one frame this page does it alone.
import { useLayoutEffect, useRef, type RefObject } from "react";

const corrected = new WeakMap<HTMLElement, { frame: number; before: string }>();

// From now until the next frame the browser leaves the box's place alone.
function correctAlone(box: HTMLElement) {
  const now = corrected.get(box);
  if (now) cancelAnimationFrame(now.frame);
  const before = now?.before ?? box.style.overflowAnchor;
  box.style.overflowAnchor = "none";
  const frame = requestAnimationFrame(() => {
    box.style.overflowAnchor = before;
    corrected.delete(box);
  });
  corrected.set(box, { frame, before });
}

export interface Place {
  readonly top: number; // of the box's scrolling
  readonly above: boolean; // the element begins above what is seen, and ends before its end
  readonly height: number;
}

// Where an empty element is, before it is rendered.
export function placeOf(element: Element): Place {
  const box = element.closest(".scroll")!;
  const seen = box.getBoundingClientRect();
  const { top, bottom, height } = element.getBoundingClientRect();
  return { top: box.scrollTop, above: top < seen.top && bottom < seen.bottom, height };
}

// Call it when the element is rendered: what stands below it keeps its place. (A box that is at its end and shrinks has
// moved already, hence the place before.)
export function keepPlace(element: Element, before: Place) {
  if (!before.above) return;
  const box = element.closest<HTMLElement>(".scroll")!;
  correctAlone(box);
  box.scrollTop = before.top + element.getBoundingClientRect().height - before.height;
}

// For groups that come in front of the others.
export function useKeptPlace(box: RefObject<HTMLElement | null>, firstId: string | undefined) {
  const first = useRef<Element | null>(null);
  useLayoutEffect(() => {
    const element = box.current;
    const before = first.current;
    const now = (first.current = element?.querySelector(".group") ?? null);
    if (!element || !now || !before?.isConnected || before === now) return;
    correctAlone(element);
    element.scrollTop += before.getBoundingClientRect().top - now.getBoundingClientRect().top;
  }, [box, firstId]);
}
