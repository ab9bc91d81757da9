// The runs of an agent on the agent platform: a form that begins one, and the newest runs with their steps and outputs.
import { Refused } from "@copilot-chat/resumable";
import { useState } from "react";
import { asRow, type Row } from "../tools/output";
import { displayName } from "../tools/requests";
import { agentApi, isLive, type Run } from "./agentApi";
import { InputsForm } from "./InputsForm";
import { Problem } from "./Problem";
import { Schedules } from "./Schedules";
import { day } from "./times";
import { usePolled } from "./usePolled";

export const isNotConfigured = (failure: Error | null) =>
  failure instanceof Refused && failure.code === "platform_not_configured";

export default function RunsAndSchedules({ agent, version }: { agent: string; version: number }) {
  const inputs = usePolled(() => agentApi.inputs(agent), () => false, `${agent} ${version}`);
  const runs = usePolled(() => agentApi.runs(agent), ({ runs }) => runs.some(isLive), agent);
  const [open, setOpen] = useState<string | null>(null);
  if (isNotConfigured(runs.failure) || isNotConfigured(inputs.failure)) return null;
  return (
    <>
      <h2>Run</h2>
      {inputs.failure && <Problem text={inputs.failure.message} onAgain={inputs.reload} />}
      {inputs.value && (
        <InputsForm key={inputs.value.version} inputs={inputs.value} act="Run"
          send={async (given, key) => {
            const { execution_id } = await agentApi.run(agent, inputs.value!.version, given, key);
            setOpen(execution_id);
            runs.reload();
          }} />
      )}
      <h2>Runs</h2>
      {runs.failure && <Problem text={runs.failure.message} onAgain={runs.reload} />}
      {runs.value?.runs.length === 0 && <p className="note">This agent has not run yet.</p>}
      <ul className="runs">
        {runs.value?.runs.map((run) => (
          <li key={run.execution_id}>
            <button type="button" className="quiet" aria-expanded={open === run.execution_id}
              onClick={() => setOpen(open === run.execution_id ? null : run.execution_id)}>
              <span className={`run-status ${run.status}`}>{displayName(run.status)}</span>
              <span className="note">{run.started_at && day(run.started_at)}{run.version !== null && `, version ${run.version}`}</span>
            </button>
            {run.outputs !== null && <Outputs outputs={asRow(run.outputs)} />}
            {run.error && <p className="why">{run.error}</p>}
            {open === run.execution_id && <Steps key={run.status} agent={agent} id={run.execution_id} onEnded={runs.reload} shown={run} />}
          </li>
        ))}
      </ul>
      {inputs.value && <Schedules agent={agent} inputs={inputs.value} />}
    </>
  );
}

function Outputs({ outputs }: { outputs: Row }) {
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  return (
    <dl className="outputs">
      {Object.entries(outputs).map(([name, values]) => (
        <div key={name}>
          <dt>{displayName(name)}</dt>
          <dd tabIndex={0}>{(Array.isArray(values) ? values : [values]).map(text).join(", ")}</dd>
        </div>
      ))}
    </dl>
  );
}

function Steps({ agent, id, shown, onEnded }: { agent: string; id: string; shown: Run; onEnded: () => void }) {
  const { value, failure, reload } = usePolled(async () => {
    const run = await agentApi.runOf(agent, id);
    if (isLive(shown) && !isLive(run)) onEnded();
    return run;
  }, isLive, id);
  const stop = () => void agentApi.cancel(agent, id).then(reload, reload);
  return (
    <>
      {failure && <Problem text={failure.message} onAgain={reload} />}
      {shown.outputs === null && value && value.outputs !== null && <Outputs outputs={asRow(value.outputs)} />}
      <ul className="steps">
        {value?.nodes?.map((node, place) => (
          <li key={place} className={node.status}>{node.name} <span className="note">{node.error ?? displayName(node.status)}</span></li>
        ))}
      </ul>
      {value && isLive(value) && <p><button type="button" onClick={stop}>Stop the run</button></p>}
    </>
  );
}
