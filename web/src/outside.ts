// Work of a conversation that another service does: what the server, and then its feed, says of it.
import type { Operation } from "./api";
import type { FeedEvent } from "./feed";

export interface Outside {
  task_id: string;
  percent: number | null;
  message: string | null;
  since: number;
}

export function asOutside(one: Operation, old: ReadonlyMap<string, Outside>): Outside {
  const before = old.get(one.operation_id);
  return {
    task_id: one.task_id,
    percent: one.progress?.percent ?? before?.percent ?? null,
    message: one.progress?.message ?? before?.message ?? null,
    since: Date.parse(one.created_at),
  };
}

export function withProgress(old: ReadonlyMap<string, Outside>, event: FeedEvent): ReadonlyMap<string, Outside> {
  const id = event.operation_id!;
  const before = old.get(id);
  return new Map(old).set(id, {
    task_id: event.task_id ?? before?.task_id ?? "",
    percent: event.percent ?? before?.percent ?? null,
    message: event.message ?? before?.message ?? null,
    since: before?.since ?? Date.now(),
  });
}
