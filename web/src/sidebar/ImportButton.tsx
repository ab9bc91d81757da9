import { useRef, useState } from "react";
import { newId } from "../ids";
import { api } from "../net/api";
import { broadcastSessionsChanged } from "../net/sessionBroadcast";
import { navigate } from "../route";

// Takes a file that was exported as JSON, and opens the conversation that the server makes of it.
export function ImportButton({ onImported }: { onImported: () => void }) {
  const picker = useRef<HTMLInputElement>(null);
  const [note, setNote] = useState("");
  const take = async (file: File) => {
    setNote("Importing");
    try {
      const id = newId();
      await api.imported(id, file);
      setNote("");
      broadcastSessionsChanged();
      navigate(`/c/${id}`);
      onImported();
    } catch (failure) {
      setNote(`Not imported: ${(failure as Error).message}`);
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
      <button type="button" className="link" onClick={() => picker.current?.click()}>Import</button>
      {note && <span className="note" role={note === "Importing" ? "status" : "alert"}>{note}</span>}
    </>
  );
}
