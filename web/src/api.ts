// What the page asks of the server, and the shapes of its answers.
import { Refused } from "@copilot-chat/resumable";
import type { UIMessage } from "ai";
import { bearer, judge } from "./token";

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

const ANSWER = 10_000; // a kept connection may be dead: then it is asked for on another one
const WHOLE = 60_000;

async function ask<T>(path: string, init: RequestInit = {}): Promise<T> {
  const headers = { ...bearer(), ...(init.body ? { "content-type": "application/json" } : {}) };
  const cutter = new AbortController();
  let late = setTimeout(() => cutter.abort(), ANSWER);
  try {
    const answer = await fetch(path, { ...init, headers, signal: cutter.signal });
    clearTimeout(late);
    late = setTimeout(() => cutter.abort(), WHOLE);
    if (answer.status === 401) judge(false);
    if (!answer.ok) throw await Refused.of(answer);
    return (answer.status === 204 ? undefined : await answer.json()) as T;
  } finally {
    clearTimeout(late);
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
  agents: (q: string, offset = 0) =>
    ask<{ agents: Agent[]; total: number }>(`/api/library/agents?${query({ q, offset, limit: 50 })}`),
  agent: (id: string) => ask<AgentWithGraph>(`/api/library/agents/${encodeURIComponent(id)}`),
  versions: (id: string, offset = 0) =>
    ask<{ versions: AgentVersion[]; total: number }>(
      `/api/library/agents/${encodeURIComponent(id)}/versions?${query({ offset, limit: 50 })}`),
  version: (id: string, n: number) =>
    ask<{ graph: Graph }>(`/api/library/agents/${encodeURIComponent(id)}/versions/${n}`),
  removeAgent: (id: string) => ask<void>(`/api/library/agents/${encodeURIComponent(id)}`, { method: "DELETE" }),
};
