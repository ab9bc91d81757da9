import { getToolName } from "ai";
import type { Json } from "../api";
import { GraphView } from "../GraphView";
import { asGraph } from "../graph";
import { Icon, type IconName } from "../Icon";
import { Link } from "../route";
import type { ToolPart } from "../shown";
import { useSaying } from "./acting";
import { Goal } from "./Goal";
import { Questions } from "./Questions";
import { Working } from "./Working";
import { wishAgain, worded } from "./wishes";

export type Output = { type?: string; message?: string; [key: string]: Json | undefined };
const OUTSIDE = new Set(["operation_started", "operation_pending", "operation_in_progress"]);

const CANCELLED = "The work was cancelled."; // what the history says of it

// Whether another service still works on what the call began.
export function goesOnOutside(part: ToolPart): boolean {
  return OUTSIDE.has(outputOf(part)?.type ?? "");
}

function outputOf(part: ToolPart): Output | undefined {
  if (part.state !== "output-available") return undefined;
  const { output } = part;
  return typeof output === "object" && output !== null && !Array.isArray(output) ? (output as Output) : {};
}

export function ToolCard({ part }: { part: ToolPart }) {
  const name = getToolName(part);
  const output = outputOf(part);
  const outside = goesOnOutside(part);
  const failed = part.state === "output-error" || output?.type === "error" || output?.type === "input_validation_error";
  const cancelled = part.state === "output-error" && part.errorText === CANCELLED;
  const state = cancelled ? "cancelled" : failed ? "failed" : outside || output === undefined ? "running" : "done";
  return (
    <section className={`tool ${state}`} aria-label={`${worded(name)}: ${state}`} data-call={part.toolCallId}>
      <header>
        <Icon name={iconOf(output, failed && !cancelled)} />
        <strong>{worded(name)}</strong>
        <span className="state">{state === "running" ? <span className="spin" aria-hidden="true" /> : null}{wordFor(part, state)}</span>
      </header>
      {output && <Result output={output} part={part} />}
      {part.state === "output-error" && <p className="why">{part.errorText}</p>}
      {failed && !cancelled && <Retry part={part} />}
      <Raw input={part.input} output={outside ? undefined : output} />
    </section>
  );
}

function Result({ output, part }: { output: Output; part: ToolPart }) {
  switch (output.type) {
    case "operation_started":
    case "operation_pending":
    case "operation_in_progress":
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
    case "suggested_goal":
      return <Goal output={output} />;
    case "agents_found":
      return <Agents output={output} />;
    case "doc_search_results":
      return <Documents output={output} />;
    default:
      return output.message ? <p className="why">{output.message}</p> : null;
  }
}

type Row = Record<string, Json>;
const rows = (value: Json | undefined): Row[] =>
  Array.isArray(value) ? value.filter((one): one is Row => typeof one === "object" && one !== null && !Array.isArray(one)) : [];

function Agents({ output }: { output: Output }) {
  return (
    <ul className="found">
      {rows(output.agents).map((agent, place) => (
        <li key={place}>
          <Link href={`/library/agents/${encodeURIComponent(String(agent.id))}`}>{String(agent.name)}</Link>
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

function Retry({ part }: { part: ToolPart }) {
  const again = wishAgain(part);
  const simpler = wishAgain(part, " in as few steps as possible");
  const { said, say } = useSaying((text) => text === again || text === simpler);
  const used = said !== undefined;
  return (
    <p className="row">
      <button type="button" disabled={used} onClick={() => say(again)}>Try again</button>
      <button type="button" disabled={used} onClick={() => say(simpler)}>Simplify</button>
    </p>
  );
}

function Make({ part }: { part: ToolPart }) {
  const wish = wishAgain(part);
  const { said, say } = useSaying((text) => text === wish);
  return <p><button type="button" disabled={said !== undefined} onClick={() => say(wish)}>Make and save it</button></p>;
}

function Raw({ input, output }: { input: unknown; output: unknown }) {
  if (input === undefined && output === undefined) return null;
  return (
    <details className="raw">
      <summary>Details</summary>
      {input !== undefined && <pre tabIndex={0} aria-label="Input">{JSON.stringify(input, null, 2)}</pre>}
      {output !== undefined && <pre tabIndex={0} aria-label="Output">{JSON.stringify(output, null, 2)}</pre>}
    </details>
  );
}

function wordFor(part: ToolPart, state: string): string {
  if (part.state === "input-streaming") return "Preparing";
  const type = outputOf(part)?.type;
  if (type === "clarification_needed") return "Asks you";
  if (type === "suggested_goal") return "Suggests";
  return { running: "Running", failed: "Failed", cancelled: "Cancelled", done: "Done" }[state] ?? "";
}

function iconOf(output: Output | undefined, failed: boolean): IconName {
  if (failed) return "warn";
  return output?.type?.startsWith("agent") ? "agent" : "gear";
}
