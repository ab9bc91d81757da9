// Messages that a card sends in the user's name to have a tool called again. The scripted model understands them as
// well.
import { getToolName } from "ai";
import type { ToolPart } from "../parts";

export const displayName = (name: string) => (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("_", " ");

const REQUESTS: Record<string, { field: string; act: (agent: string) => string }> = {
  create_agent: { field: "description", act: () => "Create an agent that does this" },
  edit_agent: { field: "changes", act: (agent) => `Change the agent ${agent} like this` },
  customize_agent: { field: "modifications", act: (agent) => `Customize the template ${agent} like this` },
};

export function repeatRequest(part: ToolPart, how = "", more = ""): string {
  const name = getToolName(part);
  const request = REQUESTS[name];
  const input = (part.input ?? {}) as Record<string, unknown>;
  const wanted = request && input[request.field];
  if (!request || typeof wanted !== "string") return `Please ${displayName(name).toLowerCase()} again${how}.${more}`;
  return `${request.act(String(input.agent_id))}${how}: ${wanted}${more}`;
}
