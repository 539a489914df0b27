// What users of OpenAI's package for Node do; prints what came, as JSON.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const ASK = [{ role: "user", content: "Hello" }];
const client = (options = {}) =>
  new OpenAI({ baseURL: `${process.env.KHESHT_URL}/v1`, apiKey: process.env.KHESHT_API_KEY, ...options });

async function failed(options = {}, model = "fast") {
  try {
    await client(options).chat.completions.create({ model, messages: ASK });
  } catch (error) {
    return { error: error.constructor.name, status: error.status, code: error.code };
  }
  return { error: null };
}

const does = {
  async text() {
    const reply = await client().chat.completions.create({ model: "fast", messages: ASK });
    return { text: reply.choices[0].message.content, tokens: reply.usage.total_tokens };
  },
  async stream() {
    const pieces = [];
    const chunks = await client().chat.completions.create({ model: "fast", messages: ASK, stream: true });
    for await (const chunk of chunks) if (chunk.choices[0].delta.content) pieces.push(chunk.choices[0].delta.content);
    return { pieces };
  },
  async tools() {
    const tool = { type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } } };
    const reply = await client().chat.completions.create({ model: "fast", messages: ASK, tools: [tool] });
    const call = reply.choices[0].message.tool_calls[0].function;
    return { tool: call.name, arguments: JSON.parse(call.arguments) };
  },
  async structured() {
    const Person = z.object({ name: z.string(), age: z.number() });
    const reply = await client().chat.completions.parse({ model: "fast", messages: ASK, response_format: zodResponseFormat(Person, "person") });
    return reply.choices[0].message.parsed;
  },
  async picture() {
    const url = "data:image/png;base64," + "A".repeat(Number(process.env.PICTURE_BYTES));
    const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url } }];
    const reply = await client().chat.completions.create({ model: "fast", messages: [{ role: "user", content }] });
    return { text: reply.choices[0].message.content };
  },
  wrong_key: () => failed({ apiKey: "sk_wrong" }),
  no_model: () => failed({}, "no-such-model"),
  refused: () => failed(),
  limited: () => failed({ maxRetries: 0 }),
  async abort() {
    const chunks = await client().chat.completions.create({ model: "fast", messages: ASK, stream: true });
    for await (const chunk of chunks) {
      const first = chunk.choices[0].delta.content;
      if (first) {
        chunks.controller.abort();
        return { first };
      }
    }
  },
  retry: () => does.text(),
};

console.log(JSON.stringify(await does[process.argv[2]]()));
