// The AI SDK's transport over a fetch whose streams do not break: useChat sees one answer without seams.
import { Refused, resumable, type State } from "@copilot-chat/resumable";
import { DefaultChatTransport, type UIMessage } from "ai";
import { textIn } from "./shown";
import { bearer, judge } from "./token";

export interface Wire {
  exists(): boolean; // the server has the conversation
  onTask(task: string): void;
  onState(state: State): void;
  onLost(): void; // the stream cannot be served any more: the conversation has the answer
}

export interface Line {
  transport: DefaultChatTransport<UIMessage>;
  attachTo(task: string): void; // what resumeStream() reads
  enqueue(session: string, messageId: string, text: string, signal: AbortSignal): Promise<string>; // which task it became
}

const TASK = "x-resumable-stream-id";
const pathOf = (session: string) => `/api/chat/sessions/${session}/stream`;

export function lineFor(wire: Wire): Line {
  const steady = resumable({
    headers: bearer,
    accept: ["reset-step"],
    state: (state) => wire.onState(state),
    onExpired: () => wire.onLost(),
    maxDelayMs: 4000,
    attempts: Infinity, // somebody looks at the page, and can leave it
  });

  async function asked(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const answer = await steady(input, init);
    if (answer.status === 401) judge(false);
    if (answer.ok) return answer;
    if (answer.status !== 404 || init?.method === "POST") throw await Refused.of(answer);
    wire.onLost();
    return new Response(null, { status: 204 });
  }

  let running = "none";
  const transport = new DefaultChatTransport<UIMessage>({
    api: "/api/chat",
    fetch: async (input, init) => {
      const answer = await asked(input, init);
      const task = answer.headers.get(TASK);
      if (task) wire.onTask(task);
      return answer;
    },
    prepareSendMessagesRequest: ({ id, messages, trigger, messageId }) => {
      const last = messages.findLast((message) => message.role === "user");
      if (last && trigger === "submit-message" && messageId === undefined && wire.exists())
        // /api/chat would make the conversation again if it was deleted elsewhere
        return { api: pathOf(id), body: { message: textIn(last.parts), message_id: last.id } };
      return {
        body: { id, trigger, messageId, messages: last ? [{ id: last.id, role: last.role, parts: last.parts }] : [] },
      };
    },
    prepareReconnectToStreamRequest: () => ({ api: `/api/chat/tasks/${running}/stream` }),
  });

  // A message behind the answer that is being written. Its own answer is read when its turn has come.
  async function enqueue(session: string, messageId: string, text: string, signal: AbortSignal): Promise<string> {
    const answer = await asked(pathOf(session), {
      method: "POST",
      signal,
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ message: text, message_id: messageId }),
    });
    void answer.body?.cancel();
    return answer.headers.get(TASK) ?? "";
  }

  return { transport, enqueue, attachTo: (task) => void (running = task) };
}
