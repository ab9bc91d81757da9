// Loads parts of the page when they are first needed. React and the browser keep no second try for a part that could not
// be loaded, so a network that is lost at that moment would leave the page without it, or with an error in its place.
import { lazy, type ComponentType, type LazyExoticComponent } from "react";

const PAUSES = [1, 2, 4, 8, 15, 30, 60, 60, 60, 60]; // seconds between two tries

export async function untilLoaded<T>(load: () => Promise<T>, pauses = PAUSES): Promise<T> {
  for (const pause of pauses) {
    try {
      return await load();
    } catch {
      await passed(pause);
    }
  }
  return load();
}

// A part without which the page works: if it cannot be loaded, there is nothing in its place.
export function optional<C extends ComponentType<any>>(load: () => Promise<{ default: C }>): LazyExoticComponent<C> {
  return lazy(() => untilLoaded(load).catch(() => ({ default: (() => null) as unknown as C })));
}

// Resolves after that time, or when the network is back.
function passed(seconds: number): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    addEventListener("online", end);
  });
}
