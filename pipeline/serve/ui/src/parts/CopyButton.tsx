import { useState } from "preact/hooks";

/** Copies a text, or one that is made when it is asked for. what: the button's name. */
export function CopyButton(props: { text: string | (() => Promise<string>); what: string; class?: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await writeClipboard(typeof props.text === "string" ? props.text : await props.text());
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" class={props.class ?? "quiet"} onClick={copy}>
      {copied ? "Copied" : props.what}
    </button>
  );
}

/** Also where the page is not on https or localhost, and the browser's clipboard is closed. */
export async function writeClipboard(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
