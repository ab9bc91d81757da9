// The page of an agent: its graph, runs and schedules, and its versions.
import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { api, type AgentVersion, type AgentWithGraph, type Graph } from "../net/api";
import { usePageTitle } from "../pageTitle";
import { Link, navigate } from "../route";
import { agentApi } from "./agentApi";
import { asGraph } from "./graph";
import { GraphView } from "./GraphView";
import { More } from "./More";
import { Problem } from "./Problem";
import { day } from "./times";
import { usePagedList } from "./usePagedList";
import { untilLoaded } from "../loading";

const RunsAndSchedules = lazy(() => untilLoaded(() => import("./Runs")));
const Comparison = lazy(() => untilLoaded(() => import("./Comparison")));

const counted = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;

export function AgentPage({ id }: { id: string }) {
  const [agent, setAgent] = useState<AgentWithGraph | null>(null);
  const [chosen, setChosen] = useState<number | null>(null);
  const [drawn, setDrawn] = useState<{ version: number; graph: Graph | null } | null>(null);
  const [problem, setProblem] = useState<string | null>(null);

  usePageTitle(agent?.name ?? null);
  const show = useCallback((found: AgentWithGraph) => {
    setAgent(found);
    setChosen(null);
    setDrawn({ version: found.version, graph: asGraph(found.graph) });
  }, []);
  const fail = useCallback((failure: Error) => setProblem(failure.message), []);
  const load = useCallback(() => {
    setProblem(null);
    api.agent(id).then(show, fail);
  }, [id, show, fail]);
  useEffect(load, [load]);
  useEffect(() => {
    if (chosen === null) return;
    let here = true;
    setProblem(null);
    api.version(id, chosen).then(
      ({ graph }) => here && setDrawn({ version: chosen, graph: asGraph(graph) }),
      (failure: Error) => here && fail(failure),
    );
    return () => void (here = false);
  }, [id, chosen, fail]);

  const restore = (version: number) => {
    setProblem(null);
    agentApi.restore(id, version).then(show, fail);
  };
  return (
    <div className="scroll">
      <div className="sheet wide">
        <p className="crumb"><Link href="/library">Agents</Link></p>
        {problem && <Problem text={problem} onAgain={agent ? undefined : load} />}
        {agent && (
          <>
            <h1>{agent.name}</h1>
            <p>{agent.description}</p>
            <Acts agent={agent} drawn={drawn} onProblem={fail} onPublished={(version) => setAgent({ ...agent, published_version: version })} />
            {drawn?.graph && <GraphView graph={drawn.graph} />}
            {drawn?.graph && (
              <p className="note" role="status">
                Version {drawn.version}{drawn.version < agent.version && `, not the newest (${agent.version})`}:{" "}
                {counted(drawn.graph.nodes.length, "step")}, {counted(drawn.graph.links.length, "link")}
              </p>
            )}
            <Versions key={agent.version} agent={agent} chosen={chosen} onChosen={setChosen} onRestore={restore} />
            <Suspense fallback={null}><RunsAndSchedules agent={agent.id} version={agent.version} /></Suspense>
          </>
        )}
      </div>
    </div>
  );
}

interface VersionsProps {
  agent: AgentWithGraph;
  chosen: number | null;
  onChosen: (version: number) => void;
  onRestore: (version: number) => void;
}

function Versions({ agent, chosen, onChosen, onRestore }: VersionsProps) {
  const versions = usePagedList<AgentVersion>(async (offset) => {
    const { versions, total } = await api.versions(agent.id, offset);
    return { items: versions, total };
  }, ({ version }) => version);
  const shown = chosen ?? agent.version;
  const [other, setOther] = useState<number | null>(null); // the version to compare with
  return (
    <>
      <h2>Versions</h2>
      {versions.problem && <Problem text={versions.problem} onAgain={versions.load} />}
      <ul className="versions">
        {versions.items?.map(({ version, created_at }) => (
          <li key={version}>
            <button type="button" aria-pressed={version === shown} onClick={() => onChosen(version)}>
              <strong>Version {version}</strong>{" "}
              <span className="note">{version === agent.version && "newest, "}{day(created_at)}</span>
            </button>
          </li>
        ))}
      </ul>
      <More list={versions} />
      {agent.version > 1 && (
        <p className="row">
          <label className="row">Compare with
            <select value={other ?? ""} onChange={(event) => setOther(event.target.value ? Number(event.target.value) : null)}>
              <option value="">…</option>
              {versions.items?.filter(({ version }) => version !== shown).map(({ version }) => (
                <option key={version} value={version}>Version {version}</option>
              ))}
            </select>
          </label>
          {shown < agent.version && (
            <button type="button" onClick={() => onRestore(shown)}>Make version {shown} the newest</button>
          )}
        </p>
      )}
      {other !== null && other !== shown && (
        <Suspense fallback={null}><Comparison agent={agent.id} before={Math.min(other, shown)} after={Math.max(other, shown)} /></Suspense>
      )}
    </>
  );
}

interface ActsProps {
  agent: AgentWithGraph;
  drawn: { version: number; graph: Graph | null } | null;
  onProblem: (failure: Error) => void;
  onPublished: (version: number | null) => void;
}

function Acts({ agent, drawn, onProblem, onPublished }: ActsProps) {
  const [confirming, setConfirming] = useState(false);
  const published = agent.published_version ?? null;
  const publish = (version: number) => void agentApi.publish(agent.id, version).then(() => onPublished(version), onProblem);
  const unpublish = () => void agentApi.unpublish(agent.id).then(() => onPublished(null), onProblem);
  const remove = () => {
    api.removeAgent(agent.id).then(() => navigate("/library", { replace: true }), onProblem);
  };
  return (
    <p className="row">
      {confirming ? (
        <>
          <button type="button" className="danger" onClick={remove}>Delete the agent, its versions, runs and schedules</button>
          <button key="cancel" type="button" autoFocus onClick={() => setConfirming(false)}>Cancel</button>
        </>
      ) : (
        <>
          <button type="button" onClick={() => setConfirming(true)}>Delete</button>
          {drawn && drawn.version !== published && (
            <button type="button" onClick={() => publish(drawn.version)}>Share version {drawn.version}</button>
          )}
          {published !== null && <button type="button" onClick={unpublish}>Stop sharing</button>}
          {published !== null && <span className="note">Everyone here can copy version {published}.</span>}
          {drawn?.graph && <button type="button" onClick={() => save(agent.name, drawn.graph)}>Export version {drawn.version}</button>}
        </>
      )}
    </p>
  );
}

// Saves the JSON of the agent as a file, which the library can import.
function save(name: string, graph: Graph | null) {
  const address = URL.createObjectURL(new Blob([JSON.stringify(graph, null, 2)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `${name.replace(/[^\p{L}\p{N} _-]/gu, "").slice(0, 60) || "agent"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1_000);
}
