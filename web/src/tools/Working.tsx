import { useContext, useEffect, useState } from "react";
import { ToolActionsContext } from "./toolActions";

const USUAL_S = 40; // time after which the bar shows about 60 % if the service reports no progress

// Shows an operation of another service. If it reports no progress, the bar slows down and stays below 95 %.
export function Working({ operation, task, message }: { operation: string; task?: string; message?: string }) {
  const { pendingOperations, cancelTask } = useContext(ToolActionsContext);
  const known = pendingOperations.get(operation);
  const toCancel = known?.task_id || task;
  const [seen] = useState(() => Date.now());
  const [now, setNow] = useState(() => Date.now());
  const [cancelling, setCancelling] = useState(false);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, (now - (known?.since ?? seen)) / 1000);
  const percent = known?.percent ?? 95 * (1 - Math.exp(-seconds / USUAL_S));
  return (
    <div className="working">
      <p>{known?.message ?? message ?? "Working"}</p>
      <div className="bar" role="progressbar" aria-label="Progress" aria-valuemin={0} aria-valuemax={100}
        aria-valuenow={Math.round(percent)}>
        <span ref={(bar) => bar?.style.setProperty("--done", `${Math.min(99, percent)}%`)} />
      </div>
      <p className="row between">
        <span className="note">
          {durationText(seconds)}{known?.percent != null ? `, ${Math.round(known.percent)} %` : ""}.
          You can close this page; the work continues.
        </span>
        {toCancel && (
          <button type="button" disabled={cancelling} onClick={() => {
            setCancelling(true);
            void cancelTask(toCancel).finally(() => setCancelling(false));
          }}>Cancel</button>
        )}
      </p>
    </div>
  );
}

function durationText(seconds: number): string {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
