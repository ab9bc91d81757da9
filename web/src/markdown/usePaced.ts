// Limits how often a growing text is rendered. The longer a render takes, the longer the pause before the next one, so
// the page stays responsive. A text that no longer grows is rendered at once.
import { useEffect, useLayoutEffect, useReducer, useRef } from "react";

const COSTLY_MS = 50; // a shorter render causes no pause
const REST_FACTOR = 4; // the pause in units of the render time

export function usePaced(text: string, growing: boolean): string {
  const [, again] = useReducer((n: number) => n + 1, 0);
  const shown = useRef(text);
  const due = useRef(0);
  const begun = performance.now();
  if (!growing || begun >= due.current) shown.current = text;
  const value = shown.current;
  useLayoutEffect(() => {
    const ended = performance.now();
    const cost = ended - begun;
    due.current = cost > COSTLY_MS ? ended + REST_FACTOR * cost : 0;
  }, [value]);
  useEffect(() => {
    if (value === text) return;
    const timer = setTimeout(() => {
      due.current = 0;
      again();
    }, due.current - performance.now());
    return () => clearTimeout(timer);
  }, [value, text]);
  return value;
}
