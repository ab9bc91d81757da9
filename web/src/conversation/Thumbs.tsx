// Thumbs for an answer. What the server has stored comes with the history, in the metadata of the answer.
import type { UIMessage } from "ai";
import { useContext, useEffect, useRef, useState } from "react";
import { createPortal } from "react-dom";
import { Icon } from "../Icon";
import { api, type Feedback } from "../net/api";
import { ToolActionsContext } from "../tools/toolActions";

const given = new Map<string, Feedback | null>(); // on this page, since the history was read

export function Thumbs({ message }: { message: UIMessage }) {
  const { session } = useContext(ToolActionsContext);
  const stored = (message.metadata as { feedback?: Feedback } | undefined)?.feedback ?? null;
  const [feedback, setFeedback] = useState(given.has(message.id) ? given.get(message.id)! : stored);
  const [asking, setAsking] = useState(false);
  const [problem, setProblem] = useState("");
  const set = async (next: Feedback | null) => {
    try {
      if (next) await api.giveFeedback(session, message.id, next);
      else await api.removeFeedback(session, message.id);
      given.set(message.id, next);
      setFeedback(next);
      setProblem("");
    } catch (failure) {
      setProblem((failure as Error).message);
    }
  };
  const thumb = (rating: Feedback["rating"], label: string) => (
    <button type="button" className="quiet" aria-label={label} title={label} aria-pressed={feedback?.rating === rating}
      onClick={() => {
        const again = feedback?.rating === rating;
        setAsking(!again);
        void set(again ? null : { rating });
      }}>
      <Icon name={rating === "up" ? "thumbUp" : "thumbDown"} />
    </button>
  );
  return (
    <>
      {thumb("up", "Good answer")}
      {thumb("down", "Bad answer")}
      {problem && <span className="note" role="alert">{problem}</span>}
      {asking && feedback && <Comment feedback={feedback} onDone={(comment) => {
        setAsking(false);
        if (comment) void set({ ...feedback, comment });
      }} />}
    </>
  );
}

function Comment({ feedback, onDone }: { feedback: Feedback; onDone: (comment: string) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState(feedback.comment ?? "");
  const done = useRef("");
  useEffect(() => dialog.current?.showModal(), []);
  return createPortal(
    <dialog ref={dialog} aria-labelledby="comment" onClose={() => onDone(done.current)}>
      <form onSubmit={(event) => {
        event.preventDefault();
        done.current = text.trim();
        dialog.current?.close();
      }}>
        <h2 id="comment">{feedback.rating === "up" ? "What was good?" : "What was wrong?"}</h2>
        <textarea rows={4} maxLength={2000} aria-label="Comment" autoFocus value={text} onChange={(event) => setText(event.target.value)} />
        <p className="note">Your rating is stored. The operator of this server can read the comment.</p>
        <p className="row">
          <button type="submit" className="primary">Send</button>
          <button type="button" onClick={() => dialog.current?.close()}>No comment</button>
        </p>
      </form>
    </dialog>,
    document.body,
  );
}
