// Cards of the tools that use the files of a conversation: a list with downloads, and a command with its outputs.
import type { Json } from "../net/api";
import { rows, type Output, type Row } from "./output";
import { ToolFiles } from "./ToolFiles";

const MOST = 20; // each link is a request

export default function WorkspaceCard({ output, input }: { output: Output; input: unknown }) {
  return output.type === "bash_exec" ? <Command output={output} input={input} /> : <List output={output} />;
}

function List({ output }: { output: Output }) {
  const listed = output.type === "workspace_file_written" ? [output as Row] : rows(output.files);
  const files = listed.filter(({ url }) => typeof url === "string").slice(0, MOST).map((file) => ({
    file_id: String(file.url).split("/").pop() ?? "", filename: file.path ?? "", media_type: "", // by name, pictures too
  }));
  return (
    <div className="result">
      <p className="why">{output.message}</p>
      <ToolFiles output={{ files }} />
    </div>
  );
}

function Command({ output, input }: { output: Output; input: unknown }) {
  const command = (input as { command?: Json } | undefined)?.command;
  const shown = [["Command", command], ["Output", output.stdout], ["Errors", output.stderr]] as const;
  return (
    <div className="result">
      <div className="outputs">
        {shown.map(([name, text]) => typeof text === "string" && text !== "" && (
          <pre key={name} tabIndex={0} aria-label={name}>{text}</pre>
        ))}
      </div>
      <p className="why">{output.message}</p>
    </div>
  );
}
