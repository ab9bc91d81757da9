import "./noEval"; // must come before any module that uses zod
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { ConversationStore } from "./conversation/ConversationStore";
import { isNotCreatedYet, unsentSessions } from "./conversation/outbox";
import { loadParser } from "./markdown/parser";
import { routeOf } from "./route";
import "./styles.css";

void loadParser();
void import("./keyboard/keys").then(({ listen }) => listen(), () => undefined); // the page works without them
createRoot(document.getElementById("page")!).render(<App />);

// Sends the messages of other conversations that this tab had not sent before it was reloaded.
const shown = routeOf(location.href);
for (const session of unsentSessions()) {
  const isShown = shown.view === "conversation" && shown.session === session;
  if (!isShown) new ConversationStore(session, isNotCreatedYet(session)).sendUnsent();
}
