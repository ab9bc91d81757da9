import { type Frame, FrameCutter } from "./frames.js";
import { onWake, unlessStopped } from "./pauses.js";

/** After so long a silence a page that is looked at again does not wait for the rest of the idle limit. */
const STALE_MS = 12_000;

/** One response that is read event by event, until it ends, breaks, or falls silent. */
export class Connection {
  /** When it was opened, in ms. */
  readonly since = Date.now();
  #heard = 0;

  constructor(
    readonly response: Response,
    private readonly cutter: AbortController,
    private readonly idleMs: number,
  ) {}

  /** Arrays of whole events. Ends without a word when there will be no more: what was missed has to be asked for. */
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
      return; // reset, silent, or stopped: whoever reads asks for the rest, or knows that it has stopped us
    } finally {
      asleep();
      this.close();
      reader.cancel().catch(() => {});
    }
  }

  close(): void {
    this.cutter.abort(new DOMException("The connection is not needed any more.", "AbortError"));
  }

  async #watched<T>(read: Promise<T>): Promise<T> {
    this.#heard = Date.now(); // a reader that takes its time is no silence of the server's
    const timer = setTimeout(() => this.close(), this.idleMs);
    try {
      return await read;
    } finally {
      clearTimeout(timer);
    }
  }

  #wake(why: "online" | "visible"): void {
    const stale = Math.min(STALE_MS, this.idleMs);
    if (why === "online" || Date.now() - this.#heard >= stale) this.close();
  }
}
