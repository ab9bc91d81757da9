// What the page asks of the server, and the shapes of its answers.
import type { UIMessage } from "ai";
import { pause } from "./sse";

export interface Session {
  id: string;
  title: string | null;
  created_at: string;
  updated_at: string;
}
export interface QueuedTurn {
  task_id: string;
  message: string | null;
  message_id: string | null;
}
export interface Operation {
  operation_id: string;
  task_id: string;
  tool_name: string;
  status: string;
  progress: { percent: number | null; message: string | null } | null;
  created_at: string;
}
export interface Details extends Session {
  user_id: string | null;
  messages: UIMessage[];
  active_stream?: { task_id: string };
  older?: number; // what to ask `before`, when there may be older messages
  queued: QueuedTurn[];
  operations: Operation[];
  usage: { total_tokens: number; input_tokens: number; output_tokens: number };
}
export interface Agent {
  id: string;
  graph_id: string;
  name: string;
  description: string;
  version: number;
  updated_at: string;
}
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export interface Graph {
  nodes: { id: string; [key: string]: Json }[];
  links: { source_id: string; sink_id: string; [key: string]: Json }[];
  [key: string]: unknown;
}
export interface AgentWithGraph extends Agent {
  node_count: number;
  link_count: number;
  graph: Graph;
}
export interface AgentVersion {
  version: number;
  created_at: string;
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

const TOKEN = "copilot.token";
export const AWAY = [502, 503, 504];

export function withToken(headers?: HeadersInit): Headers {
  const all = new Headers(headers);
  const token = localStorage.getItem(TOKEN);
  if (token) all.set("authorization", `Bearer ${token}`);
  return all;
}

export async function refusal(answer: Response): Promise<Refused> {
  const told = (await answer.json().catch(() => ({}))) as { code?: string; detail?: string; title?: string };
  return new Refused(answer.status, told.code ?? "", told.detail ?? told.title ?? `The server said ${answer.status}.`);
}

async function ask<T>(path: string, init: RequestInit = {}): Promise<T> {
  const headers = withToken(init.headers);
  if (init.body) headers.set("content-type", "application/json");
  const answer = await fetch(path, { ...init, headers });
  if (!answer.ok) throw await refusal(answer);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

// Until the server answers, or says no.
export async function patiently<T>(what: () => Promise<T>, signal: AbortSignal, waiting = () => {}): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await what();
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && !AWAY.includes(error.status))) throw error;
      waiting();
      await pause(attempt, signal);
    }
  }
}

const json = (method: string, body: unknown): RequestInit => ({ method, body: JSON.stringify(body) });
const query = (values: Record<string, string | number>) => new URLSearchParams(
  Object.entries(values).filter(([, value]) => value !== "").map(([name, value]) => [name, String(value)]),
).toString();

export const api = {
  sessions: (q: string, offset = 0) =>
    ask<{ sessions: Session[]; total: number }>(`/api/chat/sessions?${query({ q, offset, limit: 50 })}`),
  session: (id: string, before?: number) =>
    ask<Details>(`/api/chat/sessions/${id}?${query({ format: "ui", before: before ?? "" })}`),
  rename: (id: string, title: string) => ask<Session>(`/api/chat/sessions/${id}`, json("PATCH", { title })),
  remove: (id: string) => ask<void>(`/api/chat/sessions/${id}`, { method: "DELETE", keepalive: true }),
  cancelTask: (task: string) => ask<{ cancelled: boolean }>(`/api/chat/tasks/${task}/cancel`, { method: "POST" }),
  cancelSession: (id: string) => ask<{ cancelled: boolean }>(`/api/chat/sessions/${id}/cancel`, { method: "POST" }),
  agents: (q: string) => ask<{ agents: Agent[]; total: number }>(`/api/library/agents?${query({ q, limit: 100 })}`),
  agent: (id: string) => ask<AgentWithGraph>(`/api/library/agents/${encodeURIComponent(id)}`),
  versions: (id: string) =>
    ask<{ versions: AgentVersion[] }>(`/api/library/agents/${encodeURIComponent(id)}/versions?limit=100`),
  version: (id: string, n: number) =>
    ask<{ graph: Graph }>(`/api/library/agents/${encodeURIComponent(id)}/versions/${n}`),
  removeAgent: (id: string) => ask<void>(`/api/library/agents/${encodeURIComponent(id)}`, { method: "DELETE" }),
};

// Sends a message behind the answer that is being written; which task it became.
export async function enqueue(session: string, messageId: string, text: string): Promise<string> {
  const reading = new AbortController();
  const answer = await fetch(`/api/chat/sessions/${session}/stream`, {
    ...json("POST", { message: text, message_id: messageId }),
    headers: withToken({ "content-type": "application/json" }),
    signal: reading.signal,
  });
  if (!answer.ok) throw await refusal(answer);
  reading.abort(); // it is read when its turn has come
  return answer.headers.get("x-resumable-stream-id") ?? "";
}
