// Plays stories with the real AI SDK clients. Reads one JSON job per line from stdin: the fields that lib/story.mjs
// lists, and an `id` of the caller. Writes one JSON report per line to stdout, in the order in which the stories end.
// Ends when stdin does.
import { createInterface } from 'node:readline';
import { playStory } from './lib/story.mjs';

async function answer(line) {
  const job = JSON.parse(line);
  const report = await playStory(job).catch((error) => ({ faults: [`the driver failed: ${error.stack}`], tabs: {}, results: [] }));
  process.stdout.write(`${JSON.stringify({ id: job.id, ...report })}\n`);
}

const running = new Set();
for await (const line of createInterface({ input: process.stdin })) {
  const job = answer(line).finally(() => running.delete(job));
  running.add(job);
}
await Promise.all(running);
