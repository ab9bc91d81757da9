// The keyboard shortcuts of the page, and the list of them. Each one does what a button on the page does.
import { navigate } from "../route";

interface Shortcut {
  keys: string; // as the list shows them
  does: string;
  is: (event: KeyboardEvent) => boolean;
  act: () => void;
}

const find = (selector: string) => document.querySelector<HTMLElement>(selector);
const isShown = (element: HTMLElement | null) => element !== null && element.getClientRects().length > 0;
const withCtrl = (event: KeyboardEvent) => (event.ctrlKey || event.metaKey) && !event.altKey;
const command = /Mac|iP/.test(navigator.platform) ? "⌘" : "Ctrl";

const SHORTCUTS: Shortcut[] = [
  { keys: `${command}+Shift+O`, does: "New conversation", is: (e) => withCtrl(e) && e.shiftKey && e.code === "KeyO", act: () => navigate("/") },
  { keys: `${command}+K`, does: "Search", is: (e) => withCtrl(e) && !e.shiftKey && e.code === "KeyK", act: search },
  { keys: "Shift+Esc", does: "To the message box", is: (e) => e.shiftKey && e.key === "Escape", act: () => find(".composer textarea")?.focus() },
  { keys: `${command}+.`, does: "Stop the answer", is: (e) => withCtrl(e) && e.key === ".", act: () => find('.composer [aria-label="Stop"]')?.click() },
  { keys: `${command}+Shift+C`, does: "Copy the last answer", is: (e) => withCtrl(e) && e.shiftKey && e.code === "KeyC", act: copy },
  { keys: "?", does: "This list", is: (e) => e.key === "?" && !isWriting(e.target), act: list },
  { keys: `${command}+/`, does: "This list, from the message box", is: (e) => withCtrl(e) && e.key === "/", act: list },
];
const IN_THE_BOX = [["Enter", "Send, or queue while an answer runs"], ["Shift+Enter", "New line"], [`${command}+Enter`, "Send for the running answer"]];

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing || document.querySelector("dialog[open]")) return;
    const shortcut = SHORTCUTS.find((one) => one.is(event));
    if (!shortcut) return;
    event.preventDefault();
    shortcut.act();
  });
}

const isWriting = (target: EventTarget | null) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(?:INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

function search() {
  const opener = find('.bar-above [aria-label="Open the sidebar"]');
  if (isShown(opener)) opener!.click();
  requestAnimationFrame(() => find(".sidebar .search input")?.focus());
}

function copy() {
  const buttons = document.querySelectorAll<HTMLElement>('[aria-label="Copy answer"]');
  buttons[buttons.length - 1]?.click();
}

function list() {
  const dialog = document.createElement("dialog");
  const title = Object.assign(document.createElement("h2"), { id: "shortcuts", textContent: "Keyboard shortcuts" });
  const rows = document.createElement("dl");
  for (const [keys, does] of [...SHORTCUTS.map(({ keys, does }) => [keys, does]), ...IN_THE_BOX]) {
    rows.append(
      Object.assign(document.createElement("dt"), { textContent: keys }),
      Object.assign(document.createElement("dd"), { textContent: does }),
    );
  }
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close", onclick: () => dialog.close() });
  dialog.className = "shortcuts";
  dialog.setAttribute("aria-labelledby", title.id);
  dialog.append(title, rows, close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
