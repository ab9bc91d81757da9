// Tells what stands in a scroll box whether it is near what is seen. One is told in a task, so that each task stays short.
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
      if (near) await new Promise((resolve) => setTimeout(resolve));
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
