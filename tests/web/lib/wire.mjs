// Provides the fetch of a chat. It keeps a journal of all requests and events, and can simulate a bad network: it cuts
// a response after so many events and reconnects with Last-Event-ID, while the chat keeps reading one body.
import { FrameScanner } from './frames.mjs';

const SHOWN_HEADERS = ['content-type', 'cache-control', 'x-accel-buffering', 'x-vercel-ai-ui-message-stream', 'x-resumable-stream-id', 'content-encoding', 'content-length'];
const ATTEMPTS = 100;
const PAUSE_MS = 100;

/**
 * One tab's connection to the server.
 *   options.headers    sent with every request (authorization)
 *   options.accept     chunk types beyond the common subset, sent as ?accept=
 *   options.cuts       [n, m, ...]: the first response is cut after n data events, the next after m, later ones not
 *   options.resilient  reconnects after any loss, not only after the cuts
 *   options.attach     'session' (default) or 'task': the stream to which it reconnects
 * `legs` is the journal: one leg per fetch of the chat, with all of its requests.
 */
export class Wire {
  legs = [];
  connections = [];
  events = 0;

  constructor(base, session, options = {}) {
    Object.assign(this, { base, session, options, cuts: [...(options.cuts ?? [])], waiting: [] });
  }

  fetch = async (url, init = {}) => {
    const leg = { requests: [], stopped: false };
    this.legs.push(leg);
    init.signal?.addEventListener('abort', () => (leg.stopped = true));
    const first = await this.#request(leg, String(url), init);
    const { status, headers, body } = first.response;
    if (status !== 200 || body === null) return first.response;
    const whole = this.options.cuts !== undefined || this.options.resilient;
    return new Response(whole ? this.#patchedBody(leg, first, init) : this.#plainBody(first), { status, headers });
  };

  /** Resolves when this tab has received `count` data events in all. */
  received(count) {
    if (this.events >= count) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ count, resolve }));
  }

  /** Ends every connection that is still open, as closing the page does. */
  abandon() {
    for (const { cutter, reader } of this.connections) {
      cutter.abort(new Error('the page is gone'));
      reader?.cancel().catch(() => {});
    }
  }

  async #request(leg, url, init) {
    const target = new URL(url);
    if (this.options.accept) target.searchParams.set('accept', this.options.accept);
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(this.options.headers ?? {})) headers.set(name, value);
    const entry = { method: init.method ?? 'GET', path: target.pathname + target.search, cursor: headers.get('last-event-id') ?? undefined, frames: [], end: 'open' };
    leg.requests.push(entry);
    const cutter = new AbortController();
    const signal = init.signal ? AbortSignal.any([init.signal, cutter.signal]) : cutter.signal;
    const response = await fetch(target, { ...init, headers, signal });
    entry.status = response.status;
    entry.headers = Object.fromEntries(SHOWN_HEADERS.filter((name) => response.headers.has(name)).map((name) => [name, response.headers.get(name)]));
    const connection = { entry, response, cutter, reader: response.body?.getReader(), scanner: new FrameScanner() };
    this.connections.push(connection);
    return connection;
  }

  /** Returns a body with the bytes as they come, and writes their events to the journal. */
  #plainBody(connection) {
    return new ReadableStream({
      pull: async (out) => {
        const bytes = await this.#read(connection, out);
        if (bytes === undefined) return;
        this.#journal(connection, connection.scanner.push(bytes));
        out.enqueue(bytes);
      },
      cancel: (reason) => connection.reader.cancel(reason),
    }, { highWaterMark: 0 });
  }

  async #read({ entry, reader, scanner }, out) {
    try {
      const { done, value } = await reader.read();
      if (!done) return value;
      entry.end = 'eof';
      entry.rest = scanner.rest || undefined;
      out.close();
    } catch (error) {
      entry.end = 'lost';
      out.error(error);
    }
    return undefined;
  }

  /** Returns a body of whole events, from as many connections as necessary. */
  #patchedBody(leg, connection, init) {
    const encoder = new TextEncoder();
    let left = this.cuts.shift() ?? Infinity;
    const pull = async (out) => {
      for (;;) {
        if (left <= 0) this.#cut(connection);
        if (connection.entry.end !== 'open') {
          if (leg.stopped) return out.error(init.signal.reason);
          connection = await this.#reconnect(leg, init);
          if (connection === null) return out.close();
          left = this.cuts.shift() ?? Infinity;
          continue;
        }
        const frames = upTo(await this.#takeFrames(connection), left);
        left -= frames.filter(isChunk).length;
        this.#journal(connection, frames);
        if (frames.length > 0) out.enqueue(encoder.encode(frames.map((frame) => frame.raw).join('')));
        if (isDone(connection.entry)) return out.close();
        if (frames.length > 0) return undefined;
      }
    };
    return new ReadableStream({ pull, cancel: (reason) => connection?.reader.cancel(reason) }, { highWaterMark: 0 });
  }

  async #takeFrames({ entry, reader, scanner }) {
    try {
      const { done: ended, value } = await reader.read();
      if (!ended) return scanner.push(value);
      entry.end = 'eof';
    } catch {
      entry.end = 'lost';
    }
    return [];
  }

  #cut(connection) {
    connection.entry.end = 'cut';
    connection.cutter.abort(new Error('cut by the test'));
    connection.reader.cancel().catch(() => {});
  }

  /** Opens a new connection behind the last received event. Returns null if the server answers that nothing is left. */
  async #reconnect(leg, init) {
    const task = leg.requests[0].headers['x-resumable-stream-id'];
    const path = this.options.attach === 'task' ? `/api/chat/tasks/${task}/stream` : `/api/chat/${this.session}/stream`;
    const cursor = leg.requests.flatMap((request) => request.frames).findLast((frame) => frame.id !== undefined)?.id;
    const again = { method: 'GET', signal: init.signal, headers: cursor === undefined ? {} : { 'last-event-id': cursor } };
    for (let attempt = 1; ; attempt++) {
      const connection = await this.#request(leg, this.base + path, again).catch((error) => ({ error }));
      const status = connection.response?.status;
      if (status === 200) return connection;
      if (status === 204) return null;
      if (attempt === ATTEMPTS || init.signal?.aborted || (status !== undefined && status < 500)) {
        throw new Error(`reconnecting failed: ${status ?? connection.error}`);
      }
      leg.requests.pop();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  #journal({ entry }, frames) {
    entry.frames.push(...frames);
    this.events += frames.filter(isChunk).length;
    this.waiting = this.waiting.filter(({ count, resolve }) => this.events < count || resolve());
  }
}

export const isChunk = (frame) => frame.data !== undefined && frame.data !== '[DONE]';

export const isDone = (request) => request.frames.at(-1)?.data === '[DONE]';

/** Returns the frames up to and including the `limit`-th data event. Those behind it count as never received. */
function upTo(frames, limit) {
  let chunks = 0;
  const end = frames.findIndex((frame) => isChunk(frame) && ++chunks === limit);
  return end < 0 ? frames : frames.slice(0, end + 1);
}
