import { accepting, taskAddress } from "./addresses.js";
import type { Connection } from "./connection.js";
import { Expired } from "./errors.js";
import { type Options, type Settings, settingsOf } from "./options.js";
import { type Resumption, readTask } from "./reading.js";
import { Reconnector, type RetryableRequest } from "./reconnector.js";
import { StateReporter } from "./state.js";

const TASK = "x-resumable-stream-id";

/**
 * Returns a `fetch` for `DefaultChatTransport` (ai 5, 6 and 7) that resumes broken streams. It requests the missing
 * events from the server, after the last one received. The chat sees one response, with each event once.
 */
export function resumable(options: Options = {}): typeof globalThis.fetch {
  const settings = settingsOf(options);
  const reporter = new StateReporter(settings.state);
  return async (input, init) => {
    const { url, init: given } = await requestOf(input, init);
    const reconnector = new Reconnector(settings, reporter, given.signal);
    const request = retryableRequest(url, given, settings);
    try {
      const connection = await reconnector.ask(request);
      return await answerOf(reconnector, connection, request);
    } catch (error) {
      reconnector.release();
      throw error;
    }
  };
}

async function answerOf(
  reconnector: Reconnector, connection: Connection, { url, init }: RetryableRequest,
): Promise<Response> {
  const { response } = connection;
  const taskId = response.headers.get(TASK) ?? undefined;
  if (init.method === "GET" && response.status === 410 && reconnector.settings.onExpired !== undefined) {
    connection.close();
    reconnector.release();
    reportExpired(reconnector.settings, new Expired(undefined));
    return new Response(null, { status: 204 }); // tells the chat that no answer is running
  }
  if (!response.ok || response.body === null || (taskId === undefined && init.method !== "GET") || !isEventStream(response)) {
    reconnector.end();
    return response;
  }
  const { api, accept } = reconnector.settings;
  const again = taskId === undefined ? url : taskAddress(taskId, { api, asked: url, accept });
  const body = bodyOf(reconnector, connection, { url: again, init, taskId });
  const { status, statusText, headers } = response;
  return new Response(body, { status, statusText, headers });
}

const isEventStream = (response: Response): boolean => /^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "");

type Out = ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;

function bodyOf(
  reconnector: Reconnector, connection: Connection, resumption: Resumption,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  const events = readTask(reconnector, connection, resumption);
  const start = (out: Out) => {
    reconnector.signal.addEventListener("abort", () => {
      out.error(reconnector.signal.reason);
      void events.return(undefined).catch(() => {});
    });
  };
  const pull = async (out: Out) => {
    try {
      const { done, value } = await events.next();
      if (!done) return out.enqueue(encoder.encode(value.map((frame) => frame.raw).join("")));
      reconnector.release();
      out.close();
    } catch (error) {
      reconnector.release();
      if (reconnector.signal.aborted) return; // the chat knows the error already
      if (!(error instanceof Expired && reconnector.settings.onExpired !== undefined)) return out.error(error);
      out.close();
      reportExpired(reconnector.settings, error);
    }
  };
  return new ReadableStream({ start, pull, cancel: (reason) => reconnector.stop(reason) }, { highWaterMark: 0 });
}

/** Calls `onExpired`. If it throws, the error is reported as an unhandled rejection of the page. */
function reportExpired({ onExpired }: Settings, { taskId }: Expired): void {
  void Promise.resolve().then(() => onExpired?.({ taskId }));
}

async function requestOf(input: RequestInfo | URL, init: RequestInit = {}): Promise<{ url: string; init: RequestInit }> {
  if (!(input instanceof Request)) return { url: String(input), init: { ...init, method: (init.method ?? "GET").toUpperCase() } };
  const request = new Request(input, init);
  const { method, headers, signal, credentials, cache, mode, redirect } = request;
  const body = method === "GET" || method === "HEAD" ? null : await request.text();
  return { url: request.url, init: { method, headers, signal, credentials, cache, mode, redirect, body } };
}

/**
 * Prepares a request for retries. A POST may be repeated if its body is text: its idempotency key marks the repetition.
 */
function retryableRequest(url: string, init: RequestInit, { accept, credentials }: Settings): RetryableRequest {
  const headers = new Headers(init.headers);
  const repeats = init.method === "GET" || init.method === "HEAD";
  const keyed = init.method === "POST" && (init.body == null || typeof init.body === "string");
  const once = !repeats && !keyed;
  if (keyed && !headers.has("idempotency-key")) headers.set("idempotency-key", newKey());
  const whole = { ...init, headers, ...(credentials !== undefined && { credentials }) };
  return { url: accepting(url, accept), init: whole, once };
}

/** Returns a random key. Pages without TLS have no `randomUUID`. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
