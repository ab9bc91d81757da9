// What is written and not sent, in this tab: it survives a reload.
const keyOf = (name: string) => `copilot.draft:${name}`;

export const draftOf = (name: string) => sessionStorage.getItem(keyOf(name)) ?? "";

export function keepDraft(name: string, text: string) {
  if (text) sessionStorage.setItem(keyOf(name), text);
  else sessionStorage.removeItem(keyOf(name));
}

export const addToDraft = (name: string, text: string) =>
  keepDraft(name, [draftOf(name), text].filter(Boolean).join("\n\n"));
