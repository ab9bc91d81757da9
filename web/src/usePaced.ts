// A text that grows and is costly to show. The more it costs, the more seldom it is shown anew: the page stays free for
// what its reader does.
import { useEffect, useLayoutEffect, useReducer, useRef } from "react";

const COSTLY = 50; // milliseconds
const REST = 4; // times what it cost

export function usePaced(text: string): string {
  const [, again] = useReducer((n: number) => n + 1, 0);
  const shown = useRef(text);
  const due = useRef(0);
  const begun = performance.now();
  if (begun >= due.current) shown.current = text;
  const value = shown.current;
  useLayoutEffect(() => {
    const ended = performance.now();
    const cost = ended - begun;
    due.current = cost > COSTLY ? ended + REST * cost : 0;
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
