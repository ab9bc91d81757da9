import { useContext, useEffect, useState } from "react";
import { Acting } from "./acting";

const USUAL = 40; // seconds after which two thirds are shown, when nobody says how far it is

// Work that another service does. Without word from it the bar slows towards its end, and never gets there.
export function Working({ operation, task, message }: { operation: string; task?: string; message?: string }) {
  const { outside, cancelTask } = useContext(Acting);
  const known = outside.get(operation);
  const toCancel = known?.task_id || task;
  const [seen] = useState(() => Date.now());
  const [now, setNow] = useState(() => Date.now());
  const [cancelling, setCancelling] = useState(false);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, (now - (known?.since ?? seen)) / 1000);
  const percent = known?.percent ?? 95 * (1 - Math.exp(-seconds / USUAL));
  return (
    <div className="working">
      <p>{known?.message ?? message ?? "Working"}</p>
      <div className="bar" role="progressbar" aria-label="Progress" aria-valuemin={0} aria-valuemax={100}
        aria-valuenow={Math.round(percent)}>
        <span ref={(bar) => bar?.style.setProperty("--done", `${Math.min(99, percent)}%`)} />
      </div>
      <p className="row between">
        <span className="note">{spoken(seconds)}{known?.percent != null ? `, ${Math.round(known.percent)} %` : ""}. You can leave; it goes on.</span>
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

function spoken(seconds: number): string {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
