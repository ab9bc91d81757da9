import { Connection } from "./connection.js";
import { ConnectionLost } from "./errors.js";
import type { Settings } from "./options.js";
import { backoff, isOffline, pause, retryAfter, unlessStopped } from "./pauses.js";
import type { StateReporter } from "./state.js";

/** A connection that lasted this long counts as successful, even without an event. */
const PROVEN_MS = 5_000;

/**
 * Connections that the browser reuses may be dead, which only a request on them shows. So the first few reads wait less
 * for an answer; later attempts give a slow server the whole time.
 */
const QUICK_ATTEMPTS = { attempts: 4, ms: 5_000 };

/** A request that may be sent any number of times, unless `once` is set. */
export interface RetryableRequest {
  readonly url: string;
  readonly init: RequestInit;
  readonly once?: boolean;
}

/** Makes the requests of one stream and retries them: as many connections as needed, never two at once. */
export class Reconnector {
  readonly signal: AbortSignal;
  #stopper = new AbortController();
  #ended = new AbortController();
  #failures = 0;

  constructor(
    readonly settings: Settings,
    private readonly reporter: StateReporter,
    signal: AbortSignal | null | undefined,
  ) {
    this.signal = this.#stopper.signal;
    if (signal?.aborted) this.stop(signal.reason);
    else signal?.addEventListener("abort", () => this.stop(signal.reason), { signal: this.#ended.signal });
  }

  /** Ends all pauses, requests and reads at once. */
  stop(reason?: unknown): void {
    this.#stopper.abort(reason);
    this.release();
  }

  /** Takes this stream out of the reported state. */
  end(): void {
    this.reporter.remove(this);
  }

  /** Also removes the listener from the caller's signal. Called when nothing more is read. */
  release(): void {
    this.#ended.abort();
    this.end();
  }

  /** Called when a new event has arrived: the next loss starts with short pauses again. */
  progress(): void {
    this.#failures = 0;
    this.reporter.set(this, "live");
  }

  /** Called when the connection that was read has ended. */
  lost(connection: Connection): void {
    if (Date.now() - connection.since >= PROVEN_MS) this.#failures = 0;
  }

  /**
   * Repeats the request until it gets an answer that a retry would not change. After the last attempt it returns the
   * last answer, or throws ConnectionLost if there was none. Throws the signal's reason when stopped.
   */
  async ask(request: RetryableRequest, { again = false } = {}): Promise<Connection> {
    if (again && this.#failures >= this.settings.attempts) throw new ConnectionLost(this.#failures, undefined);
    let wait = again ? 0 : undefined;
    for (;;) {
      if (wait !== undefined) await this.#pause(wait);
      const answer = await this.#try(request);
      this.signal.throwIfAborted();
      wait = answer instanceof Connection ? waitBeforeRetry(answer.response, request) : 0;
      if (answer instanceof Connection && (wait === undefined || this.#isLast(request))) {
        this.reporter.set(this, "live");
        return answer;
      }
      if (answer instanceof Connection) answer.close();
      else if (request.once) throw answer;
      else if (this.#isLast(request)) throw new ConnectionLost(this.#failures, answer);
    }
  }

  #isLast({ once }: RetryableRequest): boolean {
    return once === true || this.#failures >= this.settings.attempts;
  }

  async #pause(least: number): Promise<void> {
    const { minDelayMs, maxDelayMs } = this.settings;
    const offline = isOffline();
    this.reporter.set(this, offline ? "offline" : "reconnecting");
    const delay = offline ? maxDelayMs : backoff(this.#failures, minDelayMs, maxDelayMs);
    if (!offline) this.#failures++;
    const woken = await pause(least, delay, this.signal);
    if (woken) this.#failures = 0; // the network may have changed, or somebody is waiting
  }

  /** Returns the answer, or the error if there was none. After a 401 it repeats the request once with fresh headers. */
  async #try(request: RetryableRequest): Promise<Connection | unknown> {
    try {
      const answer = await this.#request(request, false);
      if (answer.response.status !== 401 || this.settings.headers === undefined) return answer;
      answer.close();
      return await this.#request(request, true);
    } catch (error) {
      return error;
    }
  }

  async #request({ url, init }: RetryableRequest, expired: boolean): Promise<Connection> {
    const { idleMs, fetch } = this.settings;
    const cutter = new AbortController();
    const stop = () => cutter.abort(this.signal.reason);
    if (this.signal.aborted) stop();
    else this.signal.addEventListener("abort", stop, { once: true });
    const impatient = init.method === "GET" && this.#failures < QUICK_ATTEMPTS.attempts;
    const limit = impatient ? Math.min(QUICK_ATTEMPTS.ms, idleMs) : idleMs;
    const abortLate = () => cutter.abort(new DOMException("The server did not answer in time.", "TimeoutError"));
    const late = setTimeout(abortLate, limit);
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

/** Returns the ms to wait before a retry; undefined if the answer is final. */
function waitBeforeRetry(response: Response, { init }: RetryableRequest): number | undefined {
  const { status } = response;
  const reads = init.method === "GET"; // a refused message (429) is not retried: its sender decides
  const busy = [408, 425].includes(status) || status > 500 || (reads && [429, 500].includes(status));
  return busy ? retryAfter(response) : undefined;
}
