/** The longest `Retry-After` that is honoured. */
const LONGEST_RETRY_AFTER_MS = 120_000;

/**
 * Returns a pause of 50 to 100 % of `min * 2^attempt`, at most `max`. The jitter spreads clients that were cut at once.
 */
export function backoff(attempt: number, min: number, max: number, random = Math.random): number {
  return Math.min(max, min * 2 ** Math.min(attempt, 30)) * (0.5 + random() / 2);
}

/** Returns the wait that `Retry-After` (seconds or a date) asks for, in ms; 0 without that header. */
export function retryAfter(response: Response | undefined, now = Date.now()): number {
  const value = response?.headers.get("retry-after")?.trim();
  if (!value) return 0;
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isNaN(wait) ? 0 : Math.min(Math.max(wait, 0), LONGEST_RETRY_AFTER_MS);
}

/**
 * Waits `least` ms, and then until `most` ms have passed, the network is back or the page becomes visible. Returns true
 * in the last two cases. Throws the signal's reason.
 */
export async function pause(least: number, most: number, signal: AbortSignal): Promise<boolean> {
  if (least > 0) await sleep(least, signal);
  return most > least && (await sleep(most - least, signal, onWake));
}

type Subscribe = (woken: () => void) => () => void;

async function sleep(ms: number, signal: AbortSignal, subscribe?: Subscribe): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let unsubscribe: (() => void) | undefined;
  const rest = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
    unsubscribe = subscribe?.(() => resolve(true));
  });
  try {
    return await unlessStopped(rest, signal);
  } finally {
    clearTimeout(timer);
    unsubscribe?.();
  }
}

/** Settles like the promise, or rejects with the signal's reason if that comes first. */
export function unlessStopped<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** Calls `woken` when the network comes back or the page becomes visible. Returns a function that unsubscribes. */
export function onWake(woken: (why: "online" | "visible") => void): () => void {
  const { document: page, addEventListener: listens } = globalThis;
  if (typeof listens !== "function") return () => {};
  const online = () => woken("online");
  const visible = () => page?.visibilityState === "visible" && woken("visible");
  globalThis.addEventListener("online", online);
  page?.addEventListener("visibilitychange", visible);
  return () => {
    globalThis.removeEventListener("online", online);
    page?.removeEventListener("visibilitychange", visible);
  };
}

/** Returns true if the browser reports no network. It may be wrong: a server on the same machine is still reachable. */
export const isOffline = (): boolean => globalThis.navigator?.onLine === false;
