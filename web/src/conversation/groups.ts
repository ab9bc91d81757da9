// Splits a conversation into groups of messages. Each group is rendered or left out as a whole. Existing groups stay
// the same when messages are added before or after them.
import type { ShownMessage } from "./shown";

const SIZE = 8;

export function grouped(messages: ShownMessage[], before: ShownMessage[][]): ShownMessage[][] {
  const old = new Map(before.map((group) => [group[0]!.message.id, group]));
  const known = messages.findIndex(({ message }) => old.has(message.id));
  // New messages in front are grouped from their end, so the first group may be short.
  const short = (known < 0 ? messages.length : known) % SIZE;
  const groups: ShownMessage[][] = [];
  messages.forEach((one, place) => {
    const full = groups.at(-1)?.length === SIZE;
    if (place === 0 || place === short || full || old.has(one.message.id)) groups.push([one]);
    else groups.at(-1)!.push(one);
  });
  return groups.map((group) => {
    const same = old.get(group[0]!.message.id);
    return same?.length === group.length && same.every((one, place) => one === group[place]) ? same : group;
  });
}
