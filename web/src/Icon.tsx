const paths = {
  again: "M4 12a8 8 0 1 1 2.3 5.6M4 12V7m0 5h5",
  agent: "M7 4h10v6H7zM4 16h6v4H4zM14 16h6v4h-6zM12 10v3M7 16v-3h10v3",
  arrow: "M12 19V5m-6 6 6-6 6 6",
  bell: "M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15zM10 20.5h4",
  check: "m5 13 4 4L19 7",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  down: "M12 5v14m-6-6 6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16z",
  gear: "M14 6a4 4 0 0 0-5 5l-6 6 3 3 6-6a4 4 0 0 0 5-5l-2 2-3-1-1-3z",
  left: "m15 5-7 7 7 7",
  library: "M4 4h4v16H4zM10 4h4v16h-4zM16 5l3.5-1L22 19l-3.5 1z",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M5 12h.1M12 12h.1M19 12h.1",
  moon: "M20 14A8 8 0 0 1 10 4a8 8 0 1 0 10 10z",
  paperclip: "m20 11-8.5 8.5a5 5 0 0 1-7-7L13 4a3.4 3.4 0 0 1 5 5l-8.5 8.5a1.7 1.7 0 0 1-2.5-2.5L14.5 7.5",
  plus: "M12 5v14M5 12h14",
  right: "m9 5 7 7-7 7",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zm5 12 4 4",
  stop: "M7 7h10v10H7z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2m0 16v2M2 12h2m16 0h2M5 5l1.5 1.5m11 11L19 19M19 5l-1.5 1.5m-11 11L5 19",
  thumbDown: "M7 14V4h9.5l2.5 6v4h-5.5l1 5.5-1.5.5L8.5 14zM7 4H3.5v10H7",
  thumbUp: "M7 10v10h9.5l2.5-6v-4h-5.5l1-5.5-1.5-.5L8.5 10zM7 20H3.5V10H7",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  warn: "M12 4 2.5 20h19zM12 10v4m0 3v.1",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className={`icon icon-${name}`} viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" strokeWidth="1.75"
      strokeLinecap="round" strokeLinejoin="round">
      <path d={paths[name]} />
    </svg>
  );
}
