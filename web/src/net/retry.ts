// Retries while the server is unavailable.
import { Refused } from "@copilot-chat/resumable";

const isBusy = (status: number) => [408, 425, 429].includes(status) || status >= 500;

// Repeats a request until it succeeds. Throws if the server refuses it or the signal is aborted.
export async function withRetry<T>(request: () => Promise<T>, signal: AbortSignal, onRetry = () => {}): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await request();
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && !isBusy(error.status))) throw error;
      onRetry();
      await pause(attempt, signal);
    }
  }
}

// Waits before the next attempt: up to 5 s, longer with each attempt. The wait ends when the network comes back, the
// page becomes visible or hidden, or the signal is aborted.
export function pause(attempt: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      document.removeEventListener("visibilitychange", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = window.setTimeout(done, Math.min(4000, 200 * 2 ** attempt) * (0.75 + Math.random() / 2));
    window.addEventListener("online", done);
    document.addEventListener("visibilitychange", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
