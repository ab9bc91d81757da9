import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { Boundary } from "./Boundary";
import { Conversation } from "./Conversation";
import { Icon } from "./Icon";
import { newId } from "./ids";
import { useName } from "./naming";
import { waitsToBegin } from "./outbox";
import { Link, navigate, useRoute } from "./route";
import { Sidebar } from "./Sidebar";

const Library = lazy(() => import("./Library").then((file) => ({ default: file.Library })));
const AgentPage = lazy(() => import("./Library").then((file) => ({ default: file.AgentPage })));

export function App() {
  const route = useRoute();
  const [sidebar, setSidebar] = useState(false);
  const [fresh, setFresh] = useState(() => newId());
  const named = route.view === "conversation" ? route.session : null;
  if (named === null && begun.has(fresh)) setFresh(newId()); // at once, so that nothing is written into the old one
  const session = named ?? fresh;

  useEffect(() => setSidebar(false), [named, route.view]);
  useEffect(() => {
    if (!sidebar) return;
    document.querySelector<HTMLElement>(".sidebar .close")?.focus();
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && setSidebar(false);
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [sidebar]);
  const onBegun = useCallback((id: string) => {
    begun.add(id);
    navigate(`/c/${id}`, { replace: true });
  }, []);
  const onRefused = useCallback((id: string) => {
    begun.delete(id);
    setFresh(id); // what it holds stays on the page
    if (location.pathname === `/c/${id}`) navigate("/", { replace: true });
  }, []);

  return (
    <div className={sidebar ? "app with-sidebar" : "app"}>
      <a className="skip" href="#main">Skip to the conversation</a>
      <Sidebar current={named} onClose={() => setSidebar(false)} />
      <button type="button" className="veil" tabIndex={-1} aria-hidden="true" onClick={() => setSidebar(false)} />
      <main id="main">
        <div className="bar-above">
          <button type="button" className="quiet" aria-label="Open the sidebar" onClick={() => setSidebar(true)}>
            <Icon name="menu" />
          </button>
          <Name />
          <Link href="/" className="button quiet" aria-label="New conversation"><Icon name="plus" /></Link>
        </div>
        <Boundary key={route.view} instead={<Lost />}>
          <Suspense fallback={<div className="scroll" />}>
            {route.view === "conversation" && (
              <Conversation key={session} session={session} isNew={named === null || waitsToBegin(named)} onBegun={onBegun}
                onRefused={onRefused} />
            )}
            {route.view === "library" && <Library />}
            {route.view === "agent" && <AgentPage key={route.agent} id={route.agent} />}
          </Suspense>
        </Boundary>
      </main>
    </div>
  );
}

function Name() {
  const name = useName();
  return name ? <span className="name">{name}</span> : <Link href="/" className="brand">CoPilot</Link>;
}

const Lost = () => (
  <div className="scroll center">
    <h1>This could not be shown</h1>
    <p><button type="button" onClick={() => location.reload()}>Load the page again</button></p>
  </div>
);

// The ids of conversations that were begun on this page.
const begun = new Set<string>();
