// The requests about runs and schedules of agents, and about their versions. They are loaded with the library.
import { json, query, request, type AgentWithGraph, type Json } from "../net/api";
import type { Row } from "../tools/output";

export interface Inputs {
  version: number;
  input_schema: Row;
  property_order: string[];
  trigger: string | null;
}
export interface Node {
  name: string;
  status: string;
  error: string | null;
}
export interface Run {
  execution_id: string;
  version: number | null;
  status: "queued" | "running" | "completed" | "failed" | "cancelled";
  started_at: string | null;
  ended_at: string | null;
  outputs: Json;
  error: string | null;
  nodes?: Node[]; // missing in lists
}
export interface Schedule {
  id: string;
  version: number;
  name: string;
  cron: string;
  when: string; // the same in words
  timezone: string;
  inputs: Row;
  paused: boolean;
  next_run_at: string | null;
}
export interface When {
  cron: string;
  timezone: string;
}

export interface Published {
  id: string;
  version: number;
  name: string;
  description: string;
  published_at: string;
  mine: boolean;
}

export const isLive = (run: Run) => run.status === "queued" || run.status === "running";

const of = (agent: string) => `/api/library/agents/${encodeURIComponent(agent)}`;
const schedule = (id: string) => `/api/library/schedules/${encodeURIComponent(id)}`;
const once = (init: RequestInit, key: string): RequestInit => ({ ...init, headers: { "idempotency-key": key } });

export const agentApi = {
  inputs: (agent: string) => request<Inputs>(`${of(agent)}/inputs`),
  run: (agent: string, version: number, inputs: Row, key: string) =>
    request<{ execution_id: string }>(`${of(agent)}/runs`, once(json("POST", { version, inputs }), key)),
  runs: (agent: string) => request<{ runs: Run[] }>(`${of(agent)}/runs?${query({ limit: 20 })}`),
  runOf: (agent: string, id: string) => request<Run>(`${of(agent)}/runs/${encodeURIComponent(id)}`),
  cancel: (agent: string, id: string) =>
    request<Run>(`${of(agent)}/runs/${encodeURIComponent(id)}/cancel`, { method: "POST" }),
  schedules: (agent: string) => request<{ schedules: Schedule[] }>(`${of(agent)}/schedules`),
  makeSchedule: (agent: string, version: number, when: When, inputs: Row, key: string) =>
    request<Schedule>(`${of(agent)}/schedules`, once(json("POST", { ...when, version, inputs }), key)),
  pause: (id: string, paused: boolean) => request<Schedule>(schedule(id), json("PATCH", { paused })),
  removeSchedule: (id: string) => request<void>(schedule(id), { method: "DELETE" }),
  restore: (agent: string, version: number) =>
    request<AgentWithGraph>(`${of(agent)}/versions/${version}/restore`, { method: "POST" }),
  publish: (agent: string, version: number) =>
    request<Published>(`${of(agent)}/publication`, json("PUT", { version })),
  unpublish: (agent: string) => request<void>(`${of(agent)}/publication`, { method: "DELETE" }),
  published: (q: string, offset: number) =>
    request<{ agents: Published[]; total: number }>(`/api/library/published?${query({ q, offset, limit: 50 })}`),
  copy: (agent: string) =>
    request<AgentWithGraph>(`/api/library/published/${encodeURIComponent(agent)}/copy`, { method: "POST" }),
  importAgent: (document: unknown) => request<AgentWithGraph>("/api/library/agents", json("POST", document)),
};
