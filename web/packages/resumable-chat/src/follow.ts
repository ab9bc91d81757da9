import { taskAddress } from "./addresses.js";
import { Line } from "./line.js";
import { type Options, type Settings, settingsOf } from "./options.js";
import { expectStream, readTask } from "./reading.js";
import { Sign } from "./sign.js";

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
  /** Ends it: the loop throws the signal's reason. */
  signal?: AbortSignal;
}

export interface FeedOptions extends Omit<FollowOptions, "accept"> {
  /** This session alone; callers without a token must name one. */
  sessionId?: string;
}

/**
 * The chunks of a task, an answer or an operation, from its first to its last, each once.
 *
 * Throws Expired (fetch the conversation), Refused, ConnectionLost. Leaving the loop closes the connection.
 */
export async function* followTask(taskId: string, options: FollowOptions = {}): AsyncGenerator<Chunk, void, undefined> {
  const { settings, line } = open(options);
  const { accept } = settings;
  const question = { url: taskAddress(taskId, { api: chatOf(settings), accept }), init: initOf(settings) };
  try {
    const connection = await line.ask(question);
    if (connection.response.status === 204) return;
    await expectStream(connection, taskId);
    for await (const frames of readTask(line, connection, { ...question, taskId })) {
      for (const { data } of frames) if (data?.trim() !== "[DONE]") yield JSON.parse(data!) as Chunk;
    }
  } finally {
    line.stop();
  }
}

/**
 * What happens in the caller's sessions, for as long as the loop runs; after each reconnect a `snapshot` comes first.
 *
 * Like an EventSource it does not give up, unless `attempts` says so. Throws Refused when the server does not want it.
 */
export async function* followEvents(options: FeedOptions = {}): AsyncGenerator<FeedEvent, void, undefined> {
  const { settings, line } = open(options, Infinity);
  const named = options.sessionId === undefined ? "" : `?session_id=${encodeURIComponent(options.sessionId)}`;
  const question = { url: `${chatOf(settings)}/events${named}`, init: initOf(settings) };
  try {
    for (let again = false; ; again = true) {
      const connection = await line.ask(question, { again });
      await expectStream(connection, undefined);
      for await (const frames of connection.frames()) {
        const told = frames.filter((frame) => frame.data !== undefined);
        if (told.length > 0) line.progress();
        for (const { data } of told) yield JSON.parse(data!) as FeedEvent;
      }
      line.lost(connection);
      line.signal.throwIfAborted();
    }
  } finally {
    line.stop();
  }
}

const chatOf = ({ api }: Settings): string => (api ?? "/api/chat").replace(/\/$/, "");

const initOf = ({ credentials }: Settings): RequestInit => ({ method: "GET", ...(credentials !== undefined && { credentials }) });

function open(options: FollowOptions, attempts?: number): { settings: Settings; line: Line } {
  const settings = settingsOf(options, attempts);
  return { settings, line: new Line(settings, new Sign(settings.state), options.signal) };
}
