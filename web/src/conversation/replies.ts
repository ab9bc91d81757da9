// The user's messages after a given message. A tool card finds the reply to its question among them.
import type { UIMessage } from "ai";
import { useMemo, useRef } from "react";
import type { QueuedTurn } from "../net/api";
import { textIn } from "../parts";

export function useReplies(messages: UIMessage[], queued: QueuedTurn[]): (message: string) => string[] {
  const before = useRef<UIMessage[]>([]);
  const asked = messages.filter(({ role }) => role === "user");
  const same = asked.length === before.current.length && asked.every((one, place) => one === before.current[place]);
  if (!same) before.current = asked;
  const last = before.current; // keeps its identity while only answers grow
  return useMemo(() => {
    const waiting = queued.flatMap(({ message }) => message ?? []);
    return (message) => {
      const place = messages.findIndex(({ id }) => id === message);
      if (place < 0) return waiting; // the message is not in the list yet, so only queued messages come after it
      const since = messages.slice(place + 1).filter(({ role }) => role === "user");
      return [...since.map(({ parts }) => textIn(parts)), ...waiting];
    };
  }, [last, messages[0]?.id, queued]);
}
