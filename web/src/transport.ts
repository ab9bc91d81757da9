// The AI SDK's transport on a network that fails: what breaks is attached again behind the last event that came, so
// useChat sees one answer without seams. To be replaced by the package of web/packages.
import { DefaultChatTransport, type UIMessage } from "ai";
import { AWAY, refusal, withToken } from "./api";
import { newId } from "./ids";
import { eventsOf, pause } from "./sse";

export interface Wire {
  attachTo: string | null; // the task that resumeStream() reads
  onTask(task: string): void;
  onReconnecting(reconnecting: boolean): void;
  onLost(): void; // the stream cannot be served any more: the conversation has the answer
}

const streamOf = (task: string) => `/api/chat/tasks/${task}/stream?accept=reset-step`;

export function transportFor(wire: Wire): DefaultChatTransport<UIMessage> {
  return new DefaultChatTransport({
    api: "/api/chat?accept=reset-step",
    fetch: (input, init) => steadyFetch(String(input), init ?? {}, wire),
    prepareSendMessagesRequest: ({ id, messages, trigger, messageId }) => {
      const revises = trigger === "regenerate-message" || messageId !== undefined;
      const last = messages.findLast((message) => message.role === "user");
      return {
        body: { id, trigger, messageId, messages: last ? [{ id: last.id, role: last.role, parts: last.parts }] : [] },
        headers: revises ? { "idempotency-key": newId() } : undefined,
      };
    },
    prepareReconnectToStreamRequest: () => ({ api: streamOf(wire.attachTo ?? "none") }),
  });
}

async function steadyFetch(url: string, init: RequestInit, wire: Wire): Promise<Response> {
  const signal = init.signal ?? undefined;
  const first = await answered(url, { ...init, headers: withToken(init.headers) }, wire, signal);
  if (first.status === 410 || (first.status === 404 && init.method !== "POST")) {
    wire.onLost();
    return new Response(null, { status: 204 });
  }
  if (!first.ok) throw await refusal(first);
  const task = first.headers.get("x-resumable-stream-id");
  if (first.status === 204 || !task) return first;
  wire.onTask(task);
  return new Response(steadyBody(first, task, wire, signal), { status: 200, headers: first.headers });
}

// Asks until the server answers. A message that is sent again has the same id, so it is answered once.
async function answered(url: string, init: RequestInit, wire: Wire, signal?: AbortSignal): Promise<Response> {
  for (let attempt = 0; ; attempt++) {
    signal?.throwIfAborted();
    const answer = await fetch(url, { ...init, cache: "no-store" }).catch(() => null);
    signal?.throwIfAborted();
    if (answer && !AWAY.includes(answer.status)) {
      wire.onReconnecting(false);
      return answer;
    }
    wire.onReconnecting(true);
    await pause(attempt, signal);
  }
}

function steadyBody(first: Response, task: string, wire: Wire, signal?: AbortSignal): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder();
  const events = steadyEvents(first, task, wire, signal);
  return new ReadableStream({
    async pull(controller) {
      try {
        const { value, done } = await events.next();
        if (done) controller.close();
        else controller.enqueue(bytes.encode(value));
      } catch (error) {
        controller.error(error);
      }
    },
    cancel: async () => void (await events.return(undefined)),
  });
}

async function* steadyEvents(
  first: Response,
  task: string,
  wire: Wire,
  signal?: AbortSignal,
): AsyncGenerator<string, void> {
  let answer = first;
  let cursor: string | undefined;
  for (let attempt = 0; ; attempt++) {
    try {
      for await (const event of eventsOf(answer, signal)) {
        yield event.text;
        cursor = event.id ?? cursor;
        if (event.data !== undefined) attempt = 0;
        if (event.data === "[DONE]") return;
      }
    } catch (error) {
      if (signal?.aborted) throw error;
    }
    wire.onReconnecting(true);
    if (attempt > 0) await pause(attempt, signal);
    const headers = withToken(cursor ? { "last-event-id": cursor } : {});
    answer = await answered(streamOf(task), { headers, signal }, wire, signal);
    if (answer.status === 204 || !answer.ok) return wire.onLost();
  }
}
