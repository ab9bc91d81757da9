// Keeps the text being read in place when content above it is added or changes its height. Most browsers do this on
// their own (scroll anchoring), but Safari does not, and no browser does it at the very top of a box. The browser also
// chooses the anchor node, so its correction could be missing or come twice. Here it is switched off for one frame.
import { useLayoutEffect, useRef, type RefObject } from "react";

const suspended = new WeakMap<HTMLElement, { frame: number; before: string }>();

// Stops the browser's own scroll anchoring in the box until the next frame.
function suspendBrowserAnchoring(box: HTMLElement) {
  const now = suspended.get(box);
  if (now) cancelAnimationFrame(now.frame);
  const before = now?.before ?? box.style.overflowAnchor;
  box.style.overflowAnchor = "none";
  const frame = requestAnimationFrame(() => {
    box.style.overflowAnchor = before;
    suspended.delete(box);
  });
  suspended.set(box, { frame, before });
}

export interface ScrollAnchor {
  readonly top: number; // scrollTop of the box
  readonly above: boolean; // the element starts above the viewport and ends before the viewport's end
  readonly height: number;
}

// Returns the position of an empty element that is about to be rendered.
export function anchorOf(element: Element): ScrollAnchor {
  const box = element.closest(".scroll")!;
  const seen = box.getBoundingClientRect();
  const { top, bottom, height } = element.getBoundingClientRect();
  return { top: box.scrollTop, above: top < seen.top && bottom < seen.bottom, height };
}

// Keeps the content below a newly rendered element in place. It uses the scroll position from before, because a box
// that shrinks at its end has already moved.
export function restoreAnchor(element: Element, before: ScrollAnchor) {
  if (!before.above) return;
  const box = element.closest<HTMLElement>(".scroll")!;
  suspendBrowserAnchoring(box);
  box.scrollTop = before.top + element.getBoundingClientRect().height - before.height;
}

// Keeps the content in place when new groups are added at the top.
export function useScrollAnchor(box: RefObject<HTMLElement | null>, firstId: string | undefined) {
  const first = useRef<Element | null>(null);
  useLayoutEffect(() => {
    const element = box.current;
    const before = first.current;
    const now = (first.current = element?.querySelector(".group") ?? null);
    if (!element || !now || !before?.isConnected || before === now) return;
    suspendBrowserAnchoring(element);
    element.scrollTop += before.getBoundingClientRect().top - now.getBoundingClientRect().top;
  }, [box, firstId]);
}
