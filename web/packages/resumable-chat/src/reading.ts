import type { Connection } from "./connection.js";
import { Expired, Refused } from "./errors.js";
import { type Frame, isOld } from "./frames.js";
import type { Reconnector } from "./reconnector.js";

/** The request that continues a stream. */
export interface Resumption {
  readonly url: string;
  readonly init: RequestInit;
  readonly taskId: string | undefined;
}

const isDone = (frame: Frame): boolean => frame.data?.trim() === "[DONE]";

/**
 * Yields the events of a task that have data, each once and in order, up to `[DONE]`. Uses as many connections as
 * needed.
 *
 * Throws Expired (410), Refused (another 4xx), ConnectionLost, or the signal's reason.
 */
export async function* readTask(
  reconnector: Reconnector, first: Connection, resumption: Resumption,
): AsyncGenerator<Frame[]> {
  const progress = new Progress();
  for (let connection = first; ; ) {
    for await (const frames of connection.frames()) {
      const fresh = progress.take(frames);
      if (fresh.length > 0) {
        reconnector.progress();
        yield fresh;
      }
      if (progress.done) return;
    }
    reconnector.lost(connection);
    reconnector.signal.throwIfAborted();
    progress.forgetHeld();
    connection = await reconnector.ask(requestAfter(progress.cursor, resumption), { again: true });
    if (connection.response.status === 204) return;
    await expectStream(connection, resumption.taskId);
  }
}

/** Throws Expired or Refused if the response is not a stream. */
export async function expectStream({ response }: Connection, taskId: string | undefined): Promise<void> {
  if (response.status === 410) throw new Expired(taskId);
  if (!response.ok) throw await Refused.of(response);
}

function requestAfter(cursor: string | undefined, { url, init }: Resumption) {
  const headers = new Headers(init.headers);
  for (const name of ["content-type", "content-length", "idempotency-key"]) headers.delete(name);
  if (cursor !== undefined) headers.set("last-event-id", cursor);
  const { body: _, ...rest } = init;
  return { url, init: { ...rest, method: "GET", headers } };
}

/** The position up to which the stream was passed on. */
class Progress {
  cursor: string | undefined;
  done = false;
  #held: Frame[] = [];

  /**
   * Returns the events that may be passed on now. An event without an id is held until the next cursor or the end: if
   * the connection broke before that, the server would send the event again.
   */
  take(frames: Frame[]): Frame[] {
    const passed: Frame[] = [];
    for (const frame of frames) {
      if (frame.data === undefined) continue;
      if (frame.id !== undefined && isOld(frame.id, this.cursor)) continue;
      this.#held.push(frame);
      this.done = isDone(frame);
      if (frame.id === undefined && !this.done) continue;
      this.cursor = frame.id ?? this.cursor;
      passed.push(...this.#held.splice(0));
      if (this.done) break;
    }
    return passed;
  }

  forgetHeld(): void {
    this.#held = [];
  }
}
