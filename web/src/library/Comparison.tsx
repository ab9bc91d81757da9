// Two versions of an agent side by side.
import { useEffect, useMemo, useState } from "react";
import { api, type Graph } from "../net/api";
import { diffOf } from "./diff";
import { asGraph } from "./graph";
import { GraphView } from "./GraphView";
import { Problem } from "./Problem";

interface Versions {
  agent: string;
  before: number;
  after: number;
}

export default function Comparison({ agent, before, after }: Versions) {
  const [graphs, setGraphs] = useState<[Graph, Graph] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    let here = true;
    Promise.all([before, after].map((version) => api.version(agent, version))).then((found) => {
      const read = found.map(({ graph }) => asGraph(graph));
      if (here && read[0] && read[1]) setGraphs([read[0], read[1]]);
    }, (failure: Error) => here && setProblem(failure.message));
    return () => void (here = false);
  }, [agent, before, after]);
  const diff = useMemo(() => graphs && diffOf(...graphs), [graphs]);
  if (problem) return <Problem text={problem} />;
  if (!graphs || !diff) return null;
  return (
    <section className="comparison" aria-label={`Versions ${before} and ${after}`}>
      {[before, after].map((version, side) => (
        <figure key={side}>
          <figcaption>Version {version}</figcaption>
          <GraphView graph={graphs[side]!} marks={diff.nodes} label={`Graph of version ${version}`} />
        </figure>
      ))}
      {diff.changes.length === 0 && <p className="note">The two versions are the same.</p>}
      {diff.changes.map(({ mark, what, before, after }, place) => (
        <div key={place} className={`change ${mark}`}>
          <h3>{what} <span className="note">{mark}</span></h3>
          {[before, after].map((text, side) => (
            <pre key={side} tabIndex={0} role="group" aria-label={side ? "After" : "Before"}>{text}</pre>
          ))}
        </div>
      ))}
    </section>
  );
}
