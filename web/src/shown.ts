// What stands on the page of a list of messages: a call is shown where it was made, with the newest that is known of it.
// The message of an operation begins with the call that began it, which stands in an earlier one already.
import { isToolUIPart, type DynamicToolUIPart, type ToolUIPart, type UIMessage } from "ai";

export type ToolPart = ToolUIPart | DynamicToolUIPart;
export type Part = UIMessage["parts"][number];
export interface ShownMessage {
  message: UIMessage;
  parts: Part[];
}

export const textIn = (parts: Part[]) => parts.flatMap((part) => (part.type === "text" ? part.text : [])).join("\n\n");

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
