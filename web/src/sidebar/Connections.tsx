import { useEffect, useState } from "react";
import { api, isNotFound, type Connection } from "../net/api";

// The tool servers at which the user is signed in. Nothing is shown without one.
export function Connections() {
  const [connections, setConnections] = useState<Connection[]>([]);
  const [note, setNote] = useState("");
  useEffect(() => {
    api.connections().then(({ connections }) => setConnections(connections), (failure: Error) => setNote(failure.message));
  }, []);
  const signOut = async (server: string) => {
    try {
      await api.disconnect(server).catch((failure) => {
        if (!isNotFound(failure)) throw failure; // another tab was first
      });
      setConnections((old) => old.filter((one) => one.server !== server));
      setNote(`You are signed out at ${server}.`);
    } catch (failure) {
      setNote((failure as Error).message);
    }
  };
  if (connections.length === 0 && !note) return null;
  return (
    <section aria-labelledby="connections">
      <h2 id="connections">Your accounts at tool servers</h2>
      <ul className="found">
        {connections.map(({ server, signed_in_at, scopes }) => (
          <li key={server}>
            <strong>{server}</strong>
            <span className="note">Since {new Date(signed_in_at).toLocaleDateString()}{scopes.length > 0 && `: ${scopes.join(", ")}`}</span>
            <button type="button" aria-label={`Sign out at ${server}`} onClick={() => void signOut(server)}>Sign out</button>
          </li>
        ))}
      </ul>
      <p className="note" role="status">{note}</p>
    </section>
  );
}
