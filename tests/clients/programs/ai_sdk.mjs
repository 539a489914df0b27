// What users of Vercel's AI SDK do; prints what came, as JSON.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, RetryError, generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const model = (id = "fast", apiKey = process.env.KHESHT_API_KEY) =>
  createOpenAICompatible({ name: "khesht", baseURL: `${process.env.KHESHT_URL}/v1`, apiKey, supportsStructuredOutputs: true })(id);

async function failed(options) {
  try {
    await generateText({ prompt: "Hello", model: model(), ...options });
  } catch (caught) {
    const error = RetryError.isInstance(caught) ? caught.lastError : caught;
    if (!APICallError.isInstance(error)) throw error;
    return { error: error.name, status: error.statusCode, code: JSON.parse(error.responseBody).error.code };
  }
  return { error: null };
}

const does = {
  async text() {
    const reply = await generateText({ model: model(), prompt: "Hello" });
    return { text: reply.text, tokens: reply.usage.totalTokens };
  },
  async stream() {
    const pieces = [];
    for await (const piece of streamText({ model: model(), prompt: "Hello" }).textStream) pieces.push(piece);
    return { pieces };
  },
  async tools() {
    const tools = { weather: tool({ description: "The weather", inputSchema: z.object({ city: z.string() }) }) };
    const reply = await generateText({ model: model(), prompt: "Hello", tools });
    return { tool: reply.toolCalls[0].toolName, arguments: reply.toolCalls[0].input };
  },
  async structured() {
    const schema = z.object({ name: z.string(), age: z.number() });
    return (await generateObject({ model: model(), prompt: "Hello", schema })).object;
  },
  async picture() {
    const image = Buffer.from("A".repeat(Number(process.env.PICTURE_BYTES)), "base64");
    const content = [{ type: "text", text: "What is it?" }, { type: "image", image, mediaType: "image/png" }];
    return { text: (await generateText({ model: model(), messages: [{ role: "user", content }] })).text };
  },
  wrong_key: () => failed({ model: model("fast", "sk_wrong") }),
  no_model: () => failed({ model: model("no-such-model") }),
  refused: () => failed({}),
  limited: () => failed({ maxRetries: 0 }),
  async abort() {
    const controller = new AbortController();
    const result = streamText({ model: model(), prompt: "Hello", abortSignal: controller.signal, onError() {} });
    for await (const first of result.textStream) {
      controller.abort();
      return { first };
    }
  },
  retry: () => does.text(),
};

console.log(JSON.stringify(await does[process.argv[2]]()));
