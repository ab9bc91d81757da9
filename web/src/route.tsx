// Where the page is: /, /c/{session}, /library, /library/agents/{id}.
import { useSyncExternalStore, type AnchorHTMLAttributes } from "react";

export type Route =
  | { view: "conversation"; session: string | null }
  | { view: "library" }
  | { view: "agent"; agent: string };

const moved = new EventTarget();

export function navigate(to: string, options: { replace?: boolean } = {}) {
  if (options.replace) history.replaceState(null, "", to);
  else if (to !== location.pathname + location.search) history.pushState(null, "", to);
  moved.dispatchEvent(new Event("moved"));
}

const address = () => location.pathname + location.search;

function onMoved(listener: () => void) {
  moved.addEventListener("moved", listener);
  window.addEventListener("popstate", listener);
  return () => {
    moved.removeEventListener("moved", listener);
    window.removeEventListener("popstate", listener);
  };
}

export function useRoute(): Route {
  return routeOf(useSyncExternalStore(onMoved, address));
}

export function routeOf(at: string): Route {
  const url = new URL(at, location.origin);
  const session = /^\/c\/([A-Za-z0-9_-]{16,64})$/.exec(url.pathname)?.[1];
  const named = /^\/library\/agents\/([^/]+)$/.exec(url.pathname)?.[1];
  const agent = named === undefined ? url.searchParams.get("flowID") : decoded(named);
  if (agent) return { view: "agent", agent };
  if (url.pathname.startsWith("/library")) return { view: "library" };
  return { view: "conversation", session: session ?? null };
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
