// Why a file was not imported, in words for the person who chose it.
type Kind = "conversation" | "agent";

const EXPORTS: Record<Kind, string> = {
  conversation: "a conversation that CoPilot has exported. Choose a file that “Export as JSON” in the menu of a conversation has saved.",
  agent: "an agent that CoPilot has exported. Choose a file that “Export” on the page of an agent has saved.",
};
const NO_EXPORT = ["invalid_json", "validation_error", "unsupported_media_type"];
const MOST_NAME = 80; // characters

// `failure` is what the request, or the reading of the file, has thrown: a `Refused` has the server's code and status.
export function importProblem(kind: Kind, name: string, failure: unknown): string {
  const file = `“${name.length > MOST_NAME ? `${name.slice(0, MOST_NAME)}…` : name}”`;
  const { code, status, message } = failure as { code?: string; status?: number; message?: string };
  if (failure instanceof SyntaxError || NO_EXPORT.includes(code ?? "")) return `${file} is not ${EXPORTS[kind]}`;
  if (status === 413) return `${file} is too large.`;
  if (status === undefined) return `${file} was not imported: the server could not be reached.`;
  return `${file} was not imported: ${message}`;
}
