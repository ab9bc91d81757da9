import { useRef, useState } from "react";
import { Icon } from "../Icon";
import { newId } from "../ids";
import { importProblem } from "../importProblem";
import { api } from "../net/api";
import { broadcastSessionsChanged } from "../net/sessionBroadcast";
import { navigate } from "../route";

// Takes a file that was exported as JSON, and opens the conversation that the server makes of it.
export function ImportButton({ onImported }: { onImported: () => void }) {
  const picker = useRef<HTMLInputElement>(null);
  const [importing, setImporting] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const take = async (file: File) => {
    setProblem(null);
    setImporting(true);
    try {
      const id = newId();
      await api.imported(id, file);
      broadcastSessionsChanged();
      navigate(`/c/${id}`);
      onImported();
    } catch (failure) {
      setProblem(importProblem("conversation", file.name, failure));
    } finally {
      setImporting(false);
    }
  };
  return (
    <>
      <input ref={picker} type="file" accept=".json,application/json" hidden aria-label="Conversation to import"
        onChange={({ target }) => {
          const file = target.files?.[0];
          target.value = "";
          if (file) void take(file);
        }} />
      <button type="button" className="link" disabled={importing} onClick={() => picker.current?.click()}>Import</button>
      {importing && <span className="note" role="status">Importing</span>}
      {problem && (
        <span className="problem" role="alert">
          <span>{problem}</span>
          <button type="button" className="quiet" aria-label="Close" title="Close" onClick={() => setProblem(null)}><Icon name="close" /></button>
        </span>
      )}
    </>
  );
}
