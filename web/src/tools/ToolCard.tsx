import { getToolName } from "ai";
import { Suspense, useContext, useState } from "react";
import { Icon, type IconName } from "../Icon";
import { asGraph } from "../library/graph";
import { GraphView } from "../library/GraphView";
import { api, type Json } from "../net/api";
import { safeUrl, type ToolPart } from "../parts";
import { Link } from "../route";
import { Answered, Ask } from "./Ask";
import { Goal } from "./Goal";
import { asks, isCut, isPending, outputOf, rows, type Output } from "./output";
import { Questions } from "./Questions";
import { displayName, repeatRequest } from "./requests";
import { MessageIdContext, useSendOnce } from "./toolActions";
import { Working } from "./Working";
import { optional } from "../loading";

const PlatformCard = optional(() => import("./PlatformCard")); // few conversations have one
const WorkspaceCard = optional(() => import("./WorkspaceCard"));

const CANCELLED = "The work was cancelled."; // the error text that the server stores for a cancelled operation

export function ToolCard({ part }: { part: ToolPart }) {
  const name = getToolName(part);
  const output = outputOf(part);
  const pending = isPending(part);
  const failed = part.state === "output-error" || output?.type === "error" || output?.type === "input_validation_error";
  const cancelled = output?.error === "cancelled" || (part.state === "output-error" && part.errorText === CANCELLED);
  const state = cancelled ? "cancelled" : failed ? "failed" : pending || output === undefined ? "running" : "done";
  return (
    <section className={`tool ${state}`} aria-label={`${displayName(name)}: ${state}`} data-call={part.toolCallId}>
      <header>
        <Icon name={iconOf(output, failed && !cancelled)} />
        <strong>{displayName(name)}</strong>
        <span className="state">{state === "running" && !asks(part) ? <span className="spin" aria-hidden="true" /> : null}{wordFor(part, state)}</span>
      </header>
      {output && <Result output={output} part={part} />}
      {part.state === "output-error" && <p className="why">{part.errorText}</p>}
      {failed && !cancelled && output?.error !== "denied" && <Retry part={part} />}
      <Raw input={part.input} output={pending ? undefined : output} call={part.toolCallId} />
    </section>
  );
}

function Result({ output, part }: { output: Output; part: ToolPart }) {
  switch (output.type) {
    case "operation_started":
    case "operation_pending":
    case "operation_in_progress":
      if (asks(part)) return <Ask output={output} part={part} />;
      return (
        <Working operation={String(output.operation_id ?? "")} message={output.message}
          task={typeof output.task_id === "string" ? output.task_id : undefined} />
      );
    case "agent_saved":
      return (
        <div className="result">
          <p>{output.message ?? `Saved ${String(output.agent_name)}.`}</p>
          <p className="row">
            <Link className="button primary" href={`/library/agents/${encodeURIComponent(String(output.library_agent_id))}`}>
              Open {String(output.agent_name)}
            </Link>
            <Link className="button" href="/library">All agents</Link>
          </p>
        </div>
      );
    case "agent_preview": {
      const graph = asGraph(output.agent_json);
      return (
        <div className="result">
          <p><strong>{String(output.agent_name)}</strong> {String(output.description ?? "")}</p>
          {graph && <GraphView graph={graph} />}
          <p className="note">{graph && `${graph.nodes.length} steps, ${graph.links.length} links. `}Not saved.</p>
          <Make part={part} />
        </div>
      );
    }
    case "clarification_needed":
      return <Questions output={output} part={part} />;
    case "user_answered":
      return <Answered output={output} part={part} />;
    case "suggested_goal":
      return <Goal output={output} />;
    case "setup_requirements":
    case "execution_started":
    case "agent_output":
    case "block_output":
    case "block_list":
    case "block_details":
    case "agent_schedules":
      return <Suspense fallback={<p className="why">{output.message}</p>}><PlatformCard output={output} /></Suspense>;
    case "bash_exec":
    case "workspace_file_list":
    case "workspace_file_written":
      return <Suspense fallback={<p className="why">{output.message}</p>}><WorkspaceCard output={output} input={part.input} /></Suspense>;
    case "agents_found":
      return <Agents output={output} />;
    case "doc_search_results":
      return <Documents output={output} />;
    case "web_search_results":
      return <Pages output={output} />;
    default:
      return output.message ? <p className="why">{output.message}</p> : null;
  }
}

function Agents({ output }: { output: Output }) {
  return (
    <ul className="found">
      {rows(output.agents).map((agent, place) => (
        <li key={place}>
          {agent.source === "template" ? <strong>{String(agent.name)}</strong> : (
            <Link href={agent.source ? String(agent.library_agent_link) : `/library/agents/${encodeURIComponent(String(agent.id))}`}>{String(agent.name)}</Link>
          )}
          <span className="note">{String(agent.description ?? "")}</span>
        </li>
      ))}
    </ul>
  );
}

function Documents({ output }: { output: Output }) {
  return (
    <ul className="found">
      {rows(output.results).slice(0, 6).map((found, place) => (
        <li key={place}>
          <strong>{String(found.title)}</strong> <span className="note">{String(found.section ?? found.path ?? "")}</span>
        </li>
      ))}
    </ul>
  );
}

function Pages({ output }: { output: Output }) {
  return (
    <ul className="found">
      {rows(output.results).map((found, place) => (
        <li key={place}>
          <a href={safeUrl(String(found.url))} target="_blank" rel="noopener noreferrer">{String(found.title)}</a>
          <span className="note">{String(found.snippet ?? "")}</span>
        </li>
      ))}
    </ul>
  );
}

function Retry({ part }: { part: ToolPart }) {
  const again = repeatRequest(part);
  const simpler = repeatRequest(part, " in as few steps as possible");
  const { sent, send } = useSendOnce((text) => text === again || text === simpler);
  const used = sent !== undefined;
  return (
    <p className="row">
      <button type="button" disabled={used} onClick={() => send(again)}>Try again</button>
      <button type="button" disabled={used} onClick={() => send(simpler)}>Simplify</button>
    </p>
  );
}

function Make({ part }: { part: ToolPart }) {
  const request = repeatRequest(part);
  const { sent, send } = useSendOnce((text) => text === request);
  return <p><button type="button" disabled={sent !== undefined} onClick={() => send(request)}>Create and save it</button></p>;
}

function Raw({ input, output, call }: { input: unknown; output: Output | undefined; call: string }) {
  const { whole, failed, load } = useWholeOutput(call);
  if (input === undefined && output === undefined) return null;
  return (
    <details className="raw">
      <summary>Details</summary>
      {input !== undefined && <pre tabIndex={0} aria-label="Input">{JSON.stringify(input, null, 2)}</pre>}
      {output !== undefined && <pre tabIndex={0} aria-label="Output">{JSON.stringify(whole ?? output, null, 2)}</pre>}
      {output !== undefined && isCut(output) && whole === undefined && (
        <p className="note">
          Only the beginning of the result is shown.{" "}
          <button type="button" className="link" onClick={load}>Show all</button>
          {failed && " It could not be loaded."}
        </p>
      )}
    </details>
  );
}

const ANSWER_ID = "msg_"; // the prefix of an answer's id; the id of its task follows

function useWholeOutput(call: string) {
  const task = useContext(MessageIdContext).replace(ANSWER_ID, "");
  const [whole, setWhole] = useState<Json>();
  const [failed, setFailed] = useState(false);
  const load = () => {
    setFailed(false);
    api.result(task, call).then(({ output }) => setWhole(output), () => setFailed(true));
  };
  return { whole, failed, load };
}

function wordFor(part: ToolPart, state: string): string {
  if (part.state === "input-streaming") return "Preparing";
  const type = outputOf(part)?.type;
  if (type === "clarification_needed") return "Questions for you";
  if (type === "setup_requirements") return "Needs inputs";
  if (asks(part)) return outputOf(part)?.asks === "approval" ? "Needs your approval" : "Needs your answer";
  if (outputOf(part)?.error === "denied") return "Not allowed";
  if (type === "user_answered") return "Answered";
  if (type === "suggested_goal") return "Suggestion";
  return { running: "Running", failed: "Failed", cancelled: "Cancelled", done: "Done" }[state] ?? "";
}

function iconOf(output: Output | undefined, failed: boolean): IconName {
  if (failed) return "warn";
  return output?.type?.startsWith("agent") ? "agent" : "gear";
}
