// The AI SDK's transport over a fetch that resumes broken streams: useChat sees each answer as one stream.
import { Refused, resumable, type State } from "@copilot-chat/resumable";
import { DefaultChatTransport, type FileUIPart, type UIMessage } from "ai";
import type { Choice } from "../conversation/choice";
import { filesIn, textIn } from "../parts";
import type { QueuedTurn } from "./api";
import { bearer, recordAccess } from "./token";

export interface ConnectionEvents {
  exists(): boolean; // the server has the conversation
  onTask(task: string): void;
  onState(state: State): void;
  onLost(): void; // the server can no longer serve the stream; the conversation contains the answer
}

export interface ResumableConnection {
  transport: DefaultChatTransport<UIMessage>;
  attachTo(task: string): void; // sets the task that resumeStream() reads
  // Sends a message while an answer is running. Returns its own task, and the running one if that takes it in.
  enqueue(session: string, message: Enqueued, signal: AbortSignal): Promise<Pick<QueuedTurn, "task_id" | "steers">>;
}

export interface Enqueued {
  id: string;
  text: string;
  files: FileUIPart[];
  choice: Choice | null;
  steers: boolean; // the running answer reads it before its next step
}

const TASK = "x-resumable-stream-id";
const pathOf = (session: string) => `/api/chat/sessions/${session}/stream`;

// Each file is named by its id, which is the end of its url.
const namedFiles = (files: FileUIPart[]) =>
  files.length > 0 ? { file_ids: files.map(({ url }) => url.slice(url.lastIndexOf("/") + 1)) } : {};

export function openConnection(events: ConnectionEvents): ResumableConnection {
  const resumableFetch = resumable({
    headers: bearer,
    accept: ["reset-step", "dynamic-tools", "questions"],
    state: (state) => events.onState(state),
    onExpired: () => events.onLost(),
    maxDelayMs: 4000,
    attempts: Infinity, // the reader sees the state and can close the page
  });

  async function request(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const answer = await resumableFetch(input, init);
    if (answer.status === 401) recordAccess(false);
    if (answer.ok) return answer;
    if (answer.status !== 404 || init?.method === "POST") throw await Refused.of(answer);
    events.onLost();
    return new Response(null, { status: 204 });
  }

  let taskToResume = "none";
  const transport = new DefaultChatTransport<UIMessage>({
    api: "/api/chat",
    fetch: async (input, init) => {
      const answer = await request(input, init);
      const task = answer.headers.get(TASK);
      if (task) events.onTask(task);
      return answer;
    },
    prepareSendMessagesRequest: ({ id, messages, trigger, messageId, body: choice }) => {
      const last = messages.findLast((message) => message.role === "user");
      if (last && trigger === "submit-message" && messageId === undefined && events.exists())
        // /api/chat would create the conversation again if it was deleted elsewhere
        return { api: pathOf(id), body: { message: textIn(last.parts), message_id: last.id, ...namedFiles(filesIn(last.parts)), ...choice } };
      const sent = last ? [{ id: last.id, role: last.role, parts: last.parts }] : [];
      return { body: { id, trigger, messageId, messages: sent, ...choice } };
    },
    prepareReconnectToStreamRequest: () => ({ api: `/api/chat/tasks/${taskToResume}/stream` }),
  });

  // The stream of the response is not read: the conversation attaches to the answer when its turn starts.
  async function enqueue(session: string, { id, text, files, choice, steers }: Enqueued, signal: AbortSignal) {
    const answer = await request(pathOf(session), {
      method: "POST",
      signal,
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        message: text, message_id: id, ...namedFiles(files), ...(steers && { on_busy: "steer" }), ...choice,
      }),
    });
    if (answer.status === 202) {
      const { queued_task_id: task_id, task_id: running } = (await answer.json()) as { queued_task_id: string; task_id: string };
      return { task_id, steers: running };
    }
    void answer.body?.cancel();
    return { task_id: answer.headers.get(TASK) ?? "", steers: null };
  }

  return { transport, enqueue, attachTo: (task) => void (taskToResume = task) };
}
