import { type Frame, FrameCutter } from "./frames.js";
import { onWake, unlessStopped } from "./pauses.js";

/** If nothing has arrived for this long when the page becomes visible, the connection is closed at once. */
const STALE_MS = 12_000;

/** Reads one response event by event, until it ends, breaks, or sends nothing for `idleMs`. */
export class Connection {
  /** Time of opening, in ms since the epoch. */
  readonly since = Date.now();
  #receivedAt = 0;

  constructor(
    readonly response: Response,
    private readonly cutter: AbortController,
    private readonly idleMs: number,
  ) {}

  /**
   * Yields arrays of whole events. Ends without an error even if the connection breaks: the caller requests the rest.
   */
  async *frames(): AsyncGenerator<Frame[]> {
    const reader = this.response.body?.getReader();
    if (reader === undefined) return;
    const cutter = new FrameCutter();
    const asleep = onWake((why) => this.#wake(why));
    try {
      for (;;) {
        const { done, value } = await this.#watched(unlessStopped(reader.read(), this.cutter.signal));
        if (done) return;
        yield cutter.push(value);
      }
    } catch {
      return; // reset, silent or stopped; the caller requests the rest unless it has stopped the connection
    } finally {
      asleep();
      this.close();
      reader.cancel().catch(() => {});
    }
  }

  close(): void {
    this.cutter.abort(new DOMException("The connection is no longer needed.", "AbortError"));
  }

  async #watched<T>(read: Promise<T>): Promise<T> {
    this.#receivedAt = Date.now(); // the time that the caller takes to process events does not count as silence
    const timer = setTimeout(() => this.close(), this.idleMs);
    try {
      return await read;
    } finally {
      clearTimeout(timer);
    }
  }

  #wake(why: "online" | "visible"): void {
    const stale = Math.min(STALE_MS, this.idleMs);
    if (why === "online" || Date.now() - this.#receivedAt >= stale) this.close();
  }
}
