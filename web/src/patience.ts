// Waiting for a server that is away.
import { Refused } from "@copilot-chat/resumable";

const isBusy = (status: number) => [408, 425, 429].includes(status) || status >= 500;

// Until the server answers, or says no.
export async function patiently<T>(what: () => Promise<T>, signal: AbortSignal, waiting = () => {}): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await what();
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && !isBusy(error.status))) throw error;
      waiting();
      await pause(attempt, signal);
    }
  }
}

// Waits before another try; sooner when the network comes back or the page is looked at again.
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
