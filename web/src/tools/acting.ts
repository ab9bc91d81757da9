// What cards of tools can see and do: work that goes on outside, cancelling it, saying something in the user's name.
import { createContext, useContext, useEffect, useState } from "react";
import type { Outside } from "../outside";

export interface Acts {
  outside: ReadonlyMap<string, Outside>;
  cancelTask: (task: string) => Promise<void>;
  say: (text: string) => void;
  saidSince: (message: string) => string[]; // by the user
}

export const Acting = createContext<Acts>({
  outside: new Map(),
  cancelTask: async () => undefined,
  say: () => undefined,
  saidSince: () => [],
});

// The message that a card stands in.
export const Within = createContext("");

const SHOWN_WITHIN = 1_000;

// How a card says something once: what of it was said already, and how to say it.
export function useSaying(isIt: (text: string) => boolean): { said: string | undefined; say: (text: string) => void } {
  const { say, saidSince } = useContext(Acting);
  const message = useContext(Within);
  const [now, setNow] = useState<string>(); // until the conversation shows it, or shows that it was not taken
  useEffect(() => {
    if (now === undefined) return;
    const timer = setTimeout(() => setNow(undefined), SHOWN_WITHIN);
    return () => clearTimeout(timer);
  }, [now]);
  const said = saidSince(message).find(isIt);
  return {
    said: said ?? now,
    say: (text) => {
      setNow(text);
      say(text);
    },
  };
}
