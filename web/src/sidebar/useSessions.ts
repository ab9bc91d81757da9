// The list of sessions. Events of the feed and of this page keep it up to date.
import { useCallback, useEffect, useRef, useState } from "react";
import { anonymousSessions, forgetSession, rememberSession } from "../net/anonymousSessions";
import { api, isNotFound, type Place, type Session } from "../net/api";
import { subscribeToFeed } from "../net/feed";
import { withRetry } from "../net/retry";
import { broadcastSessionsChanged, onSessionsChanged } from "../net/sessionBroadcast";
import { onSignOut } from "../net/token";

const UNDO_MS = 6_000;
const CHANGES = new Set(["snapshot", "turn-started", "turn-finished", "title-changed", "place-changed", "session-deleted"]);

const DELETE_LIMIT_MS = 600_000; // if the server is unavailable for longer, the session is listed again

// Pinned ones first, then the last updated first, as the server lists them.
const inOrder = (a: Session, b: Session) =>
  Number(b.is_pinned ?? false) - Number(a.is_pinned ?? false) || b.updated_at.localeCompare(a.updated_at);

export function useSessions(query: string, archived: boolean, folder: string) {
  const [sessions, setSessions] = useState<Session[] | null>(null);
  const [more, setMore] = useState(false);
  const [running, setRunning] = useState<ReadonlySet<string>>(new Set());
  const [pendingDeletion, setPendingDeletion] = useState<Session | null>(null);
  const timer = useRef(0);
  const pages = useRef(1);
  const deleted = useRef(new Set<string>()); // deleted on this page; the server may not know yet
  const shown = `${archived} ${folder} ${query}`;
  const current = useRef(shown);
  current.current = shown;

  const load = useCallback(async () => {
    const found = await Promise.all(Array.from({ length: pages.current }, (_, page) => api.sessions(query, archived, folder, page * 50)));
    if (current.current !== shown) return; // a newer query is running
    const listed = new Map(found.flatMap((page) => page.sessions).map((session) => [session.id, session]));
    const local = archived || folder ? [] : anonymousSessions().filter(({ title }) => (title ?? "").toLowerCase().includes(query.toLowerCase()));
    for (const session of local) if (!listed.has(session.id)) listed.set(session.id, session);
    setSessions([...listed.values()].sort(inOrder));
    setMore((found[0]?.total ?? 0) > pages.current * 50);
  }, [query, archived, folder, shown]);
  const reload = useCallback((delay = 120) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => void load().catch(() => undefined), delay);
  }, [load]);

  useEffect(() => {
    reload(query ? 150 : 0);
    return () => clearTimeout(timer.current);
  }, [reload, query]);
  useEffect(() => onSessionsChanged(() => reload()), [reload]);
  useEffect(() => subscribeToFeed((event) => {
    if (event.type === "snapshot") setRunning(new Set(event.turns?.map((turn) => turn.session_id)));
    if (event.type === "turn-started") setRunning((old) => new Set(old).add(event.session_id!));
    if (event.type === "turn-finished") setRunning((old) => new Set([...old].filter((id) => id !== event.session_id)));
    if (CHANGES.has(event.type)) reload();
  }), [reload]);

  const last = useRef(pendingDeletion);
  last.current = pendingDeletion;
  const finish = useCallback(() => {
    const session = last.current;
    if (!session) return;
    last.current = null;
    setPendingDeletion(null);
    deleted.current.add(session.id);
    const forget = () => forgetSession(session.id);
    const failed = (failure: unknown) => void (isNotFound(failure) ? forget() : deleted.current.delete(session.id));
    void withRetry(() => api.remove(session.id), AbortSignal.timeout(DELETE_LIMIT_MS))
      .then(forget, failed)
      .then(broadcastSessionsChanged);
  }, []);
  useEffect(() => {
    window.addEventListener("pagehide", finish);
    const stopListening = onSignOut(finish);
    return () => {
      window.removeEventListener("pagehide", finish);
      stopListening();
    };
  }, [finish]);
  useEffect(() => {
    if (!pendingDeletion) return;
    const undo = setTimeout(finish, UNDO_MS);
    return () => clearTimeout(undo);
  }, [pendingDeletion, finish]);

  return {
    sessions: sessions?.filter(({ id }) => id !== pendingDeletion?.id && !deleted.current.has(id)) ?? null,
    running,
    more,
    pendingDeletion,
    loadMore: () => {
      pages.current++;
      reload(0);
    },
    remove: (session: Session) => {
      finish();
      setPendingDeletion(session);
    },
    undo: () => setPendingDeletion(null),
    place: async (session: Session, place: Place) => {
      await api.place(session.id, place).catch(() => undefined);
      broadcastSessionsChanged();
    },
    rename: async (session: Session, title: string) => {
      setSessions((old) => old?.map((one) => (one.id === session.id ? { ...one, title } : one)) ?? null);
      await api.rename(session.id, title).then(
        () => anonymousSessions().some(({ id }) => id === session.id) && rememberSession({ ...session, title }),
        () => undefined,
      );
      broadcastSessionsChanged();
    },
  };
}
