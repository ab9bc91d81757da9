import { useEffect, useState } from "react";
import { api, type Agent, type AgentVersion, type AgentWithGraph, type Graph } from "./api";
import { GraphView } from "./GraphView";
import { asGraph } from "./graph";
import { Icon } from "./Icon";
import { Link, navigate } from "./route";

const day = (moment: string) =>
  new Date(moment).toLocaleString("en", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

export function Library() {
  const [wanted, setWanted] = useState("");
  const [agents, setAgents] = useState<Agent[] | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    let here = true;
    const timer = setTimeout(() => {
      api.agents(wanted).then(
        (found) => here && (setAgents(found.agents), setProblem(null)),
        (failure: Error) => here && setProblem(failure.message),
      );
    }, agents === null ? 0 : 150);
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [wanted]);
  return (
    <div className="scroll">
      <div className="sheet">
        <h1>Agents</h1>
        <input type="search" aria-label="Search agents" placeholder="Search" value={wanted}
          onChange={(event) => setWanted(event.target.value)} />
        {problem && <p className="problem" role="alert"><Icon name="warn" />{problem}</p>}
        {agents?.length === 0 && (
          <p className="empty">
            {wanted ? "No agent is called that." : <>No agents yet. Ask for one in <Link href="/">a conversation</Link>: “Create an agent that …”.</>}
          </p>
        )}
        <ul className="agents">
          {agents?.map((agent) => (
            <li key={agent.id}>
              <Link href={`/library/agents/${agent.id}`}>
                <strong>{agent.name}</strong>
                <span>{agent.description}</span>
                <small>Version {agent.version}, {day(agent.updated_at)}</small>
              </Link>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}

export function AgentPage({ id }: { id: string }) {
  const [agent, setAgent] = useState<AgentWithGraph | null>(null);
  const [versions, setVersions] = useState<AgentVersion[]>([]);
  const [chosen, setChosen] = useState<number | null>(null);
  const [graph, setGraph] = useState<Graph | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [sure, setSure] = useState(false);

  useEffect(() => {
    let here = true;
    Promise.all([api.agent(id), api.versions(id)]).then(
      ([found, all]) => {
        if (!here) return;
        setAgent(found);
        setVersions(all.versions);
        setChosen(found.version);
        setGraph(asGraph(found.graph));
      },
      (failure: Error) => here && setProblem(failure.message),
    );
    return () => void (here = false);
  }, [id]);

  const show = (version: number) => {
    setChosen(version);
    api.version(id, version).then(({ graph }) => setGraph(asGraph(graph)), (failure: Error) => setProblem(failure.message));
  };
  const remove = () => {
    api.removeAgent(id).then(() => navigate("/library"), (failure: Error) => setProblem(failure.message));
  };
  return (
    <div className="scroll">
      <div className="sheet wide">
        <p className="crumb"><Link href="/library">Agents</Link></p>
        {problem && <p className="problem" role="alert"><Icon name="warn" />{problem}</p>}
        {agent && (
          <>
            <h1>{agent.name}</h1>
            <p>{agent.description}</p>
            {graph && <GraphView graph={graph} />}
            {graph && <p className="note">{graph.nodes.length} steps, {graph.links.length} links</p>}
            <h2>Versions</h2>
            <ul className="versions">
              {versions.map(({ version, created_at }) => (
                <li key={version}>
                  <button type="button" aria-pressed={version === chosen} onClick={() => show(version)}>
                    <strong>Version {version}</strong> <span className="note">{day(created_at)}</span>
                  </button>
                </li>
              ))}
            </ul>
            <p className="row">
              {sure ? (
                <>
                  <button type="button" className="danger" onClick={remove}>Delete with all versions</button>
                  <button type="button" onClick={() => setSure(false)}>Keep it</button>
                </>
              ) : <button type="button" onClick={() => setSure(true)}>Delete</button>}
            </p>
          </>
        )}
      </div>
    </div>
  );
}
