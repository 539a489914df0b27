// What users of openapi-fetch do with the types that openapi-typescript made; the test appends a call of every operation.

import createClient from "openapi-fetch";
import type { components, paths } from "./khesht.d.ts";

declare const process: { env: Record<string, string> };

const client = createClient<paths>({ baseUrl: process.env.KHESHT_URL });
const told: { operation: string; status: number; answer: unknown }[] = [];

// The whole of an answer: of a stream its text, read as it comes.
async function whole(answer: unknown): Promise<unknown> {
  if (!(answer instanceof ReadableStream)) return answer;
  const text = new TextDecoder();
  let read = "";
  for await (const bytes of answer) read += text.decode(bytes, { stream: true });
  return read;
}

// What is read of a schema: openapi-fetch leaves out fields that are always null.
type Fields<Schema> = { [Name in keyof Schema as [NonNullable<Schema[Name]>] extends [never] ? never : Name]: Schema[Name] };
type Read<Name extends keyof components["schemas"]> = Fields<components["schemas"][Name]>;
