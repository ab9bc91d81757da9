// Tells elements of a scroll box when they come near the viewport and when they leave. At most one element comes near
// per frame: tasks stay short, and the browser has corrected the scroll position for one before the next one changes
// it.
import type { RefObject } from "react";

export type Watch = (element: Element, notify: (near: boolean) => void) => () => void;

export function nearViewport(box: RefObject<Element | null>): Watch {
  const watched = new Map<Element, (near: boolean) => void>();
  const changes = new Map<Element, boolean>();
  let notifying = false;
  let observer: IntersectionObserver | undefined;

  const notifyAll = async () => {
    if (notifying) return;
    notifying = true;
    for (const [element, near] of changes) {
      changes.delete(element);
      watched.get(element)?.(near);
      if (near) await new Promise(requestAnimationFrame);
    }
    notifying = false;
  };

  return (element, notify) => {
    observer ??= new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) changes.set(target, isIntersecting);
      void notifyAll();
    }, { root: box.current, rootMargin: "100% 0px" });
    watched.set(element, notify);
    observer.observe(element);
    return () => {
      watched.delete(element);
      observer?.unobserve(element);
    };
  };
}
