// The parts of a message, as the AI SDK has them.
import type { DynamicToolUIPart, FileUIPart, ToolUIPart, UIMessage } from "ai";

export type ToolPart = ToolUIPart | DynamicToolUIPart;
export type Part = UIMessage["parts"][number];

export const filesIn = (parts: Part[]): FileUIPart[] => parts.filter((part) => part.type === "file");
export const textIn = (parts: Part[]) => parts.flatMap((part) => (part.type === "text" ? part.text : [])).join("\n\n");
