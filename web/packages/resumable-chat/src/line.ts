import { Connection } from "./connection.js";
import { ConnectionLost } from "./errors.js";
import type { Settings } from "./options.js";
import { backoff, isOffline, pause, retryAfter, unlessStopped } from "./pauses.js";
import type { Sign } from "./sign.js";

/** A connection that held for so long was a good one, even if nothing was said. */
const PROVEN_MS = 5_000;

/**
 * Connections that the browser kept may be dead, and each can be found out only by asking on it: so the first attempts to
 * read wait less for an answer. A server that is slow gets the whole time after that.
 */
const IMPATIENT = { attempts: 4, ms: 5_000 };

/** A request that may be sent any number of times; `once` if it may not. */
export interface Question {
  readonly url: string;
  readonly init: RequestInit;
  readonly once?: boolean;
}

/** The way to the server for one stream: as many connections as it takes, never two at once. */
export class Line {
  readonly signal: AbortSignal;
  #stopper = new AbortController();
  #ended = new AbortController();
  #failures = 0;

  constructor(
    readonly settings: Settings,
    private readonly sign: Sign,
    signal: AbortSignal | null | undefined,
  ) {
    this.signal = this.#stopper.signal;
    if (signal?.aborted) this.stop(signal.reason);
    else signal?.addEventListener("abort", () => this.stop(signal.reason), { signal: this.#ended.signal });
  }

  /** Ends all that waits and reads on this line, at once. */
  stop(reason?: unknown): void {
    this.#stopper.abort(reason);
    this.release();
  }

  /** Nothing is waited for any more: the sign need not show this line. */
  end(): void {
    this.sign.remove(this);
  }

  /** Nothing is read any more either: whoever might have stopped it need not hold it. */
  release(): void {
    this.#ended.abort();
    this.end();
  }

  /** Something new has come: the next loss starts with short pauses again. */
  progress(): void {
    this.#failures = 0;
    this.sign.set(this, "live");
  }

  /** The connection that was read is gone. */
  lost(connection: Connection): void {
    if (Date.now() - connection.since >= PROVEN_MS) this.#failures = 0;
  }

  /**
   * Asks until there is an answer that another attempt would not change. Throws ConnectionLost when it has been tried
   * often enough (the last answer instead, if there was one), the signal's reason when stopped.
   */
  async ask(question: Question, { again = false } = {}): Promise<Connection> {
    if (again && this.#failures >= this.settings.attempts) throw new ConnectionLost(this.#failures, undefined);
    let wait = again ? 0 : undefined;
    for (;;) {
      if (wait !== undefined) await this.#pause(wait);
      const answer = await this.#try(question);
      this.signal.throwIfAborted();
      wait = answer instanceof Connection ? waitBefore(answer.response, question) : 0;
      if (answer instanceof Connection && (wait === undefined || this.#isLast(question))) {
        this.sign.set(this, "live");
        return answer;
      }
      if (answer instanceof Connection) answer.close();
      else if (question.once) throw answer;
      else if (this.#isLast(question)) throw new ConnectionLost(this.#failures, answer);
    }
  }

  #isLast({ once }: Question): boolean {
    return once === true || this.#failures >= this.settings.attempts;
  }

  async #pause(least: number): Promise<void> {
    const { minDelayMs, maxDelayMs } = this.settings;
    const offline = isOffline();
    this.sign.set(this, offline ? "offline" : "reconnecting");
    const delay = offline ? maxDelayMs : backoff(this.#failures, minDelayMs, maxDelayMs);
    if (!offline) this.#failures++;
    const woken = await pause(least, delay, this.signal);
    if (woken) this.#failures = 0; // it is another network now, or somebody waits
  }

  /** One answer, or why there was none. A 401 is asked again with fresh headers, once. */
  async #try(question: Question): Promise<Connection | unknown> {
    try {
      const answer = await this.#request(question, false);
      if (answer.response.status !== 401 || this.settings.headers === undefined) return answer;
      answer.close();
      return await this.#request(question, true);
    } catch (error) {
      return error;
    }
  }

  async #request({ url, init }: Question, expired: boolean): Promise<Connection> {
    const { idleMs, fetch } = this.settings;
    const cutter = new AbortController();
    const stop = () => cutter.abort(this.signal.reason);
    if (this.signal.aborted) stop();
    else this.signal.addEventListener("abort", stop, { once: true });
    const impatient = init.method === "GET" && this.#failures < IMPATIENT.attempts;
    const limit = impatient ? Math.min(IMPATIENT.ms, idleMs) : idleMs;
    const late = setTimeout(() => cutter.abort(new DOMException("No answer came.", "TimeoutError")), limit);
    cutter.signal.addEventListener("abort", () => this.signal.removeEventListener("abort", stop));
    try {
      const headers = new Headers(init.headers);
      const fresh = await unlessStopped(this.#freshHeaders(expired), cutter.signal);
      fresh.forEach((value, name) => headers.set(name, value));
      const response = await unlessStopped(fetch(url, { ...init, headers, signal: cutter.signal }), cutter.signal);
      return new Connection(response, cutter, idleMs);
    } finally {
      clearTimeout(late);
    }
  }

  async #freshHeaders(expired: boolean): Promise<Headers> {
    return new Headers(await this.settings.headers?.({ expired }));
  }
}

/** How long to wait before the same question; undefined when its answer is one. */
function waitBefore(response: Response, { init }: Question): number | undefined {
  const { status } = response;
  const reads = init.method === "GET"; // a message that finds no room is the sender's to decide on
  const busy = [408, 425].includes(status) || status > 500 || (reads && [429, 500].includes(status));
  return busy ? retryAfter(response) : undefined;
}
