// Timings of tests, which grow where other work keeps the cores busy.
import { availableParallelism, loadavg } from 'node:os';

const slowness = Math.min(10, Math.max(1, (2 * loadavg()[0]) / availableParallelism()));

/** A client's timings. A silence of `idleMs` must be longer than a busy machine needs for an answer. */
export const FAST = { minDelayMs: 5, maxDelayMs: 40, idleMs: 300 * slowness };

/** The options of a test: how long it may take. */
export const LIMIT = { timeout: 20_000 * slowness };
