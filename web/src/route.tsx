// The page's routes: /, /c/{session} (with ?message={id}: at that message), /library, /library/agents/{id} and /build?flowID={id}.
import { useSyncExternalStore, type AnchorHTMLAttributes } from "react";

export type Route =
  | { view: "conversation"; session: string | null; message: string | null }
  | { view: "library" }
  | { view: "agent"; agent: string };

const routeEvents = new EventTarget();

export function navigate(to: string, options: { replace?: boolean } = {}) {
  if (options.replace) history.replaceState(null, "", to);
  else if (to !== location.pathname + location.search) history.pushState(null, "", to);
  routeEvents.dispatchEvent(new Event("moved"));
}

const address = () => location.pathname + location.search;

function onRouteChanged(listener: () => void) {
  routeEvents.addEventListener("moved", listener);
  window.addEventListener("popstate", listener);
  return () => {
    routeEvents.removeEventListener("moved", listener);
    window.removeEventListener("popstate", listener);
  };
}

export function useRoute(): Route {
  return routeOf(useSyncExternalStore(onRouteChanged, address));
}

export function routeOf(at: string): Route {
  const url = new URL(at, location.origin);
  const session = /^\/c\/([A-Za-z0-9_-]{16,64})$/.exec(url.pathname)?.[1];
  const agentPart = /^\/library\/agents\/([^/]+)$/.exec(url.pathname)?.[1];
  const agent = agentPart === undefined ? url.searchParams.get("flowID") : decoded(agentPart);
  if (agent) return { view: "agent", agent };
  if (url.pathname.startsWith("/library")) return { view: "library" };
  return { view: "conversation", session: session ?? null, message: url.searchParams.get("message") };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function Link({ href, onClick, ...rest }: AnchorHTMLAttributes<HTMLAnchorElement> & { href: string }) {
  return (
    <a
      href={href}
      onClick={(event) => {
        onClick?.(event);
        if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
        event.preventDefault();
        navigate(href);
      }}
      {...rest}
    />
  );
}
