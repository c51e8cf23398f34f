/** The query as text: coloured, completed, with its error underlined where it is. */
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ApiError } from "../api/client";
import { errorOffset, oneLine, tokens } from "../query";
import type { Range } from "../range";
import { rememberQuery } from "./recent";
import { suggestionsFor } from "./suggestions";
import { type Wanted, endOfTyped, wantedAt } from "./wanted";

interface Props {
  readonly query: string;
  readonly error: ApiError | undefined;
  readonly range: Range;
  readonly run: (query: string) => void;
  readonly placeholder?: string;
  readonly action?: string;
}

interface Open {
  readonly items: readonly string[];
  readonly wanted: Wanted;
  readonly at: number;
}

export function QueryBox({ query, error, range, run, placeholder, action }: Props) {
  const [text, setText] = useState(() => oneLine(query));
  const [open, setOpen] = useState<Open | null>(null);
  const area = useRef<HTMLInputElement>(null);
  const turn = useRef(0);
  const id = useId();
  useLayoutEffect(() => setText(oneLine(query)), [query]); // before the next key comes

  const suggest = async () => {
    const mine = ++turn.current;
    const caret = area.current!.selectionStart ?? area.current!.value.length;
    const wanted = wantedAt(area.current!.value, caret);
    const items = await suggestionsFor(wanted, { start: range.fromS, end: range.toS }).catch(() => []);
    if (mine === turn.current) setOpen(items.length ? { items, wanted, at: -1 } : null);
  };
  const close = () => {
    turn.current++;
    setOpen(null);
  };
  const take = (item: string, { wanted }: Open) => {
    const element = area.current!;
    const after = element.value.slice(endOfTyped(element.value, wanted, element.selectionStart ?? element.value.length));
    const space = /[\s({}]$/.test(item) ? "" : " ";
    const changed = element.value.slice(0, wanted.from) + item + space;
    // At once, not with the next rendering: the next key may come before it
    element.value = changed + after.replace(/^ /, "");
    element.focus();
    element.setSelectionRange(changed.length, changed.length);
    setText(element.value);
    void suggest();
  };
  const submit = (value: string) => {
    close();
    rememberQuery(value.trim());
    run(value.trim());
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey || !open || open.at < 0) && !event.shiftKey) {
      event.preventDefault();
      submit(text);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      close();
    } else if ((event.key === " " && event.ctrlKey) || (event.key === "ArrowDown" && !open)) {
      event.preventDefault();
      void suggest();
    } else if (open) {
      inList(event, open);
    }
  };
  const inList = (event: KeyboardEvent, list: Open) => {
    const count = list.items.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      setOpen({ ...list, at: list.at < 0 && step < 0 ? count - 1 : (list.at + step + count) % count });
    } else if ((event.key === "Tab" && !event.shiftKey) || event.key === "Enter") {
      event.preventDefault();
      take(list.items[Math.max(0, list.at)]!, list);
    }
  };
  const offset = error?.status === 400 && text === oneLine(query) ? placeOf(query, error.message) : null;

  return (
    <div class="query">
      <div class="query-field">
        <pre class="query-colours" aria-hidden="true">
          {coloured(text, offset)}
          {"\n"}
        </pre>
        <input
          ref={area}
          id="query"
          class="mono"
          value={text}
          aria-label="TraceQL query"
          placeholder={placeholder ?? "{ status = error && duration > 100ms }   all traces while empty"}
          role="combobox"
          aria-autocomplete="list"
          aria-expanded={open !== null}
          aria-controls={id}
          {...(open && open.at >= 0 ? { "aria-activedescendant": `${id}-${open.at}` } : {})}
          aria-invalid={offset !== null}
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          onInput={(event) => {
            setText(event.currentTarget.value);
            void suggest();
          }}
          onKeyDown={pressed}
          onBlur={() => setTimeout(close, 150)}
          onScroll={(event) => {
            (event.currentTarget.previousElementSibling as HTMLElement).scrollLeft = event.currentTarget.scrollLeft;
          }}
        />
        <ul id={id} role="listbox" class="suggestions" aria-label="Suggestions" hidden={!open}>
          {open?.items.map((item, at) => (
            <li
              key={item}
              id={`${id}-${at}`}
              role="option"
              aria-selected={at === open.at}
              onMouseDown={(event) => {
                event.preventDefault();
                take(item, open);
              }}
            >
              {item.length > 120 ? `${item.slice(0, 120)}…` : item}
            </li>
          ))}
        </ul>
      </div>
      <button
        type="button"
        class="primary"
        onClick={(event) => {
          submit(text);
          if (event.detail) event.currentTarget.blur(); // pressed by the mouse: Space and Enter are the view's again
        }}
      >
        {action ?? "Search"}
      </button>
    </div>
  );
}

/** Where in the query an error is; null where it is in what was asked around it. */
function placeOf(query: string, sentence: string): number | null {
  const offset = errorOffset(query, sentence);
  return offset !== null && offset <= query.length ? offset : null;
}

function coloured(text: string, wrongAt: number | null) {
  const parts = [];
  let done = 0;
  for (const token of tokens(text)) {
    if (token.at > done) parts.push(text.slice(done, token.at));
    done = token.at + token.text.length;
    const wrong = wrongAt !== null && wrongAt >= token.at && wrongAt < done ? " wrong" : "";
    parts.push(
      <span key={token.at} class={`token-${token.kind}${wrong}`}>
        {token.text}
      </span>,
    );
  }
  parts.push(text.slice(done));
  if (wrongAt !== null && wrongAt >= done) parts.push(<span class="wrong">{" "}</span>);
  return parts;
}
