import { accepting, taskAddress } from "./addresses.js";
import type { Connection } from "./connection.js";
import { Expired } from "./errors.js";
import { type Question, Line } from "./line.js";
import { type Options, type Settings, settingsOf } from "./options.js";
import { type Resumption, readTask } from "./reading.js";
import { Sign } from "./sign.js";

const TASK = "x-resumable-stream-id";

/**
 * A `fetch` for `DefaultChatTransport` (ai 5, 6 and 7) whose streams do not break: what is lost on the way is asked for
 * again, behind the last event that came. The chat sees one response, each event once.
 */
export function resumable(options: Options = {}): typeof globalThis.fetch {
  const settings = settingsOf(options);
  const sign = new Sign(settings.state);
  return async (input, init) => {
    const { url, init: request } = await requestOf(input, init);
    const line = new Line(settings, sign, request.signal);
    const question = questionOf(url, request, settings);
    try {
      const connection = await line.ask(question);
      return await answerOf(line, connection, question);
    } catch (error) {
      line.release();
      throw error;
    }
  };
}

async function answerOf(line: Line, connection: Connection, { url, init }: Question): Promise<Response> {
  const { response } = connection;
  const taskId = response.headers.get(TASK) ?? undefined;
  if (init.method === "GET" && response.status === 410 && line.settings.onExpired !== undefined) {
    connection.close();
    line.release();
    tellExpired(line.settings, new Expired(undefined));
    return new Response(null, { status: 204 }); // for the chat: nothing runs
  }
  if (!response.ok || response.body === null || (taskId === undefined && init.method !== "GET") || !isEventStream(response)) {
    line.end();
    return response;
  }
  const { api, accept } = line.settings;
  const again = taskId === undefined ? url : taskAddress(taskId, { api, asked: url, accept });
  const body = bodyOf(line, connection, { url: again, init, taskId });
  const { status, statusText, headers } = response;
  return new Response(body, { status, statusText, headers });
}

const isEventStream = (response: Response): boolean => /^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "");

type Out = ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;

function bodyOf(line: Line, connection: Connection, resumption: Resumption): ReadableStream<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  const events = readTask(line, connection, resumption);
  const start = (out: Out) => {
    line.signal.addEventListener("abort", () => {
      out.error(line.signal.reason);
      void events.return(undefined).catch(() => {});
    });
  };
  const pull = async (out: Out) => {
    try {
      const { done, value } = await events.next();
      if (!done) return out.enqueue(encoder.encode(value.map((frame) => frame.raw).join("")));
      line.release();
      out.close();
    } catch (error) {
      line.release();
      if (line.signal.aborted) return; // the chat has been told
      if (!(error instanceof Expired && line.settings.onExpired !== undefined)) return out.error(error);
      out.close();
      tellExpired(line.settings, error);
    }
  };
  return new ReadableStream({ start, pull, cancel: (reason) => line.stop(reason) }, { highWaterMark: 0 });
}

/** An error of the page's own function is the page's: it is reported as one that nobody caught. */
function tellExpired({ onExpired }: Settings, { taskId }: Expired): void {
  void Promise.resolve().then(() => onExpired?.({ taskId }));
}

async function requestOf(input: RequestInfo | URL, init: RequestInit = {}): Promise<{ url: string; init: RequestInit }> {
  if (!(input instanceof Request)) return { url: String(input), init: { ...init, method: (init.method ?? "GET").toUpperCase() } };
  const request = new Request(input, init);
  const { method, headers, signal, credentials, cache, mode, redirect } = request;
  const body = method === "GET" || method === "HEAD" ? null : await request.text();
  return { url: request.url, init: { method, headers, signal, credentials, cache, mode, redirect, body } };
}

/** What is sent, and whether it may be sent twice: a POST may, because its key says that it is the same one. */
function questionOf(url: string, init: RequestInit, { accept, credentials }: Settings): Question {
  const headers = new Headers(init.headers);
  const repeats = init.method === "GET" || init.method === "HEAD";
  const keyed = init.method === "POST" && (init.body == null || typeof init.body === "string");
  const once = !repeats && !keyed;
  if (keyed && !headers.has("idempotency-key")) headers.set("idempotency-key", newKey());
  const whole = { ...init, headers, ...(credentials !== undefined && { credentials }) };
  return { url: accepting(url, accept), init: whole, once };
}

/** As unique as `randomUUID`, which pages without TLS do not have. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
