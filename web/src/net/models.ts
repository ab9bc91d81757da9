// The models among which the user may choose. The list is read once; a page for another caller is loaded again.
import { useSyncExternalStore } from "react";
import { api, type Model } from "./api";
import { withRetry } from "./retry";

const LIMIT_MS = 600_000; // without the list the page works, and shows no choice

let models: Model[] = [];
let request: Promise<void> | undefined;
const listeners = new Set<() => void>();

export function useModels(): Model[] {
  return useSyncExternalStore(subscribe, () => models);
}

function subscribe(listener: () => void) {
  listeners.add(listener);
  request ??= load().catch(() => undefined);
  return () => void listeners.delete(listener);
}

async function load() {
  models = (await withRetry(() => api.models(), AbortSignal.timeout(LIMIT_MS))).models;
  for (const listener of listeners) listener();
}
