import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { Boundary } from "./Boundary";
import { Conversation } from "./conversation/Conversation";
import { isNotCreatedYet } from "./conversation/outbox";
import { Icon } from "./Icon";
import { newId } from "./ids";
import { useCurrentTitle } from "./pageTitle";
import { Link, navigate, useRoute } from "./route";
import { Sidebar } from "./sidebar/Sidebar";
import { untilLoaded } from "./loading";

const Library = lazy(() => untilLoaded(() => import("./library/Library")).then((file) => ({ default: file.Library })));
const AgentPage = lazy(() => untilLoaded(() => import("./library/AgentPage")).then((file) => ({ default: file.AgentPage })));

export function App() {
  const route = useRoute();
  const [sidebar, setSidebar] = useState(false);
  const [newSession, setNewSession] = useState(() => newId());
  const openSession = route.view === "conversation" ? route.session : null;
  // At once, so that no text is typed into the old conversation.
  if (openSession === null && started.has(newSession)) setNewSession(newId());
  const session = openSession ?? newSession;
  const message = route.view === "conversation" ? route.message : null;

  useEffect(() => setSidebar(false), [openSession, route.view]);
  useEffect(() => {
    if (!sidebar) return;
    document.querySelector<HTMLElement>(".sidebar .close")?.focus();
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && setSidebar(false);
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [sidebar]);
  const onStarted = useCallback((id: string) => {
    started.add(id);
    navigate(`/c/${id}`, { replace: true });
  }, []);
  const onRefused = useCallback((id: string) => {
    started.delete(id);
    setNewSession(id); // keeps the conversation mounted, with its text
    if (location.pathname === `/c/${id}`) navigate("/", { replace: true });
  }, []);

  // Without the message in the address: a reload shows the newest messages, and the same hit can be opened again.
  const onMessageShown = useCallback(() => navigate(location.pathname, { replace: true }), []);

  return (
    <div className={sidebar ? "app with-sidebar" : "app"}>
      <a className="skip" href="#main">Skip to the conversation</a>
      <Sidebar current={openSession} onClose={() => setSidebar(false)} />
      <button type="button" className="veil" tabIndex={-1} aria-hidden="true" onClick={() => setSidebar(false)} />
      <main id="main">
        <div className="bar-above">
          <button type="button" className="quiet" aria-label="Open the sidebar" title="Conversations" onClick={() => setSidebar(true)}>
            <Icon name="menu" />
          </button>
          <CurrentTitle />
          <Link href="/" className="button quiet" aria-label="New conversation" title="New conversation"><Icon name="plus" /></Link>
        </div>
        <Boundary key={route.view} instead={<Lost />}>
          <Suspense fallback={<div className="scroll" />}>
            {route.view === "conversation" && (
              <Conversation key={session} session={session} isNew={openSession === null || isNotCreatedYet(openSession)}
                message={message} onMessageShown={onMessageShown} onStarted={onStarted} onRefused={onRefused} />
            )}
            {route.view === "library" && <Library />}
            {route.view === "agent" && <AgentPage key={route.agent} id={route.agent} />}
          </Suspense>
        </Boundary>
      </main>
    </div>
  );
}

function CurrentTitle() {
  const title = useCurrentTitle();
  return title ? <span className="name">{title}</span> : <Link href="/" className="brand">CoPilot</Link>;
}

const Lost = () => (
  <div className="scroll center">
    <h1>This page could not be shown</h1>
    <p><button type="button" onClick={() => location.reload()}>Reload the page</button></p>
  </div>
);

// The ids of conversations that were started on this page.
const started = new Set<string>();
