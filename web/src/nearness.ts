// Tells what stands in a scroll box whether it is near what is seen. One comes near in a frame: tasks stay short, and the
// browser has kept the place for one before the next changes it.
import type { RefObject } from "react";

export type Watch = (element: Element, tell: (near: boolean) => void) => () => void;

export function nearness(box: RefObject<Element | null>): Watch {
  const watched = new Map<Element, (near: boolean) => void>();
  const news = new Map<Element, boolean>();
  let telling = false;
  let observer: IntersectionObserver | undefined;

  const tellAll = async () => {
    if (telling) return;
    telling = true;
    for (const [element, near] of news) {
      news.delete(element);
      watched.get(element)?.(near);
      if (near) await new Promise(requestAnimationFrame);
    }
    telling = false;
  };

  return (element, tell) => {
    observer ??= new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) news.set(target, isIntersecting);
      void tellAll();
    }, { root: box.current, rootMargin: "100% 0px" });
    watched.set(element, tell);
    observer.observe(element);
    return () => {
      watched.delete(element);
      observer?.unobserve(element);
    };
  };
}
