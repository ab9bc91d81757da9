import { useCallback, useEffect, useState } from "react";
import { Icon } from "../Icon";
import { api, type Agent, type AgentVersion, type AgentWithGraph, type Graph } from "../net/api";
import { usePageTitle } from "../pageTitle";
import { Link, navigate, useRoute } from "../route";
import { asGraph } from "./graph";
import { GraphView } from "./GraphView";
import { usePagedList, type PagedList } from "./usePagedList";

const day = (moment: string) =>
  new Date(moment).toLocaleString("en", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

const counted = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
const TYPING_DELAY_MS = 150; // so that not every letter starts a search

export function Library() {
  useRoute(); // the query is in the address
  const query = new URLSearchParams(location.search).get("q") ?? "";
  const [delay, setDelay] = useState(0);
  const search = (text: string) => {
    setDelay(TYPING_DELAY_MS);
    navigate(text ? `/library?${new URLSearchParams({ q: text })}` : "/library", { replace: true });
  };
  usePageTitle("Agents");
  return (
    <div className="scroll">
      <div className="sheet">
        <h1>Agents</h1>
        <input type="search" aria-label="Search agents" placeholder="Search" maxLength={200} value={query}
          onChange={(event) => search(event.target.value)} />
        <Agents key={query} query={query} delay={delay} />
      </div>
    </div>
  );
}

function Agents({ query, delay }: { query: string; delay: number }) {
  const list = usePagedList<Agent>(async (offset) => {
    const { agents, total } = await api.agents(query, offset);
    return { items: agents, total };
  }, ({ id }) => id, delay);
  return (
    <>
      {list.problem && <Problem text={list.problem} onAgain={list.load} />}
      {!list.items && !list.problem && <p className="empty" role="status">{query ? "Searching" : "Loading"}</p>}
      {list.items?.length === 0 && (
        <p className="empty">
          {query ? "No agent has that name." : (
            <>No agents yet. Ask for one in <Link href="/">a conversation</Link>: “Create an agent that …”.</>
          )}
        </p>
      )}
      <ul className="agents">
        {list.items?.map((agent) => (
          <li key={agent.id}>
            <Link href={`/library/agents/${agent.id}`}>
              <strong>{agent.name}</strong>
              <span>{agent.description}</span>
              <small>Version {agent.version}, {day(agent.updated_at)}</small>
            </Link>
          </li>
        ))}
      </ul>
      <More list={list} />
    </>
  );
}

export function AgentPage({ id }: { id: string }) {
  const [agent, setAgent] = useState<AgentWithGraph | null>(null);
  const [chosen, setChosen] = useState<number | null>(null);
  const [drawn, setDrawn] = useState<{ version: number; graph: Graph | null } | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [confirming, setConfirming] = useState(false);
  const versions = usePagedList<AgentVersion>(async (offset) => {
    const { versions, total } = await api.versions(id, offset);
    return { items: versions, total };
  }, ({ version }) => version);

  usePageTitle(agent?.name ?? null);
  const load = useCallback(() => {
    setProblem(null);
    api.agent(id).then(
      (found) => {
        setAgent(found);
        setDrawn({ version: found.version, graph: asGraph(found.graph) });
      },
      (failure: Error) => setProblem(failure.message),
    );
  }, [id]);
  useEffect(load, [load]);
  useEffect(() => {
    if (chosen === null) return;
    let here = true;
    setProblem(null);
    api.version(id, chosen).then(
      ({ graph }) => here && setDrawn({ version: chosen, graph: asGraph(graph) }),
      (failure: Error) => here && setProblem(failure.message),
    );
    return () => void (here = false);
  }, [id, chosen]);

  const remove = () => {
    api.removeAgent(id).then(() => navigate("/library", { replace: true }), (failure: Error) => setProblem(failure.message));
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
            {drawn?.graph && <GraphView graph={drawn.graph} />}
            {drawn?.graph && (
              <p className="note" role="status">
                Version {drawn.version}{drawn.version < agent.version && `, not the newest (${agent.version})`}:{" "}
                {counted(drawn.graph.nodes.length, "step")}, {counted(drawn.graph.links.length, "link")}
              </p>
            )}
            <h2>Versions</h2>
            {versions.problem && <Problem text={versions.problem} onAgain={versions.load} />}
            <ul className="versions">
              {versions.items?.map(({ version, created_at }) => (
                <li key={version}>
                  <button type="button" aria-pressed={version === (chosen ?? agent.version)} onClick={() => setChosen(version)}>
                    <strong>Version {version}</strong>{" "}
                    <span className="note">{version === agent.version && "newest, "}{day(created_at)}</span>
                  </button>
                </li>
              ))}
            </ul>
            <More list={versions} />
            <p className="row">
              {confirming ? (
                <>
                  <button type="button" className="danger" onClick={remove}>Delete the agent and all versions</button>
                  <button type="button" autoFocus onClick={() => setConfirming(false)}>Cancel</button>
                </>
              ) : <button type="button" onClick={() => setConfirming(true)}>Delete</button>}
            </p>
          </>
        )}
      </div>
    </div>
  );
}

function More({ list }: { list: PagedList<unknown> }) {
  if (!list.more) return null;
  return <p><button type="button" disabled={list.loading} onClick={list.load}>Show more</button></p>;
}

function Problem({ text, onAgain }: { text: string; onAgain?: () => void }) {
  return (
    <p className="problem" role="alert">
      <Icon name="warn" />{text}
      {onAgain && <button type="button" className="link" onClick={onAgain}>Try again</button>}
    </p>
  );
}
