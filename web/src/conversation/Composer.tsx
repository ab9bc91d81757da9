import type { FileUIPart } from "ai";
import { useEffect, useLayoutEffect, useRef, useState, type SyntheticEvent } from "react";
import { Icon } from "../Icon";
import { draftOf, saveDraft } from "./drafts";
import { Files } from "./Files";
import { useUploads } from "./useUploads";

interface Props {
  draft: string; // the key under which unsent text survives a reload
  returned: string | null; // the text of a message that could not be sent
  returnedFiles: FileUIPart[];
  busy: boolean;
  stopping: boolean;
  onSend: (text: string, files: FileUIPart[]) => void;
  onSendNow: (text: string, files: FileUIPart[]) => void; // for the running answer, which reads it before its next step
  onStop: () => void;
}

export function Composer({ draft, returned, returnedFiles, busy, stopping, onSend, onSendNow, onStop }: Props) {
  const [text, setText] = useState(() => draftOf(draft));
  const uploads = useUploads();
  const picker = useRef<HTMLInputElement>(null);
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
  useEffect(() => uploads.put(returnedFiles), [returnedFiles, uploads.put]);
  const canSend = uploads.running.length === 0 && (text.trim() !== "" || uploads.files.length > 0);
  const send = (now: boolean) => {
    if (!canSend) return;
    setText("");
    (now && busy ? onSendNow : onSend)(text, uploads.take());
  };
  const take = (event: SyntheticEvent, { files }: DataTransfer) => {
    if (files.length === 0) return;
    event.preventDefault();
    uploads.add([...files]);
  };
  return (
    <form className="composer" onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => take(event, event.dataTransfer)} onSubmit={(event) => {
        event.preventDefault();
        send(false);
      }}>
      <div className="attached" role="status">
        <Files files={uploads.files} onRemove={uploads.remove} />
        {uploads.running.length > 0 && <p className="note">Uploading {uploads.running.join(", ")}</p>}
        {uploads.problem && <p className="note problem">{uploads.problem}</p>}
      </div>
      <input ref={picker} type="file" multiple hidden aria-label="Files"
        onChange={({ target }) => {
          uploads.add([...(target.files ?? [])]);
          target.value = "";
        }} />
      <button type="button" className="round quiet" aria-label="Add files" title="Add files" onClick={() => picker.current?.click()}>
        <Icon name="paperclip" />
      </button>
      <textarea ref={field} rows={1} value={text} aria-label="Message"
        placeholder={busy ? "Write the next message" : "Write a message"}
        onChange={(event) => setText(event.target.value)}
        onPaste={(event) => take(event, event.clipboardData)}
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
      {busy && canSend && (
        <button type="button" className="now" title="CoPilot reads it before its next step (Ctrl+Enter)"
          onClick={() => {
            send(true);
            field.current?.focus();
          }}>
          Send now
        </button>
      )}
      {(!busy || canSend) && (
        <button type="submit" className="round primary" aria-label={busy ? "Queue" : "Send"}
          title={busy ? "Queue: send it when the answer has ended" : "Send"} disabled={!canSend}>
          <Icon name="arrow" />
        </button>
      )}
    </form>
  );
}
