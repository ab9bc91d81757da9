import { useSaying } from "./acting";
import type { Output } from "./ToolCard";

export function Goal({ output }: { output: Output }) {
  const goal = String(output.suggested_goal ?? "");
  const wish = `Create an agent that does this: ${goal}`;
  const { said, say } = useSaying((text) => text === wish);
  return (
    <div className="result">
      <p>{String(output.reason ?? output.message ?? "")}</p>
      <blockquote>{goal}</blockquote>
      <p>
        <button type="button" className="primary" disabled={said !== undefined} onClick={() => say(wish)}>Use this goal</button>
      </p>
    </div>
  );
}
