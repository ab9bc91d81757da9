// The list of sessions, kept up to date by what the feed and this page say of them.
import { Refused } from "@copilot-chat/resumable";
import { useCallback, useEffect, useRef, useState } from "react";
import { api, type Session } from "./api";
import { listen } from "./feed";
import { forget, knownSessions, remember } from "./known";
import { announce, onSessions } from "./news";
import { patiently } from "./patience";
import { onSignOut } from "./token";

const UNDO = 6_000;
const CHANGES = new Set(["snapshot", "turn-started", "turn-finished", "title-changed", "session-deleted"]);

const DELETING = 600_000; // with a server that is away so long it was not deleted, and is listed again

const isMissing = (failure: unknown) => failure instanceof Refused && failure.status === 404;

export function useSessions(wanted: string) {
  const [sessions, setSessions] = useState<Session[] | null>(null);
  const [more, setMore] = useState(false);
  const [running, setRunning] = useState<ReadonlySet<string>>(new Set());
  const [leaving, setLeaving] = useState<Session | null>(null);
  const timer = useRef(0);
  const pages = useRef(1);
  const deleted = useRef(new Set<string>()); // here; the server may hear of it later
  const asked = useRef(wanted);
  asked.current = wanted;

  const load = useCallback(async () => {
    const found = await Promise.all(Array.from({ length: pages.current }, (_, page) => api.sessions(wanted, page * 50)));
    if (asked.current !== wanted) return; // what is looked for now is on its way
    const listed = new Map(found.flatMap((page) => page.sessions).map((session) => [session.id, session]));
    const local = knownSessions().filter(({ title }) => (title ?? "").toLowerCase().includes(wanted.toLowerCase()));
    for (const session of local) if (!listed.has(session.id)) listed.set(session.id, session);
    setSessions([...listed.values()].sort((a, b) => b.updated_at.localeCompare(a.updated_at)));
    setMore((found[0]?.total ?? 0) > pages.current * 50);
  }, [wanted]);
  const soon = useCallback((delay = 120) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => void load().catch(() => undefined), delay);
  }, [load]);

  useEffect(() => {
    soon(wanted ? 150 : 0);
    return () => clearTimeout(timer.current);
  }, [soon, wanted]);
  useEffect(() => onSessions(() => soon()), [soon]);
  useEffect(() => listen((event) => {
    if (event.type === "snapshot") setRunning(new Set(event.turns?.map((turn) => turn.session_id)));
    if (event.type === "turn-started") setRunning((old) => new Set(old).add(event.session_id!));
    if (event.type === "turn-finished") setRunning((old) => new Set([...old].filter((id) => id !== event.session_id)));
    if (CHANGES.has(event.type)) soon();
  }), [soon]);

  const last = useRef(leaving);
  last.current = leaving;
  const finish = useCallback(() => {
    const session = last.current;
    if (!session) return;
    last.current = null;
    setLeaving(null);
    deleted.current.add(session.id);
    const gone = () => forget(session.id);
    const failed = (failure: unknown) => void (isMissing(failure) ? gone() : deleted.current.delete(session.id));
    void patiently(() => api.remove(session.id), AbortSignal.timeout(DELETING)).then(gone, failed).then(announce);
  }, []);
  useEffect(() => {
    window.addEventListener("pagehide", finish);
    const stay = onSignOut(finish);
    return () => {
      window.removeEventListener("pagehide", finish);
      stay();
    };
  }, [finish]);
  useEffect(() => {
    if (!leaving) return;
    const undo = setTimeout(finish, UNDO);
    return () => clearTimeout(undo);
  }, [leaving, finish]);

  return {
    sessions: sessions?.filter(({ id }) => id !== leaving?.id && !deleted.current.has(id)) ?? null,
    running,
    more,
    leaving,
    loadMore: () => {
      pages.current++;
      soon(0);
    },
    remove: (session: Session) => {
      finish();
      setLeaving(session);
    },
    undo: () => setLeaving(null),
    rename: async (session: Session, title: string) => {
      setSessions((old) => old?.map((one) => (one.id === session.id ? { ...one, title } : one)) ?? null);
      await api.rename(session.id, title).then(
        () => knownSessions().some(({ id }) => id === session.id) && remember({ ...session, title }),
        () => undefined,
      );
      announce();
    },
  };
}
