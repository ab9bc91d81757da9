import { useContext, useState } from "react";
import { Acting } from "./acting";
import type { Output } from "./ToolCard";

export function Goal({ output }: { output: Output }) {
  const { say } = useContext(Acting);
  const [taken, setTaken] = useState(false);
  const goal = String(output.suggested_goal ?? "");
  return (
    <div className="result">
      <p>{String(output.reason ?? output.message ?? "")}</p>
      <blockquote>{goal}</blockquote>
      <p>
        <button type="button" className="primary" disabled={taken} onClick={() => {
          setTaken(true);
          say(`Create an agent that does this: ${goal}`);
        }}>Use this goal</button>
      </p>
    </div>
  );
}
