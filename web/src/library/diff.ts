// The differences between two versions of an agent.
import type { Graph, Json } from "../net/api";
import { layoutOf } from "./graph";

export type Mark = "added" | "removed" | "changed";
export interface Change {
  mark: Mark;
  what: string; // such as “Step Add” or “Name”
  before: string; // empty if there was nothing
  after: string;
}
export interface Diff {
  changes: Change[];
  nodes: Map<string, Mark>; // by the id of the node
}

const PROPERTIES = { name: "Name", description: "Description", is_active: "Active", input_schema: "Inputs", output_schema: "Outputs" };
const UNSEEN = new Set(["id", "metadata"]); // where a node is drawn, and what it is called

export function diffOf(before: Graph, after: Graph): Diff {
  const [old, now] = [byId(before.nodes), byId(after.nodes)];
  const label = new Map([...layoutOf(before).nodes, ...layoutOf(after).nodes].map((node) => [node.id, node.label]));
  const marks = new Map<string, Mark>();
  const changes: Change[] = [];
  for (const [name, words] of Object.entries(PROPERTIES)) {
    const pair: [string, string] = [text(before[name] as Json), text(after[name] as Json)];
    if (pair[0] !== pair[1]) changes.push({ mark: "changed", what: words, before: pair[0], after: pair[1] });
  }
  for (const id of new Set([...old.keys(), ...now.keys()])) {
    const pair = [old.get(id), now.get(id)].map((node) => (node ? inside(node) : "")) as [string, string];
    if (pair[0] === pair[1]) continue;
    const mark = pair[0] === "" ? "added" : pair[1] === "" ? "removed" : "changed";
    marks.set(id, mark);
    changes.push({ mark, what: `Step ${label.get(id) ?? id}`, before: pair[0], after: pair[1] });
  }
  const [oldLinks, nowLinks] = [before, after].map((graph) => new Set(graph.links.map((link) => linkWords(link, label)))) as [Set<string>, Set<string>];
  for (const link of oldLinks) if (!nowLinks.has(link)) changes.push({ mark: "removed", what: "Link", before: link, after: "" });
  for (const link of nowLinks) if (!oldLinks.has(link)) changes.push({ mark: "added", what: "Link", before: "", after: link });
  return { changes, nodes: marks };
}

const byId = (nodes: Graph["nodes"]) => new Map(nodes.map((node) => [node.id, node]));

const text = (value: Json | undefined) => (typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value, null, 1));

const inside = (node: Graph["nodes"][number]) =>
  JSON.stringify(Object.fromEntries(Object.entries(node).filter(([name]) => !UNSEEN.has(name))), null, 1);

function linkWords(link: Graph["links"][number], label: Map<string, string>): string {
  const end = (id: string, pin: Json | undefined) => `${label.get(id) ?? id}${typeof pin === "string" ? ` (${pin})` : ""}`;
  return `${end(link.source_id, link.source_name)} → ${end(link.sink_id, link.sink_name)}`;
}
