import { useEffect, useRef, useState } from "react";
import { createPortal } from "react-dom";
import { api } from "../net/api";
import { Connections } from "./Connections";

const MAX_CHARS = 4_000;

// A dialog in which the user tells models what to know in all conversations, and sees the accounts that tools use.
export function Instructions({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState<string | null>(null); // null: not read yet, or not taken by the server
  const [note, setNote] = useState("");
  useEffect(() => {
    dialog.current?.showModal();
    api.instructions().then(
      ({ instructions, enabled }) => (enabled ? setText(instructions ?? "") : setNote("This server accepts no instructions.")),
      (failure: Error) => setNote(failure.message),
    );
  }, []);
  const save = async (instructions: string) => {
    try {
      await api.setInstructions(instructions);
      dialog.current?.close();
    } catch (failure) {
      setNote((failure as Error).message);
    }
  };
  return createPortal(
    <dialog ref={dialog} aria-labelledby="instructions" onClose={onClose}>
      <form onSubmit={(event) => {
        event.preventDefault();
        if (text !== null) void save(text.trim());
      }}>
        <h2 id="instructions">Instructions</h2>
        <label>
          What should models know about you, and how should they answer?
          <textarea rows={8} maxLength={MAX_CHARS} disabled={text === null} value={text ?? ""}
            onChange={(event) => setText(event.target.value)} />
        </label>
        <p className="note" role="status">{note || "They apply to all your conversations, from the next message on."}</p>
        <p className="row">
          <button type="submit" className="primary" disabled={text === null}>Save</button>
          <button type="button" onClick={() => dialog.current?.close()}>Cancel</button>
        </p>
      </form>
      <Connections />
    </dialog>,
    document.body, // the sidebar may be hidden
  );
}
