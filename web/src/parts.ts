// The parts of a message, as the AI SDK has them.
import type { DynamicToolUIPart, FileUIPart, ToolUIPart, UIMessage } from "ai";

export type ToolPart = ToolUIPart | DynamicToolUIPart;
export type Part = UIMessage["parts"][number];

// The ids of the user's messages that answers have taken in.
export const takenIn = (messages: UIMessage[]) =>
  new Set(messages.flatMap(({ parts }) => parts.flatMap((part) => (part.type === "data-steering" ? [part.id] : []))));

export const filesIn = (parts: Part[]): FileUIPart[] => parts.filter((part) => part.type === "file");
export const textIn = (parts: Part[]) => parts.flatMap((part) => (part.type === "text" ? part.text : [])).join("\n\n");

// Returns the address of a page of the web, and undefined for any other, which must not become a link.
export const safeUrl = (url: string) => (/^https?:/i.test(url) ? url : undefined);
