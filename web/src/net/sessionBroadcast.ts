// Notifies this tab that the list of sessions may have changed.
const sessionEvents = new EventTarget();

export const broadcastSessionsChanged = () => void sessionEvents.dispatchEvent(new Event("sessions"));

export function onSessionsChanged(listener: () => void): () => void {
  sessionEvents.addEventListener("sessions", listener);
  return () => sessionEvents.removeEventListener("sessions", listener);
}
