/** `live`: connected, or nothing to be connected for. `offline`: the browser says that there is no network. */
export type State = "live" | "reconnecting" | "offline";

/** Why headers are asked for: `expired` is true when the server refused the ones that were given before (401). */
export interface HeadersAsked {
  readonly expired: boolean;
}

export interface Options {
  /** Where the chat is, when that is not to be seen from the request: `/api/chat`. */
  api?: string;
  /** Headers of every request, asked for anew each time: a token that is fresh. */
  headers?: (asked: HeadersAsked) => HeadersInit | Promise<HeadersInit>;
  /** Hears what a quiet sign should show, on each change. */
  state?: (state: State) => void;
  /** Called when the rest cannot be streamed any more: fetch the conversation anew. Without it the chat gets an error. */
  onExpired?: (expired: { taskId: string | undefined }) => void | Promise<void>;
  /** Chunk types beyond the common ones that the page understands: `["reset-step"]` from ai 7.0.70 on. */
  accept?: readonly string[];
  /** A connection that says nothing for so long is dead. The server says something every 10 s. Default 25 s. */
  idleMs?: number;
  /** The first pause before another attempt, doubled each time up to `maxDelayMs`. Default 250 ms. */
  minDelayMs?: number;
  /** Default 10 s. */
  maxDelayMs?: number;
  /** After so many attempts in a row without success it is over. Those made offline do not count. Default 40. */
  attempts?: number;
  /** Default: the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  credentials?: RequestCredentials;
}

/** The options with all that has a default. */
export interface Settings extends Options {
  readonly idleMs: number;
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  readonly attempts: number;
  readonly fetch: typeof globalThis.fetch;
}

/** A timer that is set for longer fires at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Throws RangeError for a limit that would cut healthy connections, or hammer a server. */
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
  if (Math.max(idleMs, minDelayMs, maxDelayMs) > LONGEST_TIMER_MS) throw new RangeError("no time may be longer than 24 days");
  return settings;
}
