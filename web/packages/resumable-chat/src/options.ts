/** `live`: connected, or no connection is needed. `offline`: the browser reports that there is no network. */
export type State = "live" | "reconnecting" | "offline";

/** The reason for asking for headers. `expired` is true if the server refused the previous ones (401). */
export interface HeadersAsked {
  readonly expired: boolean;
}

export interface Options {
  /** The address of the chat, if it cannot be derived from the request. Example: `/api/chat`. */
  api?: string;
  /** Returns the headers of a request. Called before every request, so that a token is fresh. */
  headers?: (asked: HeadersAsked) => HeadersInit | Promise<HeadersInit>;
  /** Called when the connection state changes, for a status indicator. */
  state?: (state: State) => void;
  /**
   * Called if the rest can no longer be streamed: fetch the conversation again. Without this option the chat gets an
   * error.
   */
  onExpired?: (expired: { taskId: string | undefined }) => void | Promise<void>;
  /** Chunk types beyond the common ones that the page understands: `["reset-step"]` from ai 7.0.70 on. */
  accept?: readonly string[];
  /**
   * A connection that receives nothing for this long counts as dead. The server sends something every 10 s. Default 25
   * s.
   */
  idleMs?: number;
  /** The first pause before another attempt. It doubles each time, up to `maxDelayMs`. Default 250 ms. */
  minDelayMs?: number;
  /** The longest pause before another attempt. Default 10 s. */
  maxDelayMs?: number;
  /**
   * The number of consecutive failed attempts after which it gives up. Attempts made offline do not count. Default 40.
   */
  attempts?: number;
  /** Default: the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  credentials?: RequestCredentials;
}

/** The options with their defaults filled in. */
export interface Settings extends Options {
  readonly idleMs: number;
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  readonly attempts: number;
  readonly fetch: typeof globalThis.fetch;
}

/** The longest delay of a timer. A longer one fires at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Fills in defaults. Throws RangeError if a limit would cut healthy connections or flood the server. */
export function settingsOf(options: Options, attempts = 40): Settings {
  const settings = {
    ...options,
    idleMs: options.idleMs ?? 25_000,
    minDelayMs: options.minDelayMs ?? 250,
    maxDelayMs: options.maxDelayMs ?? 10_000,
    attempts: options.attempts ?? attempts,
    fetch: options.fetch ?? ((...args: Parameters<typeof fetch>) => globalThis.fetch(...args)),
  };
  const { idleMs, minDelayMs, maxDelayMs } = settings;
  if (!(idleMs > 0 && minDelayMs > 0 && maxDelayMs >= minDelayMs && settings.attempts >= 0)) {
    throw new RangeError("idleMs and minDelayMs must be above 0, maxDelayMs at least minDelayMs, attempts at least 0");
  }
  if (Math.max(idleMs, minDelayMs, maxDelayMs) > LONGEST_TIMER_MS)
    throw new RangeError("idleMs, minDelayMs and maxDelayMs must be at most 24 days");
  return settings;
}
