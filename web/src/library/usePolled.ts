// A value that is asked for again while it is live: with growing pauses, and only for some minutes.
import { useCallback, useEffect, useState } from "react";

const FIRST_PAUSE_MS = 700;
const LONGEST_PAUSE_MS = 10_000;
const MOST_MS = 15 * 60_000;

export interface Polled<T> {
  value: T | null; // null: it has not arrived yet
  failure: Error | null;
  reload: () => void; // asks at once, and begins with short pauses again
}

export function usePolled<T>(load: () => Promise<T>, isLive: (value: T) => boolean, key: string): Polled<T> {
  const [value, setValue] = useState<T | null>(null);
  const [failure, setFailure] = useState<Error | null>(null);
  const [round, setRound] = useState(0);
  useEffect(() => {
    let here = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let pause = FIRST_PAUSE_MS;
    let live = false;
    const end = Date.now() + MOST_MS;
    const again = () => {
      if (!here || !live || Date.now() > end) return;
      timer = setTimeout(() => (document.hidden ? again() : look()), pause);
      pause = Math.min(pause * 1.4, LONGEST_PAUSE_MS);
    };
    const look = () => {
      load().then(
        (found) => {
          if (!here) return;
          live = isLive(found);
          setValue(found);
          setFailure(null);
        },
        (problem: Error) => here && setFailure(problem),
      ).finally(again);
    };
    look();
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [key, round]);
  const reload = useCallback(() => setRound((old) => old + 1), []);
  return { value, failure, reload };
}
