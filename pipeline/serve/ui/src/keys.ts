/** The keyboard: views register what keys do while they are shown, and `?` lists it. */
import { useLayoutEffect } from "preact/hooks";

export interface Key {
  /** As KeyboardEvent.key has it, with "ctrl+" before it where that is held; two after another with a space: "g e". */
  readonly keys: string;
  readonly does: string;
  readonly run: () => void;
  /** Counts while a text field has the focus, too. */
  readonly always?: boolean;
  /** Counts while a dialog is open, too. */
  readonly overDialogs?: boolean;
}

interface Group {
  readonly title: string;
  keys: readonly Key[];
}

const SEQUENCE_MS = 1200;
const groups: Group[] = [];
let begun = "";
let begunAt = 0;

/** What keys do now, group by group: the newest first. */
export function keyGroups(): readonly Group[] {
  return [...groups].reverse();
}

/** Keys of a view, as long as it is shown. */
export function useKeys(title: string, keys: readonly Key[]): void {
  useLayoutEffect(() => {
    const group: Group = { title, keys };
    groups.push(group);
    return () => {
      groups.splice(groups.indexOf(group), 1);
    };
  });
}

export function listenToKeys(): void {
  addEventListener("keydown", pressed);
}

function pressed(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.altKey || event.isComposing) return;
  const held = event.ctrlKey || event.metaKey ? "ctrl+" : "";
  const name = held + event.key;
  if (isPressing(name, event.target)) return;
  const sequence = begun && event.timeStamp - begunAt < SEQUENCE_MS ? `${begun} ${name}` : "";
  const writing = isWriting(event.target);
  const covered = document.querySelector("dialog[open]") !== null; // what is below it does not listen
  const known = keyGroups().flatMap((group) => group.keys).filter((key) => key.always || (!writing && (!covered || key.overDialogs)));
  const meant = (keys: string) => known.filter((key) => key.keys === keys).sort((a, b) => Number(a.always ?? false) - Number(b.always ?? false))[0];
  const found = meant(sequence) ?? meant(name);
  begun = "";
  if (found) {
    event.preventDefault();
    found.run();
  } else if (known.some((key) => key.keys.startsWith(`${name} `))) {
    begun = name;
    begunAt = event.timeStamp;
  }
}

/** Enter and Space press the button or link that has the focus. */
function isPressing(key: string, target: EventTarget | null): boolean {
  return (key === "Enter" || key === " ") && !!(target as Element | null)?.closest?.("a, button, summary");
}

function isWriting(target: EventTarget | null): boolean {
  const element = target as HTMLElement | null;
  if (element instanceof HTMLInputElement && element.type === "checkbox") return false;
  return !!element && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName ?? ""));
}
