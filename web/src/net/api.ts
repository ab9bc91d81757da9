// The requests that the page makes to the server, and the types of the responses.
import { Refused } from "@copilot-chat/resumable";
import type { UIMessage } from "ai";
import { bearer, recordAccess } from "./token";

export interface Session {
  id: string;
  title: string | null;
  created_at: string;
  updated_at: string;
  is_pinned?: boolean; // missing in sessions that only this browser knows
  is_archived?: boolean;
  folder_id?: string | null;
}
export interface Place {
  is_pinned?: boolean;
  is_archived?: boolean;
  folder_id?: string; // empty: out of its folder
}
export interface Folder {
  id: string;
  name: string;
}
export interface Share {
  path: string; // of the page that shows the copy
  created_at: string;
}
export interface Feedback {
  rating: "up" | "down";
  comment?: string | null;
}
export interface QueuedTurn {
  task_id: string;
  message: string | null;
  message_id: string | null;
  steers: string | null; // the running task that takes the message in before its next step
}
export interface Operation {
  operation_id: string;
  task_id: string;
  tool_name: string;
  status: string;
  progress: { percent: number | null; message: string | null } | null;
  created_at: string;
}
// The answer to a question, or to the approval of a call, or the result of a call that a page carries out.
export type Answer =
  | { answer: Json } | { declined: true } | { dismissed: true } | { approved: boolean; always?: boolean } | { output: Json } | { error: string };
// A tool server at which the user is signed in.
export interface Connection {
  server: string;
  signed_in_at: string;
  scopes: string[];
}
// The versions of a message, on different branches. `siblings` are their names for `switchTo`, `shown` is this one's.
export interface Alternatives {
  id: string;
  shown: string;
  index: number; // from 1
  count: number;
  siblings: string[];
}
export interface Details extends Session {
  user_id: string | null;
  messages: UIMessage[];
  active_stream?: { task_id: string };
  older?: number; // the `before` of the next page; missing if there are no older messages
  queued: QueuedTurn[];
  branches?: Alternatives[]; // missing in answers of an older server
  operations: Operation[];
  usage: { total_tokens: number; input_tokens: number; output_tokens: number };
  model: string; // the model that answers the next message
  effort: string | null;
}
export interface Model {
  id: string;
  label: string;
  default: boolean;
  efforts: string[]; // from the lowest; empty if the effort cannot be chosen
}
// A message that a search found.
export interface Found {
  session_id: string;
  message_id: string;
  sequence: number; // an answer of several steps can be found at each of them, under one message id
  title: string | null;
  role: "user" | "assistant";
  snippet: { text: string; match: boolean }[];
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
  published_version?: number | null; // missing in answers of an older server
  graph: Graph;
}
export interface AgentVersion {
  version: number;
  created_at: string;
}

const HEADERS_LIMIT_MS = 10_000; // a reused connection may be dead; a retry gets another one
const BODY_LIMIT_MS = 60_000;

const jsonOf = (answer: Response): Promise<unknown> => answer.json();

export async function request<T>(path: string, init: RequestInit = {}, read = jsonOf): Promise<T> {
  const headers = { ...(init.headers as Record<string, string>), ...bearer(), ...(init.body ? { "content-type": "application/json" } : {}) };
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), HEADERS_LIMIT_MS);
  try {
    const answer = await fetch(path, { ...init, headers, signal: abort.signal });
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), BODY_LIMIT_MS);
    if (answer.status === 401) recordAccess(false);
    if (!answer.ok) throw await Refused.of(answer);
    return (answer.status === 204 ? undefined : await read(answer)) as T;
  } finally {
    clearTimeout(timer);
  }
}

export const isNotFound = (failure: unknown) => failure instanceof Refused && failure.status === 404;

export const json = (method: string, body: unknown): RequestInit => ({ method, body: JSON.stringify(body) });
export const query = (values: Record<string, string | number | boolean>) => new URLSearchParams(
  Object.entries(values).filter(([, value]) => value !== "").map(([name, value]) => [name, String(value)]),
).toString();

// A file as the server keeps it. `link` needs no token, and ends after some minutes.
export interface StoredFile {
  url: string;
  mediaType: string;
  filename: string;
  link: string;
}

const UPLOAD_LIMIT_MS = 180_000;

async function posted<T>(path: string, file: File, headers: Record<string, string>): Promise<T> {
  const answer = await fetch(path, {
    method: "POST", headers: { ...bearer(), ...headers }, body: file, signal: AbortSignal.timeout(UPLOAD_LIMIT_MS),
  });
  if (answer.status === 401) recordAccess(false);
  if (!answer.ok) throw await Refused.of(answer);
  return (await answer.json()) as T;
}

export const api = {
  upload: (file: File, key: string) =>
    posted<StoredFile>(`/api/chat/files?${query({ filename: file.name.slice(-200) })}`, file, { "idempotency-key": key }),
  instructions: () => request<{ instructions: string | null; enabled: boolean }>("/api/chat/instructions"),
  setInstructions: (instructions: string) => request<unknown>("/api/chat/instructions", json("PUT", { instructions })),
  connections: () => request<{ connections: Connection[] }>("/api/chat/mcp/connections"),
  disconnect: (server: string) =>
    request<void>(`/api/chat/mcp/connections/${encodeURIComponent(server)}`, { method: "DELETE" }),
  file: (id: string) => request<StoredFile>(`/api/chat/files/${encodeURIComponent(id)}/metadata`),
  models: () => request<{ models: Model[] }>("/api/chat/models"),
  sessions: (q: string, archived: boolean, folder_id: string, offset = 0) =>
    request<{ sessions: Session[]; total: number }>(
      `/api/chat/sessions?${query({ q, archived: archived || "", folder_id, offset, limit: 50 })}`),
  session: (id: string, before?: number) =>
    request<Details>(`/api/chat/sessions/${id}?${query({ format: "ui", accept: "dynamic-tools", before: before ?? "" })}`),
  searchMessages: (q: string) => request<{ results: Found[] }>(`/api/chat/search?${query({ q })}`),
  rename: (id: string, title: string) => request<Session>(`/api/chat/sessions/${id}`, json("PATCH", { title })),
  place: (id: string, place: Place) =>
    request<Session>(`/api/chat/sessions/${id}`, json("PATCH", place)),
  exported: (id: string, format: "markdown" | "json") =>
    request<Blob>(`/api/chat/sessions/${id}/export?${query({ format })}`, {}, (answer) => answer.blob()),
  imported: (id: string, file: File) =>
    posted<Session>(`/api/chat/sessions/import?${query({ id })}`, file, { "content-type": "application/json" }),
  folders: () => request<{ folders: Folder[] }>("/api/chat/folders"),
  makeFolder: (name: string) => request<Folder>("/api/chat/folders", json("POST", { name })),
  renameFolder: (id: string, name: string) => request<Folder>(`/api/chat/folders/${id}`, json("PATCH", { name })),
  removeFolder: (id: string) => request<void>(`/api/chat/folders/${id}`, { method: "DELETE" }),
  sharing: (id: string) => request<{ enabled: boolean; share: Share | null }>(`/api/chat/sessions/${id}/share`),
  share: (id: string) => request<Share>(`/api/chat/sessions/${id}/share`, { method: "PUT" }),
  withdraw: (id: string) => request<void>(`/api/chat/sessions/${id}/share`, { method: "DELETE" }),
  giveFeedback: (id: string, message: string, given: Feedback) =>
    request<Feedback>(`/api/chat/sessions/${id}/messages/${message}/feedback`, json("PUT", given)),
  removeFeedback: (id: string, message: string) =>
    request<void>(`/api/chat/sessions/${id}/messages/${message}/feedback`, { method: "DELETE" }),
  result: (task: string, call: string) =>
    request<{ output: Json }>(`/api/chat/tasks/${task}/results/${encodeURIComponent(call)}`),
  switchTo: (id: string, message: string) =>
    request<{ message_id: string }>(`/api/chat/sessions/${id}/leaf`, json("POST", { message_id: message })),
  remove: (id: string) => request<void>(`/api/chat/sessions/${id}`, { method: "DELETE", keepalive: true }),
  cancelTask: (task: string) => request<{ cancelled: boolean }>(`/api/chat/tasks/${task}/cancel`, { method: "POST" }),
  answer: (operation: string, given: Answer) =>
    request<{ task_id: string }>(`/api/chat/operations/${operation}/answer`, json("POST", given)),
  cancelSession: (id: string) => request<{ cancelled: boolean }>(`/api/chat/sessions/${id}/cancel`, { method: "POST" }),
  agents: (q: string, offset = 0) =>
    request<{ agents: Agent[]; total: number }>(`/api/library/agents?${query({ q, offset, limit: 50 })}`),
  agent: (id: string) => request<AgentWithGraph>(`/api/library/agents/${encodeURIComponent(id)}`),
  versions: (id: string, offset = 0) =>
    request<{ versions: AgentVersion[]; total: number }>(
      `/api/library/agents/${encodeURIComponent(id)}/versions?${query({ offset, limit: 50 })}`),
  version: (id: string, n: number) =>
    request<{ graph: Graph }>(`/api/library/agents/${encodeURIComponent(id)}/versions/${n}`),
  removeAgent: (id: string) => request<void>(`/api/library/agents/${encodeURIComponent(id)}`, { method: "DELETE" }),
};
