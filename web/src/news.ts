// Says in this tab that the list of sessions may have changed.
const news = new EventTarget();

export const announce = () => void news.dispatchEvent(new Event("sessions"));

export function onSessions(listener: () => void): () => void {
  news.addEventListener("sessions", listener);
  return () => news.removeEventListener("sessions", listener);
}
