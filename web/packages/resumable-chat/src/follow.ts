import { taskAddress } from "./addresses.js";
import { Reconnector } from "./reconnector.js";
import { type Options, type Settings, settingsOf } from "./options.js";
import { expectStream, readTask } from "./reading.js";
import { StateReporter } from "./state.js";

/** One chunk of the AI SDK's UI message stream. */
export interface Chunk {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** One hint of `GET /events`: `snapshot`, `turn-started`, `operation-progress` and so on. */
export interface FeedEvent {
  readonly type: string;
  readonly session_id?: string;
  readonly task_id?: string;
  readonly [field: string]: unknown;
}

export interface FollowOptions extends Omit<Options, "onExpired"> {
  /** Ends the loop, which throws the signal's reason. */
  signal?: AbortSignal;
}

export interface FeedOptions extends Omit<FollowOptions, "accept"> {
  /** Limits the events to one session. Callers without a token must set it. */
  sessionId?: string;
}

/**
 * Yields the chunks of a task (an answer or an operation) from the first to the last, each once.
 *
 * Throws Expired (fetch the conversation), Refused, ConnectionLost. Leaving the loop closes the connection.
 */
export async function* followTask(taskId: string, options: FollowOptions = {}): AsyncGenerator<Chunk, void, undefined> {
  const { settings, reconnector } = open(options);
  const { accept } = settings;
  const request = { url: taskAddress(taskId, { api: chatOf(settings), accept }), init: initOf(settings) };
  try {
    const connection = await reconnector.ask(request);
    if (connection.response.status === 204) return;
    await expectStream(connection, taskId);
    for await (const frames of readTask(reconnector, connection, { ...request, taskId })) {
      for (const { data } of frames) if (data?.trim() !== "[DONE]") yield JSON.parse(data!) as Chunk;
    }
  } finally {
    reconnector.stop();
  }
}

/**
 * Yields the events of the caller's sessions until the loop is left. After each reconnect a `snapshot` comes first.
 *
 * Like an EventSource it retries without limit, unless `attempts` is set. Throws Refused if the server refuses the
 * request.
 */
export async function* followEvents(options: FeedOptions = {}): AsyncGenerator<FeedEvent, void, undefined> {
  const { settings, reconnector } = open(options, Infinity);
  const named = options.sessionId === undefined ? "" : `?session_id=${encodeURIComponent(options.sessionId)}`;
  const request = { url: `${chatOf(settings)}/events${named}`, init: initOf(settings) };
  try {
    for (let again = false; ; again = true) {
      const connection = await reconnector.ask(request, { again });
      await expectStream(connection, undefined);
      for await (const frames of connection.frames()) {
        const events = frames.filter((frame) => frame.data !== undefined);
        if (events.length > 0) reconnector.progress();
        for (const { data } of events) yield JSON.parse(data!) as FeedEvent;
      }
      reconnector.lost(connection);
      reconnector.signal.throwIfAborted();
    }
  } finally {
    reconnector.stop();
  }
}

const chatOf = ({ api }: Settings): string => (api ?? "/api/chat").replace(/\/$/, "");

const initOf = ({ credentials }: Settings): RequestInit => ({ method: "GET", ...(credentials !== undefined && { credentials }) });

function open(options: FollowOptions, attempts?: number): { settings: Settings; reconnector: Reconnector } {
  const settings = settingsOf(options, attempts);
  return { settings, reconnector: new Reconnector(settings, new StateReporter(settings.state), options.signal) };
}
