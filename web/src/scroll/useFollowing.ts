// Keeps a box scrolled to its end while the content grows. Stops as soon as the reader scrolls up.
import { useCallback, useEffect, useMemo, useRef, useState, type RefObject } from "react";

const NEAR_PX = 48;

const below = (box: Element) => box.scrollHeight - box.clientHeight - box.scrollTop;

const placeOf = (box: Element) => ({ top: box.scrollTop, height: box.scrollHeight });

function atItsEnd(box: Element) {
  box.scrollTop = box.scrollHeight;
  return placeOf(box);
}

export function useFollowing(box: RefObject<HTMLDivElement | null>, loading: string) {
  const following = useRef(true);
  const place = useRef({ top: 0, height: 0 }); // as last seen or set by this hook
  const [atEnd, setAtEnd] = useState(true);

  const toEnd = useCallback(() => {
    following.current = true;
    setAtEnd(true);
    if (box.current) place.current = atItsEnd(box.current);
  }, [box]);

  const leave = useCallback(() => {
    following.current = false;
  }, []);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    place.current = placeOf(element);
    const update = (mayFollow = true) => {
      const { top, height } = place.current;
      const left = below(element);
      const shrunk = Math.max(height - element.scrollHeight, 0); // a box that shrinks at its end scrolls up as far
      if (mayFollow && (left < 2 || (left < NEAR_PX && element.scrollTop > top))) following.current = true;
      else if (top - element.scrollTop > shrunk + 2) following.current = false;
      place.current = placeOf(element);
    };
    const onScroll = () => {
      update();
      setAtEnd(following.current || below(element) < NEAR_PX);
    };
    const onWheel = (event: WheelEvent) => {
      if (event.deltaY < 0 && element.scrollHeight > element.clientHeight) following.current = false;
    };
    const grown = new ResizeObserver(() => {
      update(false); // may run before the scroll event; the wheel event has stopped following before anything moved
      if (following.current) place.current = atItsEnd(element);
      setAtEnd(following.current || below(element) < NEAR_PX);
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

  return useMemo(() => ({ atEnd, toEnd, leave }), [atEnd, toEnd, leave]);
}
