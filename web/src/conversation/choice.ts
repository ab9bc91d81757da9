// The model and the effort that the user chose and has not used yet. They survive a reload, as a draft does.
export interface Choice {
  model: string;
  effort?: string; // missing: the model's usual effort
}

const keyOf = (name: string) => `copilot.choice:${name}`;

export function choiceOf(name: string): Choice | null {
  return JSON.parse(sessionStorage.getItem(keyOf(name)) ?? "null") as Choice | null;
}

export function saveChoice(name: string, choice: Choice | null) {
  if (choice) sessionStorage.setItem(keyOf(name), JSON.stringify(choice));
  else sessionStorage.removeItem(keyOf(name));
}
