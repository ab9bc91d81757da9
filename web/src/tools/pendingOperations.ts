// Operations that another service has not finished yet, with the progress that the session and the feed report.
import type { Operation } from "../net/api";
import type { FeedEvent } from "../net/feed";

export interface PendingOperation {
  task_id: string;
  percent: number | null;
  message: string | null;
  since: number; // ms since the epoch
}

export function asPending(one: Operation, old: ReadonlyMap<string, PendingOperation>): PendingOperation {
  const before = old.get(one.operation_id);
  return {
    task_id: one.task_id,
    percent: one.progress?.percent ?? before?.percent ?? null,
    message: one.progress?.message ?? before?.message ?? null,
    since: Date.parse(one.created_at),
  };
}

export function withProgress(
  old: ReadonlyMap<string, PendingOperation>, event: FeedEvent,
): ReadonlyMap<string, PendingOperation> {
  const id = event.operation_id!;
  const before = old.get(id);
  return new Map(old).set(id, {
    task_id: event.task_id ?? before?.task_id ?? "",
    percent: event.percent ?? before?.percent ?? null,
    message: event.message ?? before?.message ?? null,
    since: before?.since ?? Date.now(),
  });
}
