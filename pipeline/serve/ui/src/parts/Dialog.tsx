/** A modal dialog: the browser's own, which keeps the focus inside and closes by Escape. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    element.current?.showModal();
  }, []);
  const outside = (event: MouseEvent) => event.target === element.current && props.close();
  return (
    <dialog ref={element} aria-label={props.title} onClose={props.close} onClick={outside}>
      <div class="dialog">
        <div class="dialog-head">
          <h2>{props.title}</h2>
          <button type="button" class="quiet" onClick={props.close}>
            Close
          </button>
        </div>
        {props.children}
      </div>
    </dialog>
  );
}
