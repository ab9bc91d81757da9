// Decides which parts of the messages the page shows. A tool call appears once, where it was made, with its newest
// output. The message of an operation repeats the call that started it; that copy is left out.
import { isToolUIPart, type UIMessage } from "ai";
import type { Part, ToolPart } from "../parts";

export interface ShownMessage {
  message: UIMessage;
  parts: Part[];
}

export function shownMessages(messages: UIMessage[], known: WeakMap<UIMessage, ShownMessage>): ShownMessage[] {
  const firstOf = new Map<string, UIMessage>();
  const later = new Map<string, ToolPart>();
  for (const message of messages)
    for (const part of message.parts) {
      if (!isToolUIPart(part)) continue;
      const first = firstOf.get(part.toolCallId);
      if (first === undefined) firstOf.set(part.toolCallId, message);
      else if (first !== message && part.state.startsWith("output")) later.set(part.toolCallId, part);
    }
  return messages.map((message) => {
    const parts = message.parts.flatMap((part): Part[] => {
      if (part.type === "data-progress") return firstOf.get(String(part.id)) === message ? [part] : [];
      if (!isToolUIPart(part)) return [part];
      if (firstOf.get(part.toolCallId) !== message) return [];
      return [later.get(part.toolCallId) ?? part];
    });
    const before = known.get(message);
    if (before && before.parts.length === parts.length && before.parts.every((part, n) => part === parts[n]))
      return before;
    const one = { message, parts };
    known.set(message, one);
    return one;
  });
}
