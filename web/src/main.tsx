import "./noEval"; // before anything that would
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { waitingSessions, waitsToBegin } from "./outbox";
import { routeOf } from "./route";
import "./styles.css";
import { Talk } from "./talk";

createRoot(document.getElementById("page")!).render(<App />);

// What this tab had sent in other conversations before it was reloaded goes out as well.
const shown = routeOf(location.href);
for (const session of waitingSessions())
  if (shown.view !== "conversation" || shown.session !== session) new Talk(session, waitsToBegin(session)).catchUp();
