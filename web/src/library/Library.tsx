import { useState, type ChangeEvent } from "react";
import { importProblem } from "../importProblem";
import { api, type Agent } from "../net/api";
import { usePageTitle } from "../pageTitle";
import { Link, navigate, useRoute } from "../route";
import { agentApi, type Published } from "./agentApi";
import { More } from "./More";
import { Problem } from "./Problem";
import { day } from "./times";
import { usePagedList } from "./usePagedList";

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
        <Import />
        <Shared key={`shared ${query}`} query={query} delay={delay} />
      </div>
    </div>
  );
}

// Agents that other users have published. A copy is an agent of one's own.
function Shared({ query, delay }: { query: string; delay: number }) {
  const list = usePagedList<Published>(async (offset) => {
    const { agents, total } = await agentApi.published(query, offset);
    return { items: agents, total };
  }, ({ id }) => id, delay);
  const [problem, setProblem] = useState<string | null>(null);
  const others = list.items?.filter(({ mine }) => !mine) ?? [];
  if (others.length === 0 && !list.more) return null;
  const copy = (id: string) => {
    setProblem(null);
    agentApi.copy(id).then((agent) => navigate(`/library/agents/${agent.id}`), (failure: Error) => setProblem(failure.message));
  };
  return (
    <>
      <h2>Shared agents</h2>
      {problem && <Problem text={problem} />}
      <ul className="runs shared">
        {others.map((agent) => (
          <li key={agent.id}>
            <strong>{agent.name}</strong>
            <span className="note">{agent.description}</span>
            <p className="row">
              <button type="button" onClick={() => copy(agent.id)}>Copy to my agents</button>
              <span className="note">Version {agent.version}, {day(agent.published_at)}</span>
            </p>
          </li>
        ))}
      </ul>
      <More list={list} />
    </>
  );
}

const MOST_BYTES = 8_000_000; // of a file, which has more spaces than what is sent; the server has the limit of agents

// Saves an agent from a file, as an agent's page exports it.
function Import() {
  const [problem, setProblem] = useState<string | null>(null);
  const pick = async (event: ChangeEvent<HTMLInputElement>) => {
    const file = event.target.files?.[0];
    event.target.value = "";
    if (!file) return;
    setProblem(null);
    try {
      if (file.size > MOST_BYTES) throw { status: 413 };
      const { id } = await agentApi.importAgent(JSON.parse(await file.text()));
      navigate(`/library/agents/${id}`);
    } catch (failure) {
      setProblem(importProblem("agent", file.name, failure));
    }
  };
  return (
    <>
      {problem && <Problem text={problem} onClose={() => setProblem(null)} />}
      <p><label className="button">Import an agent<input className="unseen" type="file" accept="application/json,.json" onChange={pick} /></label></p>
    </>
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
