// Cards of the agent platform: runs of agents, blocks, schedules, and the inputs that are missing before one can run.
import type { Json } from "../net/api";
import { Link } from "../route";
import { Form } from "./Ask";
import { formOf, inputsOf } from "./inputs";
import { asRow, rows, type Output, type Row } from "./output";
import { displayName } from "./requests";
import { useSendOnce } from "./toolActions";
import { ToolFiles } from "./ToolFiles";

export default function PlatformCard({ output }: { output: Output }) {
  switch (output.type) {
    case "setup_requirements":
      return <Setup output={output} />;
    case "block_list":
      return <Blocks output={output} />;
    case "block_details":
      return <BlockInputs output={output} />;
    case "agent_schedules":
      return <Schedules output={output} />;
    default:
      return <Ran output={output} />;
  }
}

const text = (value: Json | undefined) => (typeof value === "string" ? value : JSON.stringify(value));

// A run of an agent with its steps, or the outputs of a block.
function Ran({ output }: { output: Output }) {
  const isTool = output.type === "block_output" && !output.block_name;
  const outputs = isTool ? [] : Object.entries(asRow(output.outputs));
  return (
    <div className="result">
      {(outputs.length === 0 || (output.status ?? "completed") !== "completed") && <p className="why">{output.message}</p>}
      {outputs.length > 0 && (
        <dl className="outputs">
          {outputs.map(([name, values]) => (
            <div key={name}>
              <dt>{displayName(name)}</dt>
              <dd tabIndex={0}>{(Array.isArray(values) ? values : [values]).map(text).join(", ")}</dd>
            </div>
          ))}
        </dl>
      )}
      <ToolFiles output={output} />
      {output.status !== "completed" && <Steps nodes={rows(output.nodes)} />}
    </div>
  );
}

function Steps({ nodes }: { nodes: Row[] }) {
  return (
    <ul className="found">
      {nodes.map((node, place) => (
        <li key={place}>{text(node.name)} <span className="note">{text(node.error ?? node.status)}</span></li>
      ))}
    </ul>
  );
}

function Blocks({ output }: { output: Output }) {
  return (
    <ul className="found">
      {rows(output.blocks).map((block, place) => (
        <li key={place}><strong>{text(block.name)}</strong> <span className="note">{text(block.description ?? "")}</span></li>
      ))}
    </ul>
  );
}

function BlockInputs({ output }: { output: Output }) {
  const block = asRow(output.block);
  return (
    <div className="result">
      <p><strong>{text(block.name)}</strong> {text(block.description ?? "")}</p>
      <RunForm kind="block" id={text(block.id)} schema={asRow(block.input_schema)} />
    </div>
  );
}

function Schedules({ output }: { output: Output }) {
  return (
    <div className="result">
      {!rows(output.schedules).length && <p className="why">{output.message}</p>}
      <ul className="found">
        {rows(output.schedules).map((one, place) => (
          <li key={place}>
            <strong>{text(one.name)}</strong>{" "}
            <span className="note">
              <span title={text(one.cron)}>{text(one.when ?? one.cron)}</span>, {text(one.timezone)}. {one.paused ? "Paused" : one.next_run_at ? `Next run: ${new Date(text(one.next_run_at)).toLocaleString()}` : ""}
            </span>
            <Link href={`/build?${new URLSearchParams({ flowID: text(one.graph_id) })}`}>Show the agent</Link>
          </li>
        ))}
      </ul>
    </div>
  );
}

// Asks for the inputs of an agent or a block, and has it run with them.
function Setup({ output }: { output: Output }) {
  const info = asRow(output.setup_info);
  return (
    <div className="ask">
      <p>{info.kind === "block" ? "This block" : "This agent"} needs inputs: <strong>{text(info.name)}</strong></p>
      <RunForm kind={text(info.kind)} id={text(info.id)} schema={asRow(info.input_schema)} given={asRow(info.given)}
        order={info.property_order as string[] | undefined} />
    </div>
  );
}

interface RunFormProps {
  kind: string;
  id: string;
  schema: Row;
  given?: Row;
  order?: string[];
}

function RunForm({ kind, id, schema, given = {}, order }: RunFormProps) {
  const request = `Run the ${kind} ${id} with `;
  const { sent, send } = useSendOnce((said) => said.startsWith(request));
  return (
    <Form form={formOf(schema, given)} order={order} act="Run" sent={sent !== undefined}
      give={(given) => send(request + JSON.stringify(inputsOf(given, schema)))} />
  );
}
