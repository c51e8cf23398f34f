/** How the API is asked: the same routes that a script would use, with tenant and token where they are set. */
import { remember, remembered } from "../theme";

const TENANT = "spanstream.tenant";
const TOKEN = "spanstream.token";
export const REFUSED = "spanstream.refused"; // an event: the server wants a tenant or a token

/** An answer that is none, as a sentence. status 0: nobody answered. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    sentence: string,
  ) {
    super(sentence);
  }
}

export interface Access {
  readonly tenant: string;
  readonly token: string;
}

export function access(): Access {
  return { tenant: remembered(TENANT), token: remembered(TOKEN) };
}

export function setAccess(given: Access): void {
  remember(TENANT, given.tenant.trim());
  remember(TOKEN, given.token.trim());
}

/** Parameters of a question; undefined and "" are left out. */
export type Params = Readonly<Record<string, string | number | undefined>>;

export function apiUrl(path: string, params: Params = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== "") query.set(name, `${value}`);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The headers that say who asks. */
export function accessHeaders(): Record<string, string> {
  const { tenant, token } = access();
  return {
    ...(tenant && { "X-Scope-OrgID": tenant }),
    ...(token && { Authorization: `Bearer ${token}` }),
  };
}

/** The raw answer. Throws ApiError for everything but 2xx, and DOMException where it was given up. */
export async function fetchApi(path: string, params: Params = {}, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(apiUrl(path, params), {
      ...init,
      headers: { Accept: "application/json", ...accessHeaders(), ...(init.headers as Record<string, string>) },
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The querier does not answer. Is it running? `spanstream doctor` tries every part.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) dispatchEvent(new CustomEvent(REFUSED));
  throw new ApiError(answer.status, await sentenceOf(answer));
}

/** A JSON answer. */
export async function ask<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  const answer = await fetchApi(path, params, signal ? { signal } : {});
  return (await answer.json()) as T;
}

async function sentenceOf(answer: Response): Promise<string> {
  const text = (await answer.text()).trim();
  if (text.startsWith("{")) {
    try {
      const read = JSON.parse(text) as { error?: unknown; message?: unknown };
      const said = read.message ?? read.error;
      if (typeof said === "string") return said;
    } catch {
      // Not JSON after all: it is shown as it came
    }
  }
  return text || `The querier answered ${answer.status}.`;
}
