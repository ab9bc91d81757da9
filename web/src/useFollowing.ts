// Keeps the end in sight while it grows, and lets go as soon as the reader scrolls up.
import { useCallback, useEffect, useMemo, useRef, useState, type RefObject } from "react";

const NEAR = 48;

const below = (box: Element) => box.scrollHeight - box.clientHeight - box.scrollTop;

export function useFollowing(box: RefObject<HTMLDivElement | null>, loading: string) {
  const held = useRef(true);
  const [atEnd, setAtEnd] = useState(true);

  const toEnd = useCallback(() => {
    held.current = true;
    setAtEnd(true);
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [box]);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    let top = element.scrollTop;
    let height = element.scrollHeight;
    const judge = () => {
      const left = below(element);
      const shrunk = Math.max(height - element.scrollHeight, 0); // a box that shrinks at its end goes up by as much
      if (left < 2 || (left < NEAR && element.scrollTop > top)) held.current = true;
      else if (top - element.scrollTop > shrunk + 2) held.current = false;
      [top, height] = [element.scrollTop, element.scrollHeight];
    };
    const onScroll = () => {
      judge();
      setAtEnd(held.current || below(element) < NEAR);
    };
    const onWheel = (event: WheelEvent) => {
      if (event.deltaY < 0 && element.scrollHeight > element.clientHeight) held.current = false;
    };
    const grown = new ResizeObserver(() => {
      judge(); // it may come before the event of a scroll
      if (held.current) element.scrollTop = element.scrollHeight;
      setAtEnd(held.current || below(element) < NEAR);
    });
    const watch = () => {
      grown.disconnect();
      grown.observe(element);
      for (const child of element.children) grown.observe(child);
    };
    const changed = new MutationObserver(watch);
    changed.observe(element, { childList: true });
    watch();
    element.addEventListener("scroll", onScroll, { passive: true });
    element.addEventListener("wheel", onWheel, { passive: true });
    return () => {
      grown.disconnect();
      changed.disconnect();
      element.removeEventListener("scroll", onScroll);
      element.removeEventListener("wheel", onWheel);
    };
  }, [box, loading]);

  return useMemo(() => ({ atEnd, toEnd, hold: toEnd }), [atEnd, toEnd]);
}
