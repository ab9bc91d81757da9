// Keeps the end in sight while it grows, and lets go as soon as the reader scrolls up.
import { useCallback, useEffect, useMemo, useRef, useState, type RefObject } from "react";

const NEAR = 48;

const below = (box: Element) => box.scrollHeight - box.clientHeight - box.scrollTop;

const placeOf = (box: Element) => ({ top: box.scrollTop, height: box.scrollHeight });

function atItsEnd(box: Element) {
  box.scrollTop = box.scrollHeight;
  return placeOf(box);
}

export function useFollowing(box: RefObject<HTMLDivElement | null>, loading: string) {
  const held = useRef(true);
  const place = useRef({ top: 0, height: 0 }); // as last judged, or set from here
  const [atEnd, setAtEnd] = useState(true);

  const toEnd = useCallback(() => {
    held.current = true;
    setAtEnd(true);
    if (box.current) place.current = atItsEnd(box.current);
  }, [box]);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    place.current = placeOf(element);
    const judge = (mayHold = true) => {
      const { top, height } = place.current;
      const left = below(element);
      const shrunk = Math.max(height - element.scrollHeight, 0); // a box that shrinks at its end goes up by as much
      if (mayHold && (left < 2 || (left < NEAR && element.scrollTop > top))) held.current = true;
      else if (top - element.scrollTop > shrunk + 2) held.current = false;
      place.current = placeOf(element);
    };
    const onScroll = () => {
      judge();
      setAtEnd(held.current || below(element) < NEAR);
    };
    const onWheel = (event: WheelEvent) => {
      if (event.deltaY < 0 && element.scrollHeight > element.clientHeight) held.current = false;
    };
    const grown = new ResizeObserver(() => {
      judge(false); // it may come before the event of a scroll; a turn of the wheel has let go before anything moved
      if (held.current) place.current = atItsEnd(element);
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
