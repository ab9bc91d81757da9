// Loads the parser of Markdown once. If that fails, it is tried again with the next conversation, or with the network.
import type { Parsed } from "./Parsed";

let loaded: typeof Parsed | null = null;
let loading: Promise<void> | null = null;
const arrived = new EventTarget();

export const parser = () => loaded;

export function onParser(listener: () => void): () => void {
  arrived.addEventListener("arrived", listener);
  return () => arrived.removeEventListener("arrived", listener);
}

// Resolves when the parser is there, or could not be loaded.
export function loadParser(): Promise<void> {
  return (loading ??= import("./Parsed").then(
    (file) => {
      loaded = file.Parsed;
      arrived.dispatchEvent(new Event("arrived"));
    },
    () => {
      loading = null;
      addEventListener("online", () => void loadParser(), { once: true });
    },
  ));
}
