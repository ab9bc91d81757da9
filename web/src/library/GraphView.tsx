import { useId, useMemo } from "react";
import type { Graph } from "../net/api";
import { BOX, layoutOf } from "./graph";

const LEAST_SCALE = 0.6; // of a graph that is wider than its place; below it the graph scrolls

const short = (text: string, most: number) => (text.length > most ? text.slice(0, most - 1).trimEnd() + "…" : text);

// `marks` are the nodes that differ from another version.
export function GraphView({ graph, marks, label = "Graph of the agent" }: { graph: Graph; marks?: Map<string, string>; label?: string }) {
  const drawn = useMemo(() => layoutOf(graph), [graph]);
  const tip = useId();
  const description = `${graph.nodes.length} steps: ${drawn.nodes.slice(0, 12).map((node) => node.label).join(", ")}`;
  if (drawn.nodes.length === 0) return <p className="note">This agent has no steps.</p>;
  return (
    <div className="graph" tabIndex={0} role="group" aria-label={label}>
      <svg style={{ maxWidth: drawn.width, minWidth: drawn.width * LEAST_SCALE }} viewBox={`0 0 ${drawn.width} ${drawn.height}`} role="img"
        aria-label={description}>
        <defs>
          <marker id={tip} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 8 4 0 8z" className="tip" />
          </marker>
        </defs>
        {drawn.edges.map(({ key, from, to }) => {
          const bend = Math.max(28, Math.abs(to[0] - from[0]) / 2);
          return (
            <path key={key} className="edge" markerEnd={`url(#${tip})`}
              d={`M${from[0]} ${from[1]}C${from[0] + bend} ${from[1]} ${to[0] - bend} ${to[1]} ${to[0]} ${to[1]}`} />
          );
        })}
        {drawn.nodes.map((node) => (
          <g key={node.id} className={marks?.get(node.id)} transform={`translate(${node.x} ${node.y})`}>
            <title>{`${node.label} ${node.sub}`}</title>
            <rect width={BOX.width} height={BOX.height} rx="10" />
            <text x="14" y={node.sub ? 21 : 29}>{short(node.label, 19)}</text>
            {node.sub && <text x="14" y="37" className="sub">{short(node.sub, 23)}</text>}
          </g>
        ))}
      </svg>
    </div>
  );
}
