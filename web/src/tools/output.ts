// The output of a tool call, as a card reads it.
import type { Json } from "../net/api";
import type { ToolPart } from "../parts";

export type Output = { type?: string; message?: string; [key: string]: Json | undefined };

const PENDING = new Set(["operation_started", "operation_pending", "operation_in_progress"]);

// Returns true if another service is still working on the operation that the call started.
export function isPending(part: ToolPart): boolean {
  return PENDING.has(outputOf(part)?.type ?? "");
}

// Returns true if the call waits for the user: for an answer, or for an approval.
export function asks(part: ToolPart): boolean {
  return isPending(part) && typeof outputOf(part)?.asks === "string";
}

// Returns true if the output is only the beginning of a longer one.
export const isCut = (output: Output) => typeof output.cut === "string" && typeof output.beginning === "string";

export function outputOf(part: ToolPart): Output | undefined {
  if (part.state !== "output-available") return undefined;
  const { output } = part;
  return typeof output === "object" && output !== null && !Array.isArray(output) ? (output as Output) : {};
}

export type Row = Record<string, Json>;

export const asRow = (value: Json | undefined): Row =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};

export const rows = (value: Json | undefined): Row[] =>
  Array.isArray(value) ? value.filter((one): one is Row => typeof one === "object" && one !== null && !Array.isArray(one)) : [];
