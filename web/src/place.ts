// What is being read keeps its place when something above it comes or changes its height. Browsers see to that themselves
// (scroll anchoring), except at the very top of a box, and except Safari.
import { useLayoutEffect, useRef, type RefObject } from "react";

const isAnchored = (box: Element) => getComputedStyle(box).getPropertyValue("overflow-anchor") === "auto";

// Call it when the element, which was empty, is rendered: what stands below it keeps its place. (A browser takes what
// reaches into the box from above for what is being read.)
export function keepPlace(element: Element, before: number) {
  const box = element.closest(".scroll")!;
  const seen = box.getBoundingClientRect();
  const { top, bottom, height } = element.getBoundingClientRect();
  const grown = height - before;
  const above = bottom - grown <= seen.top;
  if (top < seen.top && bottom - grown < seen.bottom && !(above && isAnchored(box))) box.scrollTop += grown;
}

// For groups that come in front of the others.
export function useKeptPlace(box: RefObject<Element | null>, firstId: string | undefined) {
  const first = useRef<Element | null>(null);
  useLayoutEffect(() => {
    const element = box.current;
    const before = first.current;
    const now = (first.current = element?.querySelector(".group") ?? null);
    if (!element || !now || !before?.isConnected || (isAnchored(element) && element.scrollTop > 0)) return;
    element.scrollTop += before.getBoundingClientRect().top - now.getBoundingClientRect().top;
  }, [box, firstId]);
}
