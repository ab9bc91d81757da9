// What cards say in the user's name so that a call is made again. The scripted model understands these sentences, too.
import { getToolName } from "ai";
import type { ToolPart } from "../shown";

export const worded = (name: string) => (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("_", " ");

const WISHES: Record<string, { field: string; act: (agent: string) => string }> = {
  create_agent: { field: "description", act: () => "Create an agent that does this" },
  edit_agent: { field: "changes", act: (agent) => `Change the agent ${agent} like this` },
  customize_agent: { field: "modifications", act: (agent) => `Customize the template ${agent} like this` },
};

export function wishAgain(part: ToolPart, how = "", more = ""): string {
  const name = getToolName(part);
  const wish = WISHES[name];
  const input = (part.input ?? {}) as Record<string, unknown>;
  const asked = wish && input[wish.field];
  if (!wish || typeof asked !== "string") return `Please ${worded(name).toLowerCase()} again${how}.${more}`;
  return `${wish.act(String(input.agent_id))}${how}: ${asked}${more}`;
}
