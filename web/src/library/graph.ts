// Lays out a graph. The column of a node is the length of the longest path to it; the rows follow the order of the
// nodes before it.
import type { Graph } from "../net/api";

export interface Layout {
  nodes: { id: string; label: string; sub: string; x: number; y: number }[];
  edges: { key: string; from: [number, number]; to: [number, number] }[];
  width: number;
  height: number;
}
export const BOX = { width: 168, height: 48 };
const GAP = { x: 56, y: 20 };
const MAX_NODES = 300;

export function asGraph(value: unknown): Graph | null {
  const graph = value as Graph | undefined;
  if (!graph || !Array.isArray(graph.nodes) || !Array.isArray(graph.links)) return null;
  const nodes = graph.nodes.filter((node) => typeof node?.id === "string");
  const links = graph.links.filter((link) => typeof link?.source_id === "string" && typeof link.sink_id === "string");
  return { ...graph, nodes, links };
}

export function layoutOf(graph: Graph): Layout {
  const nodes = graph.nodes.slice(0, MAX_NODES);
  const ids = new Set(nodes.map((node) => node.id));
  const links = graph.links.filter((link) => ids.has(link.source_id) && ids.has(link.sink_id));
  const column = columns([...ids], links);
  const filled: string[][] = [];
  for (const node of nodes) (filled[column.get(node.id) ?? 0] ??= []).push(node.id);
  const row = new Map<string, number>();
  for (const ids of filled) {
    const before = (id: string) => {
      const at = links.filter((link) => link.sink_id === id).map((link) => row.get(link.source_id) ?? 0);
      return at.length ? at.reduce((sum, one) => sum + one, 0) / at.length : 0;
    };
    const wanted = new Map(ids?.map((id) => [id, before(id)]));
    ids?.sort((a, b) => wanted.get(a)! - wanted.get(b)!).forEach((id, place) => row.set(id, place));
  }
  const at = (id: string): [number, number] => [
    (column.get(id) ?? 0) * (BOX.width + GAP.x) + 8,
    (row.get(id) ?? 0) * (BOX.height + GAP.y) + 8,
  ];
  return {
    nodes: nodes.map((node) => {
      const [x, y] = at(node.id);
      return { id: node.id, ...named(node), x, y };
    }),
    edges: links.map((link, place) => {
      const [fx, fy] = at(link.source_id);
      const [tx, ty] = at(link.sink_id);
      return { key: `${place}`, from: [fx + BOX.width, fy + BOX.height / 2], to: [tx, ty + BOX.height / 2] };
    }),
    width: filled.length * (BOX.width + GAP.x) - GAP.x + 16,
    height: Math.max(1, ...filled.map((ids) => ids?.length ?? 0)) * (BOX.height + GAP.y) - GAP.y + 16,
  };
}

// Returns the length of the longest path to each node. Links that close a cycle are ignored.
function columns(ids: string[], links: Graph["links"]): Map<string, number> {
  const into = new Map<string, string[]>();
  for (const link of links) into.set(link.sink_id, [...(into.get(link.sink_id) ?? []), link.source_id]);
  const found = new Map<string, number>();
  const open = new Set<string>();
  const depth = (id: string): number => {
    const known = found.get(id);
    if (known !== undefined) return known;
    open.add(id);
    const before = (into.get(id) ?? []).filter((source) => !open.has(source)).map(depth);
    open.delete(id);
    const own = before.length ? Math.max(...before) + 1 : 0;
    found.set(id, own);
    return own;
  };
  ids.forEach(depth);
  return found;
}

const ID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/i;

// Returns the name that people gave the node, or else its kind. Ids are never shown.
function named(node: Graph["nodes"][number]): { label: string; sub: string } {
  const metadata = (typeof node.metadata === "object" && node.metadata !== null ? node.metadata : {}) as Record<string, unknown>;
  const first = (...names: string[]) => {
    const found = names.map((name) => node[name] ?? metadata[name]).find((value) => typeof value === "string" && value && !ID.test(value));
    return ((found as string | undefined) ?? "").replaceAll("_", " ");
  };
  const kind = first("block_name", "block", "type", "block_id");
  const label = first("customized_name", "name", "title", "label", "purpose", "description") || kind || "Step";
  return { label, sub: (label === kind ? "" : kind) || firstWords(node.input_default ?? node.input) };
}

function firstWords(input: unknown): string {
  if (typeof input !== "object" || input === null) return "";
  return Object.values(input).find((value): value is string => typeof value === "string") ?? "";
}
