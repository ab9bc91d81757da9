import { isToolUIPart, type UIMessage } from "ai";
import { memo, Suspense, useContext, useEffect, useId, useRef, useState } from "react";
import { Boundary } from "../Boundary";
import { CopyButton } from "../CopyButton";
import { Icon } from "../Icon";
import { Markdown } from "../markdown/Markdown";
import type { Alternatives } from "../net/api";
import { useModels } from "../net/models";
import { filesIn, safeUrl, textIn, type Part } from "../parts";
import { Elicitation, type Elicited } from "../tools/Ask";
import { isPending } from "../tools/output";
import { MessageIdContext, ToolActionsContext } from "../tools/toolActions";
import { ToolCard } from "../tools/ToolCard";
import { Files } from "./Files";
import { Versions } from "./Versions";
import { optional } from "../loading";

const Thumbs = optional(() => import("./Thumbs").then((file) => ({ default: file.Thumbs })));
const CONTINUE = "Continue where you stopped.";

interface Props {
  message: UIMessage;
  parts: Part[];
  live: boolean;
  isLast: boolean;
  editing: boolean;
  laterMessages: number; // number of user messages after the one that is edited
  onEdit?: (id: string) => void;
  onEdited: (id: string, text: string | null) => void;
  onAgain?: (id: string) => void;
  alternatives?: Alternatives;
  switchedTo: string | null;
  onSwitch?: (version: string) => void;
}

export const Message = memo(function Message(props: Props) {
  const instead = (
    <article className="answer" data-message={props.message.id}>
      <p className="plain">{textIn(props.parts)}</p>
      <p className="note">This message could not be displayed correctly.</p>
    </article>
  );
  return (
    <Boundary instead={instead}>
      {props.message.role === "user" ? <Question {...props} /> : <Answer {...props} />}
    </Boundary>
  );
});

export const Waiting = () => (
  <div className="answer">
    <span className="dots" aria-label="Waiting for the answer" role="img"><i /><i /><i /></span>
  </div>
);

function Question(props: Props) {
  const { message, parts, editing, laterMessages, onEdit, onEdited } = props;
  const text = textIn(parts);
  const button = useRef<HTMLButtonElement>(null);
  const edited = useRef(false);
  useEffect(() => {
    if (edited.current && !editing) button.current?.focus();
    edited.current = editing;
  }, [editing]);
  if (editing) {
    const done = (text: string | null) => onEdited(message.id, text);
    return <Editor text={text} blocked={onEdit === undefined} laterMessages={laterMessages} onDone={done} />;
  }
  return (
    <article className="user" aria-label="You" data-message={message.id}>
      <Files files={filesIn(parts)} />
      {text && <div className="bubble">{text}</div>}
      <div className={props.alternatives ? "actions shown" : "actions"}>
        {props.alternatives && <Versions of={props.alternatives} {...props} />}
        <CopyButton text={text} what="message" />
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
  blocked: boolean;
  laterMessages: number;
  onDone: (text: string | null) => void;
}

function Editor({ text, blocked, laterMessages, onDone }: EditorProps) {
  const [now, setNow] = useState(text);
  const warning = useId();
  const done = () => blocked || onDone(now.trim() && now !== text ? now : null);
  return (
    <form className="editor" onSubmit={(event) => {
      event.preventDefault();
      done();
    }}>
      <textarea aria-label="Edit message" aria-describedby={laterMessages > 0 ? warning : undefined} autoFocus
        rows={Math.min(10, now.split("\n").length + 1)} value={now}
        onFocus={({ target }) => target.setSelectionRange(target.value.length, target.value.length)}
        onChange={(event) => setNow(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onDone(null);
          if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
          event.preventDefault();
          done();
        }} />
      {laterMessages > 0 && (
        <p className="note" id={warning}>
          Sending this edit begins a new version.{" "}
          {laterMessages === 1 ? "1 later message and its answer stay" : `${laterMessages} later messages and their answers stay`}
          {" "}with this one.
        </p>
      )}
      <div className="row">
        <button type="button" className="plain-button" onClick={() => onDone(null)}>Cancel</button>
        <button type="submit" className="primary" disabled={blocked} title={blocked ? "Available when the answer has ended" : undefined}>
          Send again
        </button>
      </div>
    </form>
  );
}

function Answer(props: Props) {
  const { message, parts, live, isLast, onAgain } = props;
  const status = (message.metadata as { status?: string } | undefined)?.status;
  const links = parts.filter((part) => part.type === "source-url");
  return (
    <article className="answer" aria-label="CoPilot" aria-busy={live} data-message={message.id}>
      <MessageIdContext value={message.id}>
        {parts.map((part, place) => (
          <Piece key={place} part={part} live={live && place === parts.length - 1} running={live} />
        ))}
      </MessageIdContext>
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
      {!live && status === "completed" && <EndNote message={message} parts={parts} isLast={isLast} />}
      {!live && (
        <div className={isLast || props.alternatives ? "actions shown" : "actions"}>
          {props.alternatives && <Versions of={props.alternatives} {...props} />}
          <CopyButton text={textIn(parts)} what="answer" />
          {isLast && onAgain && canAnswerAgain(message, parts) && (
            <button type="button" className="quiet" aria-label="Answer again" title="Answer again"
              onClick={() => onAgain(message.id)}>
              <Icon name="again" />
            </button>
          )}
          {status !== undefined && <Suspense><Thumbs message={message} /></Suspense>}
          <AnsweredBy message={message} />
        </div>
      )}
    </article>
  );
}

// Says why an answer ended, if it did not end by itself.
function EndNote({ message, parts, isLast }: { message: UIMessage; parts: Part[]; isLast: boolean }) {
  const { send } = useContext(ToolActionsContext);
  const end = message.metadata as { finishReason?: string; explanation?: string };
  const isEmpty = !parts.some((part) => isToolUIPart(part) || (part.type === "text" && part.text.trim() !== ""));
  if (end.finishReason === "content-filter")
    return <p className="note">{end.explanation ?? "The model's provider ended this answer. Rephrase your message, or start a new conversation."}</p>;
  if (isEmpty)
    return (
      <p className="note">
        {end.finishReason === "length" ? "The model thought until it reached its limit, and gave no answer." : "The model gave no answer."}
      </p>
    );
  if (end.finishReason !== "length") return null;
  return (
    <p className="note">
      Cut off at the length limit{" "}
      {isLast && <button type="button" className="link" onClick={() => send(CONTINUE)}>Continue</button>}
    </p>
  );
}

// Shown if there are several models: the one that answered, and what that cost.
function AnsweredBy({ message }: { message: UIMessage }) {
  const models = useModels();
  const { model, cost = {} } = (message.metadata ?? {}) as { model?: string; cost?: Record<string, number> };
  if (models.length < 2 || !model) return null;
  const label = models.find(({ id }) => id === model)?.label ?? model;
  return <span className="note by">{[label, ...Object.entries(cost).map(money)].join(" · ")}</span>;
}

const money = ([currency, amount]: [string, number]) =>
  amount.toLocaleString("en", { style: "currency", currency, maximumSignificantDigits: 2 });

// Excludes messages of an operation, which answer no user message, and answers whose operation is still pending: it
// would run beside the next one.
const canAnswerAgain = (message: UIMessage, parts: Part[]) =>
  parts.length === message.parts.length && !parts.some((part) => isToolUIPart(part) && isPending(part));

// Returns true if the answer's last part visibly grows, so that no waiting dots are needed.
function hasTail(parts: Part[]): boolean {
  const last = parts.at(-1);
  return last?.type === "text" ? last.text.length > 0 : last?.type === "reasoning";
}

// `live`: the part still grows. `running`: its message does.
function Piece({ part, live, running }: { part: Part; live: boolean; running: boolean }) {
  if (part.type === "text") return <Markdown text={part.text} growing={live} />;
  if (part.type === "reasoning") return <Reasoning text={part.text} live={live} />;
  if (isToolUIPart(part)) return <ToolCard part={part} />;
  if (part.type === "data-steering") return <Steering {...(part.data as SteeringData)} />;
  if (part.type === "data-summary") return <Summary {...(part.data as SummaryNotice)} />;
  if (part.type === "data-question") return running ? <LiveQuestion data={part.data as LiveQuestionData} /> : null;
  if (part.type === "data-error")
    return <p className="problem"><Icon name="warn" />{(part.data as { message?: string }).message}</p>;
  return null;
}

interface SteeringData {
  parts?: Part[];
}

// A message of the user, where the answer has taken it in.
const Steering = ({ parts = [] }: SteeringData) => (
  <div className="user steered" role="group" aria-label="You">
    <Files files={filesIn(parts)} />
    {textIn(parts) && <div className="bubble">{textIn(parts)}</div>}
  </div>
);

interface SummaryNotice {
  messages?: number;
  text?: string;
}

// Says that the model reads a summary from here on. The messages themselves stay in the conversation.
function Summary({ messages, text }: SummaryNotice) {
  return (
    <details className="reasoning summarised">
      <summary>Earlier messages were summarised</summary>
      <p className="note">
        From here on, the model reads this summary{messages ? ` of the first ${messages} messages` : ""}. The messages stay in this conversation.
      </p>
      {text && <Markdown text={text} />}
    </details>
  );
}

interface LiveQuestionData {
  operation_id?: string;
  asks?: Elicited;
  closed?: boolean;
}

// What a tool server asks while its call waits.
function LiveQuestion({ data: { operation_id, asks, closed } }: { data: LiveQuestionData }) {
  if (closed || !operation_id || !asks) return null;
  return (
    <section className="tool running" aria-label={`Question from ${asks.server ?? "a tool"}`}>
      <Elicitation key={operation_id} asked={asks} operation={operation_id} />
    </section>
  );
}

function Reasoning({ text, live }: { text: string; live: boolean }) {
  if (!text) return null;
  return (
    <details className="reasoning">
      <summary>{live ? "Thinking…" : "Thoughts"}</summary>
      <Markdown text={text} growing={live} />
    </details>
  );
}
