// What the user said behind a message: cards that asked for it have their answer.
import type { UIMessage } from "ai";
import { useMemo, useRef } from "react";
import type { QueuedTurn } from "./api";
import { textIn } from "./shown";

export function useSaid(messages: UIMessage[], queued: QueuedTurn[]): (message: string) => string[] {
  const before = useRef<UIMessage[]>([]);
  const asked = messages.filter(({ role }) => role === "user");
  const same = asked.length === before.current.length && asked.every((one, place) => one === before.current[place]);
  if (!same) before.current = asked;
  const last = before.current; // the same one while only answers grow
  return useMemo(() => {
    const waiting = queued.flatMap(({ message }) => message ?? []);
    return (message) => {
      const place = messages.findIndex(({ id }) => id === message);
      if (place < 0) return waiting; // it came after all that was said
      const since = messages.slice(place + 1).filter(({ role }) => role === "user");
      return [...since.map(({ parts }) => textIn(parts)), ...waiting];
    };
  }, [last, messages[0]?.id, queued]);
}
