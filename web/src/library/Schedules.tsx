// The schedules of an agent: one can be seen, made, paused and deleted.
import { useState } from "react";
import { agentApi, type Inputs, type Schedule } from "./agentApi";
import { InputsForm } from "./InputsForm";
import { Problem } from "./Problem";
import { cronOf, day, RHYTHMS, zone, type Rhythm } from "./times";
import { usePolled } from "./usePolled";

const never = () => false;

export function Schedules({ agent, inputs }: { agent: string; inputs: Inputs }) {
  const { value, failure, reload } = usePolled(() => agentApi.schedules(agent), never, agent);
  const [making, setMaking] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const change = (act: Promise<unknown>) => {
    setProblem(null);
    act.catch((failed: Error) => setProblem(failed.message)).finally(reload);
  };
  return (
    <>
      <h2>Schedules</h2>
      {failure && <Problem text={failure.message} onAgain={reload} />}
      {problem && <Problem text={problem} />}
      {value?.schedules.length === 0 && !making && <p className="note">No schedules.</p>}
      <ul className="runs schedules">
        {value?.schedules.map((one) => (
          <li key={one.id}>
            <Shown schedule={one} />
            <p className="row">
              <button type="button" onClick={() => change(agentApi.pause(one.id, !one.paused))}>{one.paused ? "Resume" : "Pause"}</button>
              <button type="button" onClick={() => change(agentApi.removeSchedule(one.id))}>Remove</button>
            </p>
          </li>
        ))}
      </ul>
      {making ? (
        <NewSchedule agent={agent} inputs={inputs} onDone={() => {
          setMaking(false);
          reload();
        }} />
      ) : <p><button type="button" onClick={() => setMaking(true)}>New schedule</button></p>}
    </>
  );
}

function Shown({ schedule }: { schedule: Schedule }) {
  const inputs = Object.entries(schedule.inputs).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", ");
  return (
    <>
      <strong title={schedule.cron}>{schedule.when}</strong>
      <span className="note">
        {schedule.timezone}, version {schedule.version}{inputs && `, with ${inputs}`}.{" "}
        {schedule.paused ? "Paused" : schedule.next_run_at && `Next run: ${day(schedule.next_run_at)}`}
      </span>
    </>
  );
}

function NewSchedule({ agent, inputs, onDone }: { agent: string; inputs: Inputs; onDone: () => void }) {
  const [rhythm, setRhythm] = useState<Rhythm>("daily");
  const [time, setTime] = useState("08:00");
  const [cron, setCron] = useState("0 8 * * *");
  const when = { cron: cronOf(rhythm, time, cron), timezone: zone() };
  return (
    <div className="new-schedule">
      <p className="row">
        <select aria-label="How often" value={rhythm} onChange={(event) => setRhythm(event.target.value as Rhythm)}>
          {Object.entries(RHYTHMS).map(([value, words]) => <option key={value} value={value}>{words}</option>)}
        </select>
        {rhythm === "cron" ? (
          <input aria-label="Cron expression" value={cron} maxLength={200} onChange={(event) => setCron(event.target.value)} />
        ) : (
          <input aria-label="Time" type="time" required value={time} onChange={(event) => setTime(event.target.value)} />
        )}
        <span className="note">{when.timezone}</span>
      </p>
      <InputsForm inputs={inputs} act="Make the schedule" about={when.cron} send={async (given, key) => {
        if (!when.cron) throw new Error("Choose a time.");
        await agentApi.makeSchedule(agent, inputs.version, when, given, key);
        onDone();
      }} />
      <p><button type="button" onClick={onDone}>Cancel</button></p>
    </div>
  );
}
