import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { Icon } from "../Icon";
import { draftOf, saveDraft } from "./drafts";

interface Props {
  draft: string; // the key under which unsent text survives a reload
  returned: string | null; // the text of a message that could not be sent
  busy: boolean;
  stopping: boolean;
  onSend: (text: string) => void;
  onSendNow: (text: string) => void; // for the running answer, which reads it before its next step
  onStop: () => void;
}

export function Composer({ draft, returned, busy, stopping, onSend, onSendNow, onStop }: Props) {
  const [text, setText] = useState(() => draftOf(draft));
  const field = useRef<HTMLTextAreaElement>(null);

  useEffect(() => {
    if (!matchMedia("(pointer: coarse)").matches) field.current?.focus();
  }, []);
  const kept = useRef(draft);
  useEffect(() => {
    if (kept.current !== draft) saveDraft(kept.current, "");
    kept.current = draft;
    saveDraft(draft, text);
  }, [draft, text]);
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, 240)}px`;
  }, [text]);

  useEffect(() => {
    if (returned !== null) setText((now) => (now ? `${now}\n\n${returned}` : returned));
  }, [returned]);
  const send = (now: boolean) => {
    if (!text.trim()) return;
    setText("");
    (now && busy ? onSendNow : onSend)(text);
  };
  return (
    <form className="composer" onSubmit={(event) => {
      event.preventDefault();
      send(false);
    }}>
      <textarea ref={field} rows={1} value={text} aria-label="Message"
        placeholder={busy ? "Write the next message" : "Write a message"}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
          event.preventDefault();
          send(event.ctrlKey || event.metaKey);
        }} />
      {busy && (
        <button type="button" className="round" aria-label="Stop" title="Stop" disabled={stopping}
          onClick={() => {
            onStop();
            field.current?.focus();
          }}>
          <Icon name="stop" />
        </button>
      )}
      {busy && text.trim() && (
        <button type="button" className="now" title="CoPilot reads it before its next step (Ctrl+Enter)"
          onClick={() => {
            send(true);
            field.current?.focus();
          }}>
          Send now
        </button>
      )}
      {(!busy || text.trim()) && (
        <button type="submit" className="round primary" aria-label={busy ? "Queue" : "Send"}
          title={busy ? "Queue: send it when the answer has ended" : "Send"} disabled={!text.trim()}>
          <Icon name="arrow" />
        </button>
      )}
    </form>
  );
}
