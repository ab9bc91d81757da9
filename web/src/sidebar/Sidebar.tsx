import { Suspense, useMemo, useState } from "react";
import { Icon } from "../Icon";
import type { Place, Session } from "../net/api";
import { useAccess } from "../net/token";
import { Link, navigate } from "../route";
import { InstructionsButton } from "./InstructionsButton";
import { ImportButton } from "./ImportButton";
import { MoreButton } from "./MoreButton";
import { NoticeButton } from "./NoticeButton";
import { SignIn } from "./SignIn";
import { ThemeButton } from "./ThemeButton";
import { useSessions } from "./useSessions";
import { optional } from "../loading";

const FolderPicker = optional(() => import("./FolderPicker").then((file) => ({ default: file.FolderPicker })));
const FoundMessages = optional(() => import("./FoundMessages").then((file) => ({ default: file.FoundMessages })));

export function Sidebar({ current, onClose }: { current: string | null; onClose: () => void }) {
  const [query, setQuery] = useState("");
  const [archived, setArchived] = useState(false);
  const [folder, setFolder] = useState("");
  const list = useSessions(query.trim(), archived, folder);
  const access = useAccess();
  const groups = useMemo(() => grouped(list.sessions ?? []), [list.sessions]);
  const remove = (session: Session) => {
    list.remove(session);
    if (session.id === current) navigate("/");
  };
  return (
    <aside className="sidebar" aria-label="Conversations">
      <div className="top">
        <Link href="/" className="brand" onClick={onClose}>CoPilot</Link>
        <button type="button" className="quiet close" aria-label="Close the sidebar" title="Close" onClick={onClose}><Icon name="close" /></button>
      </div>
      <Link href="/" className="new" onClick={onClose}><Icon name="plus" />New conversation</Link>
      <label className="search">
        <Icon name="search" />
        <input type="search" aria-label="Search conversations" placeholder="Search" value={query}
          onChange={(event) => setQuery(event.target.value)} />
      </label>
      {(access === "open" || access === "signed-in") && (
        <Suspense><FolderPicker shown={folder} onShow={setFolder} /></Suspense>
      )}
      <nav aria-label="Conversations">
        {groups.map(([name, sessions]) => (
          <section key={name}>
            <h2>{name}</h2>
            <ul>
              {sessions.map((session) => (
                <Entry key={session.id} session={session} current={session.id === current}
                  running={list.running.has(session.id)} onClose={onClose}
                  onRename={(title) => void list.rename(session, title)} onRemove={() => remove(session)}
                  onPlace={(place) => void list.place(session, place)} />
              ))}
            </ul>
          </section>
        ))}
        {list.sessions?.length === 0 && <p className="empty">{query ? "No conversation has that title." : archived ? "No archived conversations." : folder ? "No conversations in this folder." : "No conversations yet."}</p>}
        {query.trim() && <Suspense><FoundMessages query={query.trim()} onClose={onClose} /></Suspense>}
        {list.more && <button type="button" className="link" onClick={list.loadMore}>Show older conversations</button>}
      </nav>
      <p className="row under">
        <button type="button" className="link" aria-pressed={archived} onClick={() => setArchived(!archived)}>
          {archived ? "Back to all conversations" : "Archived"}
        </button>
        <ImportButton onImported={onClose} />
      </p>
      {list.pendingDeletion && (
        <p className="undo" role="status">
          <span>Deleted “{list.pendingDeletion.title ?? "New conversation"}”</span>
          <button type="button" className="link" onClick={list.undo}>Undo</button>
        </p>
      )}
      <div className="bottom">
        <Link href="/library" onClick={onClose}><Icon name="library" />Agents</Link>
        <SignIn />
        <InstructionsButton />
        <NoticeButton />
        <ThemeButton />
      </div>
    </aside>
  );
}

interface EntryProps {
  session: Session;
  current: boolean;
  running: boolean;
  onClose: () => void;
  onRename: (title: string) => void;
  onRemove: () => void;
  onPlace: (place: Place) => void;
}

function Entry({ session, current, running, onClose, onRename, onRemove, onPlace }: EntryProps) {
  const [title, setTitle] = useState<string | null>(null);
  const shown = session.title ?? "New conversation";
  if (title !== null) {
    const done = () => {
      const trimmed = title.trim();
      setTitle(null);
      if (trimmed && trimmed !== shown) onRename(trimmed);
    };
    return (
      <li>
        <input className="rename" aria-label="Title" autoFocus maxLength={200} value={title} onBlur={done}
          onFocus={(event) => event.target.select()} onChange={(event) => setTitle(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter") done();
            if (event.key === "Escape") setTitle(null);
          }} />
      </li>
    );
  }
  return (
    <li className={current ? "current" : undefined}>
      <Link href={`/c/${session.id}`} aria-current={current ? "page" : undefined} onClick={onClose} title={shown}>
        {running && <span className="pulse" role="img" aria-label="Answering" />}
        <span>{shown}</span>
      </Link>
      <span className="tools">
        <button type="button" className="quiet" aria-label={`Rename ${shown}`} title="Rename" onClick={() => setTitle(shown)}><Icon name="edit" /></button>
        <button type="button" className="quiet" aria-label={`Delete ${shown}`} title="Delete" onClick={onRemove}><Icon name="trash" /></button>
        <MoreButton session={session} onPlace={onPlace} />
      </span>
    </li>
  );
}

function grouped(sessions: Session[]): [string, Session[]][] {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const day = 86_400_000;
  const nameOf = (moment: number) => {
    if (moment >= midnight) return "Today";
    if (moment >= midnight - day) return "Yesterday";
    if (moment >= midnight - 6 * day) return "Past week";
    if (moment >= midnight - 29 * day) return "Past month";
    return "Older";
  };
  const groups = new Map<string, Session[]>();
  for (const session of sessions) {
    const name = session.is_pinned ? "Pinned" : nameOf(Date.parse(session.updated_at));
    groups.set(name, [...(groups.get(name) ?? []), session]);
  }
  return [...groups];
}
