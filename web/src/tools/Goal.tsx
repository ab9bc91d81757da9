import type { Output } from "./output";
import { useSendOnce } from "./toolActions";

export function Goal({ output }: { output: Output }) {
  const goal = String(output.suggested_goal ?? "");
  const request = `Create an agent that does this: ${goal}`;
  const { sent, send } = useSendOnce((text) => text === request);
  return (
    <div className="result">
      <p>{String(output.reason ?? output.message ?? "")}</p>
      <blockquote>{goal}</blockquote>
      <p>
        <button type="button" className="primary" disabled={sent !== undefined} onClick={() => send(request)}>Use this goal</button>
      </p>
    </div>
  );
}
