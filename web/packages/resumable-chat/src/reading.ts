import type { Connection } from "./connection.js";
import { Expired, Refused } from "./errors.js";
import { type Frame, isOld } from "./frames.js";
import type { Line } from "./line.js";

/** Where the stream goes on. */
export interface Resumption {
  readonly url: string;
  readonly init: RequestInit;
  readonly taskId: string | undefined;
}

const isDone = (frame: Frame): boolean => frame.data?.trim() === "[DONE]";

/**
 * The events of a task with data, each once and in order, over as many connections as it takes, up to `[DONE]`.
 *
 * Throws Expired (410), Refused (another 4xx), ConnectionLost, or the signal's reason.
 */
export async function* readTask(line: Line, first: Connection, resumption: Resumption): AsyncGenerator<Frame[]> {
  const place = new Place();
  for (let connection = first; ; ) {
    for await (const frames of connection.frames()) {
      const fresh = place.take(frames);
      if (fresh.length > 0) {
        line.progress();
        yield fresh;
      }
      if (place.done) return;
    }
    line.lost(connection);
    line.signal.throwIfAborted();
    place.forgetHeld();
    connection = await line.ask(questionBehind(place.cursor, resumption), { again: true });
    if (connection.response.status === 204) return;
    await expectStream(connection, resumption.taskId);
  }
}

/** Throws Expired or Refused when the answer is no stream. */
export async function expectStream({ response }: Connection, taskId: string | undefined): Promise<void> {
  if (response.status === 410) throw new Expired(taskId);
  if (!response.ok) throw await Refused.of(response);
}

function questionBehind(cursor: string | undefined, { url, init }: Resumption) {
  const headers = new Headers(init.headers);
  for (const name of ["content-type", "content-length", "idempotency-key"]) headers.delete(name);
  if (cursor !== undefined) headers.set("last-event-id", cursor);
  const { body: _, ...rest } = init;
  return { url, init: { ...rest, method: "GET", headers } };
}

/** How far the stream was passed on. */
class Place {
  cursor: string | undefined;
  done = false;
  #held: Frame[] = [];

  /**
   * The events that may be passed on now. One without an id waits for the next cursor, or for the end: if the
   * connection broke before that, the server would send it again.
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
