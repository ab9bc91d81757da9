import { isToolUIPart, type UIMessage } from "ai";
import { memo, useEffect, useId, useRef, useState } from "react";
import { Boundary } from "./Boundary";
import { CopyButton } from "./CopyButton";
import { Icon } from "./Icon";
import { Markdown } from "./Markdown";
import { textIn, type Part } from "./shown";
import { Within } from "./tools/acting";
import { goesOnOutside, ToolCard } from "./tools/ToolCard";

interface Props {
  message: UIMessage;
  parts: Part[];
  live: boolean;
  isLast: boolean;
  editing: boolean;
  behind: number; // messages of the user that come after the one that is edited
  onEdit?: (id: string) => void;
  onEdited: (id: string, text: string | null) => void;
  onAgain?: (id: string) => void;
}

export const Message = memo(function Message(props: Props) {
  const instead = (
    <article className="answer" data-message={props.message.id}>
      <p className="plain">{textIn(props.parts)}</p>
      <p className="note">This message could not be shown as it should be.</p>
    </article>
  );
  return (
    <Boundary instead={instead}>
      {props.message.role === "user" ? <Question {...props} /> : <Answer {...props} />}
    </Boundary>
  );
});

export const Waiting = () => <div className="answer"><span className="dots" aria-label="Waiting for the answer" role="img"><i /><i /><i /></span></div>;

function Question({ message, parts, editing, behind, onEdit, onEdited }: Props) {
  const said = textIn(parts);
  const button = useRef<HTMLButtonElement>(null);
  const edited = useRef(false);
  useEffect(() => {
    if (edited.current && !editing) button.current?.focus();
    edited.current = editing;
  }, [editing]);
  if (editing) {
    const done = (text: string | null) => onEdited(message.id, text);
    return <Editor text={said} waits={onEdit === undefined} behind={behind} onDone={done} />;
  }
  return (
    <article className="user" aria-label="You" data-message={message.id}>
      <div className="bubble">{said}</div>
      <div className="actions">
        <CopyButton text={said} what="message" />
        {onEdit && (
          <button type="button" ref={button} className="quiet" aria-label="Edit message" title="Edit and send again"
            onClick={() => onEdit(message.id)}>
            <Icon name="edit" />
          </button>
        )}
      </div>
    </article>
  );
}

interface EditorProps {
  text: string;
  waits: boolean;
  behind: number;
  onDone: (text: string | null) => void;
}

function Editor({ text, waits, behind, onDone }: EditorProps) {
  const [now, setNow] = useState(text);
  const warning = useId();
  const done = () => waits || onDone(now.trim() && now !== text ? now : null);
  return (
    <form className="editor" onSubmit={(event) => {
      event.preventDefault();
      done();
    }}>
      <textarea aria-label="Edit message" aria-describedby={behind > 0 ? warning : undefined} autoFocus
        rows={Math.min(10, now.split("\n").length + 1)} value={now}
        onFocus={({ target }) => target.setSelectionRange(target.value.length, target.value.length)}
        onChange={(event) => setNow(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onDone(null);
          if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
          event.preventDefault();
          done();
        }} />
      {behind > 0 && (
        <p className="note" id={warning}>
          {behind === 1 ? "A later message goes" : `${behind} later messages go`}, with what was answered.
        </p>
      )}
      <div className="row">
        <button type="button" className="plain-button" onClick={() => onDone(null)}>Cancel</button>
        <button type="submit" className="primary" disabled={waits} title={waits ? "When the answer has ended" : undefined}>
          Send again
        </button>
      </div>
    </form>
  );
}

function Answer({ message, parts, live, isLast, onAgain }: Props) {
  const status = (message.metadata as { status?: string } | undefined)?.status;
  const links = parts.filter((part) => part.type === "source-url");
  return (
    <article className="answer" aria-label="CoPilot" aria-busy={live} data-message={message.id}>
      <Within value={message.id}>
        {parts.map((part, place) => <Piece key={place} part={part} live={live && place === parts.length - 1} />)}
      </Within>
      {live && !hasTail(parts) && <span className="dots" aria-hidden="true"><i /><i /><i /></span>}
      {links.length > 0 && (
        <ul className="sources" aria-label="Sources">
          {links.map((part) => (
            <li key={part.sourceId}>
              <a href={safeUrl(part.url)} target="_blank" rel="noopener noreferrer">{part.title ?? part.url}</a>
            </li>
          ))}
        </ul>
      )}
      {!live && status === "cancelled" && <p className="note">Stopped</p>}
      {!live && (
        <div className={isLast ? "actions shown" : "actions"}>
          <CopyButton text={textIn(parts)} what="answer" />
          {isLast && onAgain && canAnswerAgain(message, parts) && (
            <button type="button" className="quiet" aria-label="Answer again" title="Answer again"
              onClick={() => onAgain(message.id)}>
              <Icon name="again" />
            </button>
          )}
        </div>
      )}
    </article>
  );
}

// Not what an operation says, which answers nobody; nor while one goes on, which would go on beside the next.
const canAnswerAgain = (message: UIMessage, parts: Part[]) =>
  parts.length === message.parts.length && !parts.some((part) => isToolUIPart(part) && goesOnOutside(part));

// Whether the answer shows by itself that it grows.
function hasTail(parts: Part[]): boolean {
  const last = parts.at(-1);
  return last?.type === "text" ? last.text.length > 0 : last?.type === "reasoning";
}

const safeUrl = (url: string) => (/^https?:/i.test(url) ? url : undefined);

function Piece({ part, live }: { part: Part; live: boolean }) {
  if (part.type === "text") return <Markdown text={part.text} />;
  if (part.type === "reasoning") return <Reasoning text={part.text} live={live} />;
  if (isToolUIPart(part)) return <ToolCard part={part} />;
  if (part.type === "data-error")
    return <p className="problem"><Icon name="warn" />{(part.data as { message?: string }).message}</p>;
  return null;
}

function Reasoning({ text, live }: { text: string; live: boolean }) {
  if (!text) return null;
  return (
    <details className="reasoning">
      <summary>{live ? "Thinking…" : "Thoughts"}</summary>
      <Markdown text={text} />
    </details>
  );
}
