// What cards of tools can see and do: work that goes on outside, cancelling it, saying something in the user's name.
import { createContext } from "react";
import type { Outside } from "../outside";

export interface Acts {
  outside: ReadonlyMap<string, Outside>;
  busy: boolean;
  cancelTask: (task: string) => Promise<void>;
  say: (text: string) => void;
}

export const Acting = createContext<Acts>({
  outside: new Map(),
  busy: false,
  cancelTask: async () => undefined,
  say: () => undefined,
});
