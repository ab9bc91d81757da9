// The page of a shared conversation: a copy of its texts, to be read. It needs neither a token nor the AI SDK.
import { createRoot } from "react-dom/client";
import { useEffect, useState } from "react";
import { Markdown } from "../markdown/Markdown";
import { loadParser } from "../markdown/parser";
import { safeUrl } from "../parts";
import "../styles.css";

interface Piece {
  type: "text" | "source";
  text: string;
  url: string | null;
}
interface Shared {
  title: string | null;
  created_at: string;
  messages: { role: "user" | "assistant"; parts: Piece[] }[];
}

const GONE = "This link leads to no conversation. It may have been withdrawn.";

async function read(): Promise<Shared> {
  const token = location.pathname.split("/").at(-1) ?? "";
  const [answer] = await Promise.all([
    fetch(`/api/chat/shared/${encodeURIComponent(token)}`, { credentials: "omit", signal: AbortSignal.timeout(20_000) }),
    loadParser(),
  ]);
  if (answer.status === 404) throw new Error(GONE);
  if (answer.status === 429) throw new Error("Too many shared conversations were read from here. Try again in a minute.");
  if (!answer.ok) throw new Error("The conversation could not be loaded. Try again later.");
  return (await answer.json()) as Shared;
}

function SharedPage() {
  const [shared, setShared] = useState<Shared | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    read().then(setShared, (failure: Error) => setProblem(failure.name === "TimeoutError" ? "The server did not answer in time." : failure.message));
  }, []);
  useEffect(() => {
    if (shared?.title) document.title = shared.title;
  }, [shared]);
  if (problem) return <main className="scroll center"><h1>Nothing to show</h1><p role="alert">{problem}</p></main>;
  if (!shared) return <main className="scroll center" aria-busy />;
  return (
    <main className="scroll">
      <div className="thread">
        <h1>{shared.title ?? "Conversation"}</h1>
        <p className="note">A copy of {new Date(shared.created_at).toLocaleString()}, shared by its owner. Answers are written by a model.</p>
        {shared.messages.map(({ role, parts }, place) => (role === "user" ? <Question key={place} parts={parts} /> : <Answer key={place} parts={parts} />))}
      </div>
    </main>
  );
}

const Question = ({ parts }: { parts: Piece[] }) => (
  <article className="user" aria-label="User"><div className="bubble">{parts.map(({ text }) => text).join("\n\n")}</div></article>
);

function Answer({ parts }: { parts: Piece[] }) {
  const sources = parts.filter(({ type }) => type === "source");
  return (
    <article className="answer" aria-label="Answer">
      {parts.map(({ type, text }, place) => type === "text" && <Markdown key={place} text={text} />)}
      {sources.length > 0 && (
        <ul className="sources" aria-label="Sources">
          {sources.map(({ text, url }, place) => (
            <li key={place}><a href={safeUrl(url ?? "")} target="_blank" rel="noopener noreferrer">{text}</a></li>
          ))}
        </ul>
      )}
    </article>
  );
}

createRoot(document.getElementById("page")!).render(<SharedPage />);
