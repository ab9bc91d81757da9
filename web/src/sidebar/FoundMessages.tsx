import { useEffect, useState } from "react";
import { api, type Found } from "../net/api";
import { Link } from "../route";

const PAUSE = 250; // ms without a key until the server is asked

// The messages that have the words of a query, below the conversations that have them in their title.
export function FoundMessages({ query, onClose }: { query: string; onClose: () => void }) {
  const [found, setFound] = useState<Found[]>([]);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let outdated = false;
    const timer = setTimeout(() => {
      api.searchMessages(query).then(
        ({ results }) => {
          if (outdated) return;
          setFound(results);
          setProblem("");
        },
        (failure: Error) => {
          if (!outdated) setProblem(failure.message);
        },
      );
    }, PAUSE);
    return () => {
      outdated = true;
      clearTimeout(timer);
    };
  }, [query]);
  if (problem) return <p className="empty" role="status">{problem}</p>;
  if (!found.length) return null;
  return (
    <section className="hits">
      <h2>In messages</h2>
      <ul>
        {found.map(({ session_id, message_id, sequence, title, role, snippet }) => (
          <li key={`${session_id} ${sequence}`}>
            <Link href={`/c/${session_id}?message=${encodeURIComponent(message_id)}`} onClick={onClose} title={title ?? "New conversation"}>
              <b>{title ?? "New conversation"}</b>
              <small>
                {role === "user" && "You: "}
                {snippet.map(({ text, match }, place) => (match ? <mark key={place}>{text}</mark> : text))}
              </small>
            </Link>
          </li>
        ))}
      </ul>
    </section>
  );
}
