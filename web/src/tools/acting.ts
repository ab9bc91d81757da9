// What cards of tools can see and do: work that goes on outside, cancelling it, saying something in the user's name.
import { createContext, useContext, useState } from "react";
import type { Outside } from "../outside";

export interface Acts {
  outside: ReadonlyMap<string, Outside>;
  busy: boolean;
  cancelTask: (task: string) => Promise<void>;
  say: (text: string) => void;
  saidSince: (message: string) => string[]; // by the user
}

export const Acting = createContext<Acts>({
  outside: new Map(),
  busy: false,
  cancelTask: async () => undefined,
  say: () => undefined,
  saidSince: () => [],
});

// The message that a card stands in.
export const Within = createContext("");

// How a card says something once, of which the beginnings are known: what was said already, and how to say it.
export function useSaying(...beginnings: string[]): { said: string | undefined; say: (text: string) => void } {
  const { say, saidSince } = useContext(Acting);
  const message = useContext(Within);
  const [now, setNow] = useState<string>(); // the conversation shows it a moment later
  const said = saidSince(message).find((text) => beginnings.some((beginning) => text.startsWith(beginning)));
  return {
    said: said ?? now,
    say: (text) => {
      setNow(text);
      say(text);
    },
  };
}
